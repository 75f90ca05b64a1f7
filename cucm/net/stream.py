"""One TCP connection with bounded buffers and deadlines: an `asyncio` protocol that a coroutine reads and writes.

The plain form; `cucm.net.tls.TlsStream` puts TLS into it. Works on asyncio's own event loop and on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, Protocol, Self

from cucm.net.reachability import drop_packets
from cucm.net.tls_session import BUFFER_BYTES, thread_buffer

READ_SIZE: Final = BUFFER_BYTES
"""Bytes taken from a socket at once: one TLS record."""
READ_HIGH_WATER: Final = 32 * 1024
"""Bytes received and not yet read at which the socket is left alone, so that TCP slows the sender down."""
WRITE_HIGH_WATER: Final = 64 * 1024
"""Bytes written and not yet sent at which `drain` waits: what asyncio's, uvloop's and our transports begin with."""
CLOSE_TIMEOUT_S: Final = 2.0
"""How long `close` waits for a peer to take what was written before it cuts the connection."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""struct linger: on, 0 seconds."""

Address = tuple[str, int]
"""IP address and port."""


class StreamOwner(Protocol):
    """Who is told about a stream's life: a listener, or the call that opens a connection."""

    def opened(self, stream: Stream) -> bool:
        """TCP is connected; nothing was read or written. Whether the stream is to begin."""

    def first_bytes(self, stream: Stream) -> bool:
        """The peer has begun its TLS handshake (not called for plain streams). Whether it is to be answered."""

    def ready(self, stream: Stream) -> None:
        """Data may flow: TLS, if there is any, is established."""

    def failed(self, stream: Stream, error: Exception) -> None:
        """TLS could not be established; the connection is being closed."""

    def lost(self, stream: Stream) -> None:
        """The connection is gone."""


