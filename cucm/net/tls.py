"""TLS without I/O inside an `asyncio` protocol: a pyOpenSSL `Connection` on memory BIOs, both sides.

Why not asyncio's own TLS: a server must learn that a phone refused its certificate, must ask for a client
certificate without insisting on a chain, and 10,000 idle phones must not cost 256 KiB each. There is no session
resumption (phones say `caching disabled, session not saved`, facts 2.9).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL, crypto

from cucm.errors import TlsError, TrustError
from cucm.identity import Identity
from cucm.net.between import HOLD_S, Deaf, SilencedTransport
from cucm.net.deadlines import Countdown
from cucm.net.stream import CLOSE_TIMEOUT_S, READ_SIZE, Stream, StreamOwner
from cucm.net.tls_context import (
    ClientCertificatePolicy,
    PeerCheck,
    TlsProfile,
    VerifyPeer,
    client_context,
    reason_of,
    server_context,
)
from cucm.net.tls_session import SESSION

__all__ = [
    "CONNECT_TIMEOUT_S",
    "HANDSHAKE_TIMEOUT_S",
    "ClientCertificatePolicy",
    "Stream",
    "TlsProfile",
    "TlsStream",
    "VerifyPeer",
    "client_context",
    "open_stream",
    "server_context",
]

CONNECT_TIMEOUT_S: Final = 5.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
LINGER_BYTES: Final = 256 * 1024
"""How much a peer may still send behind the end of its session."""


def silence_of(address: str, port: int, timeout_s: float) -> str:
    """What is said of a server to which no connection comes about."""
    return f"{address} port {port} does not answer within {timeout_s:g} s"


def _tls_error(error: SSL.Error, peer: str) -> TlsError:
    """`alert` is set when the peer sent one; otherwise this side found the fault."""
    reason = reason_of(error) or "TLS failed"
    return TlsError(reason, alert=reason if " alert " in f" {reason} " else None, where=peer)


class TlsStream(Stream):
    """A TCP connection with TLS; see `Stream` for what can be done with it."""

    __slots__ = (
        "_check",
        "_countdown",
        "_handshake_timeout_s",
        "_handshaking",
        "_seen",
        "_timer",
        "_tls",
        "_unread",
    )

    def __init__(
        self,
        owner: StreamOwner,
        context: SSL.Context,
        *,
        server_side: bool,
        verify_peer: VerifyPeer | None = None,
        idle_timeout_s: float | None = None,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
        countdown: Countdown[TlsStream] | None = None,
    ) -> None:
        """`countdown`, of as many seconds as `handshake_timeout_s`, calls `give_up`; without one there is a timer."""
        super().__init__(owner, idle_timeout_s=idle_timeout_s)
        self._tls = SESSION(context, server_side=server_side)
        verify = verify_peer or context.get_app_data()
        self._check = PeerCheck(verify) if verify is not None else None
        if self._check is not None:
            self._tls.set_app_data(self._check)
        self._handshake_timeout_s = handshake_timeout_s
        self._countdown = countdown
        self._timer: asyncio.TimerHandle | None = None
        self._handshaking = True
        self._seen = not server_side
        self._unread = 0

    @property
    def peer_certificate(self) -> bytes | None:
        """DER of the certificate the peer has shown, None if it showed none."""
        if self._check is not None and self._check.der is not None:
            return self._check.der
        certificate = self._tls.get_peer_certificate()
        return None if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    @property
    def cipher(self) -> str:
        return self._tls.agreed[0]

    @property
    def tls_version(self) -> str:
        return self._tls.agreed[1]

    def write(self, data: bytes) -> None:
        if not self._may_send():
            return
        try:
            for start in range(0, len(data), READ_SIZE):
                self._tls.encrypt(data[start : start + READ_SIZE])
                self._send_out()
        except SSL.Error as error:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handshaking:
            self._fail(exc or TlsError("the peer hung up during the TLS handshake", where=self.peer_address[0]))
        self._cancel_timer()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        if self._handshaking or self._error is not None:
            return False  # closes; connection_lost tells the owner
        return super().eof_received()

    def buffer_updated(self, nbytes: int) -> None:
        if self._eof:  # the session has ended or is broken: OpenSSL would only pile up what still comes
            self._unread += nbytes
            if self._unread > LINGER_BYTES:
                self.abort()
            return
        if not self._seen:
            self._seen = True
            if not self._owner.first_bytes(self):
                return
        if self._handshaking:
            self._shake_hands(nbytes)
        else:
            self._decrypt(nbytes)

    # -- what a fault does to a server's handshake (`cucm.net.tls_faults`) -------------------------------------

    def stall(self, after_bytes: int) -> None:
        """Say no more than so many bytes, and wait for the peer longer than any of them does."""
        self.send_through(SilencedTransport(self._transport, after_bytes))
        if not after_bytes:
            self._transport.set_protocol(Deaf(self))
        self._cancel_timer()
        self._handshake_timeout_s = HOLD_S
        self._timer = self._loop.call_later(HOLD_S, self.give_up)

    def turn_away(self, words: bytes, error: TlsError) -> None:
        """Send raw bytes instead of an answer and close; the handshake has failed with `error`."""
        if self._may_send():
            self._transport.write(words)
        self._fail(error)
        self._linger()

    def show(self, identity: Identity) -> None:
        """Take another certificate and key than the context's. Nothing of the handshake may have been sent."""
        self._tls.show(identity.certificate, identity.private_key)

    def rest(self) -> None:
        if not self._handshaking and not self._lost:
            self._tls.rest()
            if self._check is not None:
                self._check.der = None  # OpenSSL has it too, for who asks again

    # -- inside ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._countdown is not None:
            self._countdown.start(self)
        else:
            self._timer = self._loop.call_later(self._handshake_timeout_s, self.give_up)
        if self._seen:
            self._shake_hands()

    def _shake_hands(self, count: int = 0) -> None:
        tls = self._tls
        try:
            is_done = tls.shake_hands(count)
        except SSL.Error as error:
            self._send_out()
            self._fail(self._refusal() or _tls_error(error, self.peer_address[0]))
            self._linger()
            return
        if tls.out:
            self._send_out()
        if is_done:
            self._end_handshake()
            self._owner.ready(self)
            if tls.has_unread():
                self._decrypt()

    def _linger(self) -> None:
        """Close behind the alert. A client of TLS 1.3 is already sending its request: closing now would answer
        that with a reset, and the reset would overtake the alert.
        """
        if self._may_send():
            self._transport.write_eof()
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self.abort)

    def _refusal(self) -> TrustError | None:
        return self._check.refusal if self._check is not None else None

    def give_up(self) -> None:
        """The handshake has taken too long: it has failed, and the connection is cut."""
        self._fail(TimeoutError(f"no TLS handshake within {self._handshake_timeout_s:g} s"))
        self.abort()

    def _fail(self, error: Exception) -> None:
        if self._handshaking:
            self._end_handshake()
            self._error = error
            self._eof = True
            self._owner.failed(self, error)

    def _end_handshake(self) -> None:
        self._cancel_timer()
        self._handshaking = False

    def _cancel_timer(self) -> None:
        if self._countdown is not None and self._handshaking:
            self._countdown.stop(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _decrypt(self, count: int = 0) -> None:
        tls = self._tls
        try:
            if tls.decrypt_into(self._received, count):
                self._eof = True
        except SSL.Error as error:
            self._break(error)
        if tls.out:  # reading may have something to say: that there is no renegotiation, say
            self._send_out()
        self._after_receiving()

    def _break(self, error: SSL.Error) -> None:
        """The session is unusable: send the alert OpenSSL has prepared, and let the reader see why."""
        self._error = self._error or _tls_error(error, self.peer_address[0])
        self._eof = True
        self._send_out()

    def _send_out(self) -> None:
        """What the session has made ready."""
        tls = self._tls
        data, tls.out = tls.out, b""
        while data:
            if not self._frozen and not self._transport.is_closing():
                self._transport.write(data)
            data = tls.take_out() if len(data) == READ_SIZE else b""

    def _say_goodbye(self) -> None:
        try:
            self._tls.say_goodbye()
        except SSL.Error:
            return  # not established, or broken: there is nobody to say it to
        self._send_out()


async def open_stream(
    address: str,
    port: int,
    *,
    context: SSL.Context | None = None,
    verify_peer: VerifyPeer | None = None,
    local_address: str | None = None,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    on_connected: Callable[[Stream], None] | None = None,
    resolves_names: bool = False,
) -> Stream:
    """Connect, with TLS if there is a `context`; `on_connected` is called with it between TCP and TLS.

    `address` is an IP address unless `resolves_names`: most of them come from files of the network, and a name in one
    must not make the lab ask the machine's DNS. An OSError says so.

    `verify_peer` sees the server's certificate during the handshake, so that a refusal reaches the server as a
    fatal alert; without it any certificate will do. Raises OSError and TimeoutError (TCP and stalled TLS),
    TlsError (TLS), and the TrustError of `verify_peer`.
    """
    opening = _Opening(asyncio.get_running_loop().create_future(), on_connected)

    def stream() -> Stream:
        if context is None:
            return Stream(opening)
        return TlsStream(
            opening, context, server_side=False, verify_peer=verify_peer, handshake_timeout_s=handshake_timeout_s
        )

    flags = 0 if resolves_names else socket.AI_NUMERICHOST
    return await _connect(opening, stream, (address, port), local_address, connect_timeout_s, flags)


async def _connect(
    opening: _Opening,
    factory: Callable[[], Stream],
    target: tuple[str, int],
    local_address: str | None,
    timeout_s: float,
    flags: int,
) -> Stream:
    local = (local_address, 0) if local_address is not None else None
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, stream = await loop.create_connection(factory, *target, local_addr=local, flags=flags)
    except socket.gaierror as error:
        raise error if not flags else OSError(f"{target[0][:64]!r} is no IP address; names are not resolved") from error
    except BaseException as error:
        opening.outcome.cancel()  # nobody will ask for it, though the connection may have come about in the meantime
        if isinstance(error, TimeoutError):
            raise TimeoutError(silence_of(target[0], target[1], timeout_s)) from None
        raise
    try:
        await opening.outcome
    except BaseException:
        if opening.outcome.cancelled():
            stream.abort()
        await stream.close()
        raise
    return stream


class _Opening:
    """Owner of a stream that is being opened; `outcome` is done when the stream is usable or has failed."""

    def __init__(self, outcome: asyncio.Future[None], on_connected: Callable[[Stream], None] | None) -> None:
        self.outcome = outcome
        self._on_connected = on_connected

    def opened(self, stream: Stream) -> bool:
        on_connected, self._on_connected = self._on_connected, None
        if on_connected is not None:
            on_connected(stream)  # and not kept: it holds the client's certificate, 8 KiB as Python reads it
        return True

    def first_bytes(self, stream: Stream) -> bool:  # noqa: ARG002
        return True

    def ready(self, stream: Stream) -> None:  # noqa: ARG002
        if not self.outcome.done():
            self.outcome.set_result(None)

    def failed(self, stream: Stream, error: Exception) -> None:  # noqa: ARG002
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def lost(self, stream: Stream) -> None:  # noqa: ARG002
        # plain TCP that broke between connect and the first await
        if not self.outcome.done():
            self.outcome.set_exception(ConnectionResetError("the connection was closed at once"))
