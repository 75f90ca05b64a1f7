"""What can be put between a stream and its socket, so that a connection goes wrong on the wire.

A transport in between changes what goes out; a protocol in between changes what comes in. A connection without a fault
has neither and pays for neither. All work on asyncio's own loop and on uvloop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cucm.net.stream import Stream

HOLD_S: Final = 600.0
"""How long a connection that a fault has silenced is kept for a peer that does not give up."""
TICK_S: Final = 0.02
"""A paced transport sends pieces of so many seconds' worth, or single bytes when that is less."""
PACED_HIGH_WATER: Final = 64 * 1024


class TransportBetween(asyncio.Transport):
    """Passes everything on; subclasses change some of it."""

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__()
        self._inner = inner

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def close(self) -> None:
        self._inner.close()

    def abort(self) -> None:
        self._inner.abort()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._inner.write(data)

    def write_eof(self) -> None:
        self._inner.write_eof()

    def get_write_buffer_size(self) -> int:
        return self._inner.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._inner.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._inner.set_protocol(protocol)


class SilencedTransport(TransportBetween):
    """Sends the first `allowed` bytes, and swallows what is written after them."""

    def __init__(self, inner: asyncio.Transport, allowed: int) -> None:
        super().__init__(inner)
        self._allowed = allowed

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        passed = data[: self._allowed]
        self._allowed -= len(passed)
        if passed:
            self._inner.write(passed)

    def write_eof(self) -> None:
        """An end would be something said."""


class PacedTransport(TransportBetween):
    """Sends `bytes_per_s`, the first byte after `delay_s`; the writer is told to wait above its high water mark.

    `close` sends what is queued at that pace first; nothing is read meanwhile.
    """

    def __init__(self, inner: asyncio.Transport, stream: Stream, bytes_per_s: int, delay_s: float) -> None:
        super().__init__(inner)
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._bytes_per_s = bytes_per_s
        self._piece = max(1, int(bytes_per_s * TICK_S))
        self._next_at = self._loop.time() + delay_s
        self._timer: asyncio.TimerHandle | None = None
        self._queue = bytearray()
        self._high = PACED_HIGH_WATER
        self._is_paused = self._closing = self._eof = False

    def is_closing(self) -> bool:
        return self._closing or self._inner.is_closing()

    def close(self) -> None:
        if self._queue and not self._inner.is_closing():
            self._closing = True
            self._inner.pause_reading()  # a closed transport reads nothing, so nobody would empty the buffer
        else:
            self._inner.close()

    def abort(self) -> None:
        self._forget()
        self._inner.abort()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self.is_closing():
            return
        self._queue += data
        self._watch_level()
        if self._timer is None:
            self._pump()

    def write_eof(self) -> None:
        if self._queue:
            self._eof = True
        else:
            self._inner.write_eof()

    def get_write_buffer_size(self) -> int:
        return len(self._queue) + self._inner.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._inner.set_write_buffer_limits(high, low)
        self._high = PACED_HIGH_WATER if high is None else high
        self._watch_level()

    def _watch_level(self) -> None:
        if len(self._queue) > self._high:
            self._is_paused = True
            self._stream.pause_writing()
        elif self._is_paused and len(self._queue) <= self._high // 2:
            self._is_paused = False
            self._stream.resume_writing()

    def _pump(self) -> None:
        """Send the piece that is due; the next one waits for its time, and for the peer to take this one."""
        self._timer = None
        if self._inner.is_closing() or self._stream.is_frozen:
            self._forget()
            return
        now = self._loop.time()
        if now >= self._next_at and not self._inner.get_write_buffer_size():
            piece = bytes(self._queue[: self._piece])
            del self._queue[: self._piece]
            self._next_at = max(self._next_at, now - TICK_S) + len(piece) / self._bytes_per_s
            self._inner.write(piece)
            self._watch_level()
        if self._queue:
            self._timer = self._loop.call_at(max(self._next_at, now + TICK_S / 2), self._pump)
        elif self._closing:
            self._inner.close()
        elif self._eof:
            self._inner.write_eof()

    def _forget(self) -> None:
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ProtocolBetween(asyncio.BufferedProtocol):
    """Passes everything on to the stream; subclasses change some of it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._stream.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._stream.buffer_updated(nbytes)

    def eof_received(self) -> bool | None:
        return self._stream.eof_received()

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream.connection_lost(exc)


class Deaf(ProtocolBetween):
    """Reads and throws away; the connection ends when the peer ends it."""

    def buffer_updated(self, nbytes: int) -> None:
        pass

    def eof_received(self) -> bool:
        return False


class ResetAfter(ProtocolBetween):
    """Resets the connection with the byte number `count` that comes in; what came before is passed on."""

    def __init__(self, stream: Stream, count: int) -> None:
        super().__init__(stream)
        self._missing = count

    def buffer_updated(self, nbytes: int) -> None:
        self._missing -= nbytes
        if self._missing > 0:
            self._stream.buffer_updated(nbytes)
        else:
            self._stream.reset()
