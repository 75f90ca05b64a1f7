"""TLS without I/O inside an `asyncio` protocol: a pyOpenSSL `Connection` on memory BIOs, both sides.

Why not asyncio's own TLS: a server must learn that a phone refused its certificate, must ask for a client
certificate without insisting on a chain, and 10,000 idle phones must not cost 256 KiB each. There is no session
resumption (phones say `caching disabled, session not saved`, facts 2.9).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_der_private_key
from OpenSSL import SSL, crypto

from cucm.errors import TlsError, TrustError, TrustReason, UsageError
from cucm.net.stream import CLOSE_TIMEOUT_S, READ_SIZE, Stream, StreamOwner

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

VerifyPeer = Callable[[bytes], None]
"""Called with the DER of the peer's certificate during the handshake; raises TrustError to refuse it."""


class TlsProfile(StrEnum):
    MODERN = "modern"
    """TLS 1.2 and 1.3 with forward secrecy."""
    AES256_SHA = "aes256-sha"
    """TLS 1.0 to 1.2, `AES256-SHA` first, as an 8861 and TVS 10.5.2 agree on (facts 2.9)."""


_VERSIONS: Final = {
    TlsProfile.MODERN: (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION),
    TlsProfile.AES256_SHA: (SSL.TLS1_VERSION, SSL.TLS1_2_VERSION),
}
_CIPHERS: Final = {
    TlsProfile.MODERN: b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL",
    # level 0: OpenSSL otherwise leaves out TLS 1.0 and RSA key exchange whatever else is asked for
    TlsProfile.AES256_SHA: b"AES256-SHA:ALL:!aNULL:!eNULL:@SECLEVEL=0",
}


class ClientCertificatePolicy(StrEnum):
    """What a server does about client certificates. What the real TVS does is UNKNOWN (facts 2.9)."""

    OFF = "off"
    REQUESTED = "requested"
    """Taken if offered, checked against the given CAs if there are any; a stranger's is refused with an alert."""
    REQUIRED = "required"
    """As REQUESTED, and a client without one is refused."""