class Stream(asyncio.BufferedProtocol):
    """A plain TCP connection. Made by `cucm.net.tls.open_stream` or by a `Listener`.

    `idle_timeout_s` bounds every wait for the peer (in `read` for data, in `drain` for it to take data);
    None waits for ever.
    """

    __slots__ = (
        "_buffer",
        "_drain_waiter",
        "_eof",
        "_error",
        "_frozen",
        "_loop",
        "_lost",
        "_lost_event",
        "_owner",
        "_paused",
        "_read_waiter",
        "_received",
        "_transport",
        "_write_paused",
        "close_timeout_s",
        "idle_timeout_s",
        "peer_address",
        "received",
        "receiver",
        "socket_number",
        "when_lost",
    )

    def __init__(self, owner: StreamOwner, *, idle_timeout_s: float | None = None) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._buffer = thread_buffer().view
        self._received = self.received = bytearray()
        """What came and was not read yet, to be looked at; filled and emptied in place."""
        self._transport: asyncio.Transport
        self._read_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._lost_event: asyncio.Event | None = None
        self._error: Exception | None = None
        self._eof = self._lost = self._paused = self._write_paused = self._frozen = False
        self.idle_timeout_s = idle_timeout_s
        self.close_timeout_s = CLOSE_TIMEOUT_S
        self.peer_address: Address = ("", 0)
        self.socket_number = -1
        self.receiver: Callable[[Stream], None] | None = None
        """Called when there is something new to `take` or to learn, instead of waking a coroutine that reads; None,
        too, once the connection is cut from this side or gone.
        """
        self.when_lost: Callable[[Stream], None] | None = None
        """Called once, when the connection is gone: for whoever has set `receiver`, which does not hear of that."""

    # -- what a coroutine does with it -------------------------------------------------------------------------

    @property
    def peer_certificate(self) -> bytes | None:
        """DER of the certificate the peer has shown; None on plain TCP."""
        return None

    @property
    def cipher(self) -> str:
        """OpenSSL's name of the cipher suite; "" on plain TCP."""
        return ""

    @property
    def tls_version(self) -> str:
        """`TLSv1.2` and the like; "" on plain TCP."""
        return ""

    def set_type_of_service(self, value: int) -> int | None:
        """Set IP_TOS of the socket; returns what it now is, None where the system does not allow it (IPv6)."""
        connection = self._transport.get_extra_info("socket")
        try:
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, value)
            number: int = connection.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
        except OSError:
            return None
        return number

    @property
    def local_address(self) -> Address:
        """Where the peer has connected to; ("", 0) when the connection is gone."""
        return _address(self._transport.get_extra_info("sockname"))

    @property
    def has_ended(self) -> bool:
        """Nothing more will come; what came before may still be there to read."""
        return self._eof or self._lost or self._error is not None

    @property
    def has_ended_well(self) -> bool:
        """By a goodbye, or the end of the peer's half, rather than by an error."""
        return self._error is None and (self._eof or self._lost)

    @property
    def error(self) -> Exception | None:
        """What `read` raises once all that came has been read; None while nothing is wrong, and after a good end."""
        return self._error

    def unsent_bytes(self) -> int:
        """Written, and not yet taken by the system."""
        return self._transport.get_write_buffer_size()

    def take(self) -> bytes:
        """All that came and was not read yet, b"" if nothing did; never waits."""
        return self._take(len(self._received))

    async def read(self, n: int = READ_SIZE) -> bytes:
        """1 to `n` bytes as soon as there are any, b"" when the peer has ended.

        Raises TimeoutError (idle), ConnectionError (reset), TlsError (a broken TLS session; under TLS 1.3 a
        client learns only here that the server refused its certificate).
        """
        while not (self._received or self._eof or self._error or self._lost):
            waiter = self._read_waiter = self._loop.create_future()
            try:
                if self.idle_timeout_s is None:
                    await waiter  # here: thousands of registered phones wait with no frame more than it takes
                else:
                    await self._within_idle_timeout(waiter, "the peer sends no data")
            finally:
                self._read_waiter = None
        if self._received:
            return self._take(n)
        if self._error is not None:
            raise self._error
        return b""

    def write(self, data: bytes) -> None:
        """Queue `data`; call `drain` before writing much more. Dropped when the connection is already gone."""
        if self._may_send():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the peer has taken enough. Raises TimeoutError (idle) and ConnectionError."""
        if self._write_paused and not self._lost:
            self._drain_waiter = self._loop.create_future()
            try:
                await self._within_idle_timeout(self._drain_waiter, "the peer takes no data")
            finally:
                self._drain_waiter = None
        if self._lost:
            raise self._error or ConnectionResetError("the connection is closed")

    async def flush(self) -> None:
        """Wait until the system has taken every byte written; `close` after it cuts nothing. Raises like `drain`."""
        if not self._lost:
            if not self._transport.get_write_buffer_size():
                return
            self._transport.set_write_buffer_limits(high=0)
        try:
            await self.drain()
        finally:
            if not self._lost:
                self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    async def close(self) -> None:
        """Send what is queued, say goodbye, close, and return when the connection is gone."""
        if self._lost:
            return
        self.end()
        timer = self._loop.call_later(self.close_timeout_s, self.abort)
        try:
            await self._wait_until_lost()
        finally:
            timer.cancel()
            self.abort()

    def rest(self) -> None:
        """A long silence begins, as of a registered phone: memory that the beginning needed is given back."""

    def end(self) -> None:
        """As `close`, but without waiting, and without a bound for a peer that does not take what was written."""
        if self._lost:
            return
        if self._frozen:
            self.abort()
        else:
            self._say_goodbye()
            self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self._lost:
            return
        self.receiver = None
        if self._frozen:  # the goodbye of TCP vanishes too: it ends for this side only
            self._loop.call_soon(self.connection_lost, None)
        else:
            self._transport.abort()

    def reset(self) -> None:
        """Cut the connection with a TCP reset, as the kernel does for a process that is gone. Ends `freeze` as well."""
        if self._lost and not self._frozen:
            return
        self.receiver = None
        self._frozen = False
        with contextlib.suppress(OSError):  # gone already
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def freeze(self) -> None:
        """The network is gone: nothing arrives any more, and what is written or closed here never reaches the peer.

        Deadlines go on. `reset` alone lets the peer know.
        """
        if self._lost or self._transport.is_closing():
            return
        self._frozen = True
        drop_packets(self._transport.get_extra_info("socket"))
        self._transport.pause_reading()

    @property
    def is_frozen(self) -> bool:
        """Whether it has been cut off from its peer (`freeze`)."""
        return self._frozen

    @property
    def transport(self) -> asyncio.Transport:
        """For what is put between this stream and its socket (`cucm.net.between`)."""
        return self._transport

    def send_through(self, transport: asyncio.Transport) -> None:
        """From now on write, pause and close by `transport`, which passes on what it likes to the one there was."""
        self._transport = transport

    # -- what the event loop calls -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.peer_address = _address(transport.get_extra_info("peername"))
        self.socket_number = transport.get_extra_info("socket").fileno()
        try:
            begins = self._owner.opened(self)
        except BaseException:  # asyncio would only log it, and leave the connection open without a deadline
            self._transport.abort()
            raise
        if begins and not self._transport.is_closing():
            self._begin()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received += self._buffer[:nbytes]
        self._after_receiving()

    def eof_received(self) -> bool:
        self._eof = True
        self._tell_reader()
        return True  # half-closed: what the handler still writes goes out; whoever owns the stream closes it

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake(self._drain_waiter)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:
            return  # it was frozen, and had ended for this side before
        self._lost = True
        self._error = self._error or exc
        self.receiver = None
        if self._read_waiter is not None:
            self._wake(self._read_waiter)
        if self._drain_waiter is not None:
            self._wake(self._drain_waiter)
        if self._lost_event is not None:
            self._lost_event.set()
        self._owner.lost(self)
        when_lost, self.when_lost = self.when_lost, None
        if when_lost is not None:
            when_lost(self)

    # -- inside ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._owner.ready(self)

    def _say_goodbye(self) -> None:
        pass

    def _may_send(self) -> bool:
        return not self._frozen and not self._transport.is_closing()

    def _after_receiving(self) -> None:
        if len(self._received) >= READ_HIGH_WATER and not self._paused and self._may_send():
            self._paused = True
            self._transport.pause_reading()
        if self._received or self._eof or self._error is not None:  # half a TLS record is nothing to read
            if self.receiver is not None:
                self.receiver(self)
            else:
                self._wake(self._read_waiter)

    def _tell_reader(self) -> None:
        if self.receiver is not None:
            self.receiver(self)
        else:
            self._wake(self._read_waiter)

    def _take(self, n: int) -> bytes:
        chunk = bytes(self._received[:n])
        del self._received[:n]
        if self._paused and len(self._received) < READ_HIGH_WATER and self._may_send():
            self._paused = False
            self._transport.resume_reading()
        return chunk

    async def _within_idle_timeout(self, waiter: asyncio.Future[None], trouble: str) -> None:
        seconds = self.idle_timeout_s
        if seconds is None:
            return await waiter
        timer = self._loop.call_later(seconds, _give_up, waiter, trouble, seconds)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def _wait_until_lost(self) -> None:
        if not self._lost:
            self._lost_event = self._lost_event or asyncio.Event()
            await self._lost_event.wait()

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _give_up(waiter: asyncio.Future[None], trouble: str, seconds: float) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError(f"{trouble} for {seconds:g} s"))


def _address(name: Any) -> Address:
    """The first two parts of what the socket says; a peer that is already gone has no name."""
    return (name[0], name[1]) if name else ("", 0)