_VERIFY_MODES: Final = {
    ClientCertificatePolicy.OFF: SSL.VERIFY_NONE,
    ClientCertificatePolicy.REQUESTED: SSL.VERIFY_PEER,
    ClientCertificatePolicy.REQUIRED: SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


def server_context(
    certificate_der: bytes,
    private_key_der: bytes,
    *,
    profile: TlsProfile = TlsProfile.MODERN,
    policy: ClientCertificatePolicy = ClientCertificatePolicy.REQUESTED,
    client_cas: Sequence[bytes] = (),
    now: Callable[[], float] = time.time,
) -> SSL.Context:
    """A context for any number of server connections; make it once, 22 KiB and 0.2 ms each.

    `private_key_der` is unencrypted PKCS#8 or PKCS#1; `client_cas` are DER certificates whose holder must have
    issued an offered client certificate; `now` (Unix seconds) dates those. Raises UsageError.
    """
    context = _context(profile)
    _use_identity(context, certificate_der, private_key_der)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_verify(_VERIFY_MODES[policy], _verify)
    if client_cas:
        context.set_app_data(_issued_by([_load_certificate(der) for der in client_cas], now))
    return context


def client_context(
    *,
    profile: TlsProfile = TlsProfile.MODERN,
    certificate_der: bytes | None = None,
    private_key_der: bytes | None = None,
) -> SSL.Context:
    """A context for any number of client connections, with the client's certificate and key if it has them.

    Raises UsageError.
    """
    context = _context(profile)
    if certificate_der is not None and private_key_der is not None:
        _use_identity(context, certificate_der, private_key_der)
    context.set_verify(SSL.VERIFY_PEER, _verify)
    return context


def _context(profile: TlsProfile) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    lowest, highest = _VERSIONS[profile]
    context.set_min_proto_version(lowest)
    context.set_max_proto_version(highest)
    context.set_cipher_list(_CIPHERS[profile])
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def _use_identity(context: SSL.Context, certificate_der: bytes, private_key_der: bytes) -> None:
    try:
        key: Any = load_der_private_key(private_key_der, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError) as error:
        raise UsageError("this is not an unencrypted private key in DER", mend="give PKCS#8 or PKCS#1") from error
    try:
        context.use_certificate(_load_certificate(certificate_der))
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error as error:
        raise UsageError(
            f"the certificate cannot be used for TLS: {_reason(error) or 'no reason given'}",
            mend="give the private key of that certificate; weak keys need the aes256-sha profile",
        ) from error


def _load_certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise UsageError("this is not a certificate in DER", mend="convert it: openssl x509 -outform DER") from error


def _issued_by(authorities: Sequence[x509.Certificate], now: Callable[[], float]) -> VerifyPeer:
    def verify(der: bytes) -> None:
        certificate = _parse_offered(der)
        if not any(_is_issuer(authority, certificate) for authority in authorities):
            issuer = certificate.issuer.rfc4514_string()
            raise TrustError(TrustReason.SIGNER_UNKNOWN, f"client certificate is not of a known CA: issuer {issuer}")
        moment = now()
        if moment > certificate.not_valid_after_utc.timestamp():
            raise TrustError(TrustReason.CERTIFICATE_EXPIRED, "client certificate has expired")
        if moment < certificate.not_valid_before_utc.timestamp():
            raise TrustError(TrustReason.CERTIFICATE_NOT_YET_VALID, "client certificate is not yet valid")

    return verify


def _parse_offered(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise TrustError(TrustReason.MALFORMED, "client certificate cannot be read") from error


def _is_issuer(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _verify(connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _ok: int) -> bool:
    """OpenSSL's verify callback. Chains say nothing in this system; the peer's own certificate is looked at."""
    check = connection.get_app_data()
    return depth > 0 or check is None or check.accepts(certificate)


class _PeerCheck:
    """One connection's verdict on its peer's certificate; OpenSSL asks several times, the question is put once."""

    __slots__ = ("asked", "refusal", "verify")

    def __init__(self, verify: VerifyPeer) -> None:
        self.verify = verify
        self.asked = False
        self.refusal: TrustError | None = None

    def accepts(self, certificate: crypto.X509) -> bool:
        if not self.asked:
            self.asked = True
            try:
                self.verify(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
            except TrustError as refusal:
                self.refusal = refusal
        return self.refusal is None


def _reason(error: SSL.Error) -> str | None:
    """The innermost reason text of an OpenSSL error (`ssl/tls alert bad certificate`)."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return str(queue[-1][-1])
    return str(error) or None


def _tls_error(error: SSL.Error, peer: str) -> TlsError:
    """`alert` is set when the peer sent one; otherwise this side found the fault."""
    reason = _reason(error) or "TLS failed"
    return TlsError(reason, alert=reason if " alert " in f" {reason} " else None, where=peer)


class TlsStream(Stream):
    """A TCP connection with TLS; see `Stream` for what can be done with it."""

    __slots__ = ("_check", "_deaf", "_handshake_timeout_s", "_handshaking", "_seen", "_timer", "_tls")

    def __init__(
        self,
        owner: StreamOwner,
        context: SSL.Context,
        *,
        server_side: bool,
        verify_peer: VerifyPeer | None = None,
        idle_timeout_s: float | None = None,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        super().__init__(owner, idle_timeout_s=idle_timeout_s)
        self._tls = SSL.Connection(context, None)
        (self._tls.set_accept_state if server_side else self._tls.set_connect_state)()
        verify = verify_peer or context.get_app_data()
        self._check = _PeerCheck(verify) if verify is not None else None
        self._tls.set_app_data(self._check)
        self._handshake_timeout_s = handshake_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._handshaking = True
        self._deaf = False
        self._seen = not server_side

    @property
    def peer_certificate(self) -> bytes | None:
        """DER of the certificate the peer has shown, None if it showed none."""
        certificate = self._tls.get_peer_certificate()
        return None if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    @property
    def cipher(self) -> str:
        return self._tls.get_cipher_name() or ""

    @property
    def tls_version(self) -> str:
        return self._tls.get_protocol_version_name()

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.send(view[:READ_SIZE]) :]
                self._flush()
        except SSL.Error as error:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handshaking:
            self._fail(exc or TlsError("the peer hung up during the TLS handshake", where=self.peer_address[0]))
        self._cancel_timer()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        if self._handshaking or self._deaf:
            return False  # closes; connection_lost tells the owner
        return super().eof_received()

    def buffer_updated(self, nbytes: int) -> None:
        if self._deaf:
            return
        self._tls.bio_write(self._buffer[:nbytes])
        if not self._seen:
            self._seen = True
            self._owner.first_bytes(self)
        if self._handshaking:
            self._shake_hands()
        else:
            self._decrypt()

    # -- inside ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._timer = self._loop.call_later(self._handshake_timeout_s, self._give_up)
        if self._seen:
            self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
        except SSL.Error as error:
            self._flush()
            self._fail(self._refusal() or _tls_error(error, self.peer_address[0]))
            self._linger()
        else:
            self._flush()
            self._end_handshake()
            self._owner.ready(self)
            self._decrypt()

    def _linger(self) -> None:
        """Close behind the alert. A client of TLS 1.3 is already sending its request: closing now would answer
        that with a reset, and the reset would overtake the alert.
        """
        self._deaf = True
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _refusal(self) -> TrustError | None:
        return self._check.refusal if self._check is not None else None

    def _give_up(self) -> None:
        self._fail(TimeoutError(f"no TLS handshake within {self._handshake_timeout_s:g} s"))
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._handshaking:
            self._end_handshake()
            self._error = error
            self._eof = True
            self._owner.failed(self, error)

    def _end_handshake(self) -> None:
        self._handshaking = False
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _decrypt(self) -> None:
        try:
            while True:
                self._received += self._tls.recv(READ_SIZE)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._eof = True
        except SSL.Error as error:
            self._break(error)
        self._after_receiving()

    def _break(self, error: SSL.Error) -> None:
        """The session is unusable: send the alert OpenSSL has prepared, and let the reader see why."""
        self._error = self._error or _tls_error(error, self.peer_address[0])
        self._eof = True
        self._flush()

    def _flush(self) -> None:
        try:
            while not self._transport.is_closing():
                data = self._tls.bio_read(READ_SIZE)
                self._transport.write(data)
                if len(data) < READ_SIZE:
                    return
        except SSL.WantReadError:
            return

    def _say_goodbye(self) -> None:
        try:
            self._tls.shutdown()
        except SSL.Error:
            return  # not established, or broken: there is nobody to say it to
        self._flush()


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
) -> Stream:
    """Connect, with TLS if there is a `context`; `on_connected` is called with it between TCP and TLS.

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

    return await _connect(opening, stream, (address, port), local_address, connect_timeout_s)


async def _connect(
    opening: _Opening,
    factory: Callable[[], Stream],
    target: tuple[str, int],
    local_address: str | None,
    timeout_s: float,
) -> Stream:
    local = (local_address, 0) if local_address is not None else None
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, stream = await loop.create_connection(factory, *target, local_addr=local)
    except TimeoutError:
        raise TimeoutError(f"{target[0]} port {target[1]} does not answer within {timeout_s:g} s") from None
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

    def opened(self, stream: Stream) -> None:
        if self._on_connected is not None:
            self._on_connected(stream)

    def first_bytes(self, stream: Stream) -> None:
        pass

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
