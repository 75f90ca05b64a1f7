"""The transport of a connection that was let in: a non-blocking socket in a `ConnectionPoller`, nothing more.

It does what asyncio's and uvloop's transports do for a `BufferedProtocol`. Theirs are made by a task, with a future
and handles of the loop for each connection (`connect_accepted_socket`), which costs more than TLS 1.2's symmetric part.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final

from cucm.net.connection_poller import READ, WRITE, ConnectionPoller

DEFAULT_HIGH_WATER: Final = 64 * 1024

Data = bytes | bytearray | memoryview


_NOBODY: Final = asyncio.BufferedProtocol()
"""Whom a transport that has ended tells of nothing more."""


class SocketTransport(asyncio.Transport):
    """Reads for its protocol from `start` on, always into the one buffer that the protocol has; `peer` is what
    `accept` said.
    """

    __slots__ = (
        "_buffer",
        "_closing",
        "_descriptor",
        "_eof",
        "_events",
        "_high",
        "_lost",
        "_paused_writer",
        "_peer",
        "_pending",
        "_poller",
        "_protocol",
        "_reads",
        "_socket",
    )

    def __init__(
        self, sock: socket.SocketType, peer: Any, poller: ConnectionPoller, protocol: asyncio.BufferedProtocol
    ) -> None:
        self._socket = sock
        self._descriptor = sock.fileno()
        self._peer = peer
        self._poller = poller
        self._protocol = protocol
        self._buffer = protocol.get_buffer(-1)
        self._pending: bytearray | None = None
        self._events = 0
        self._high = DEFAULT_HIGH_WATER
        self._closing = self._lost = self._eof = self._paused_writer = False
        self._reads = True
        poller.members += 1

    def start(self) -> None:
        """Tell the protocol of its connection, then read for it, unless it has said already that it wants nothing."""
        self._protocol.connection_made(self)
        if self._reads and not self._closing:
            self._watch(self._events | READ)

    # -- asyncio.Transport -------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "socket":
                return self._socket
            case "peername":
                return self._peer
            case "sockname" if not self._lost:
                return self._socket.getsockname()
            case _:
                return default

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol  # type: ignore[assignment]
        self._buffer = self._protocol.get_buffer(-1)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def pause_reading(self) -> None:
        self._reads = False
        if not self._closing:
            self._watch(self._events & ~READ)

    def resume_reading(self) -> None:
        self._reads = True
        if not self._closing:
            self._watch(self._events | READ)

    def is_reading(self) -> bool:
        return bool(self._events & READ)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002
        """`low` is a quarter of `high`, as in asyncio."""
        self._high = DEFAULT_HIGH_WATER if high is None else high
        if self._pending or self._paused_writer:
            self._watch_level()

    def get_write_buffer_size(self) -> int:
        return len(self._pending) if self._pending else 0

    def write(self, data: Data) -> None:
        if self._lost or (self._closing and self._pending is None):
            return
        if self._pending:
            self._pending += data
            self._watch_level()
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._break(error)
            return
        if sent < len(data):
            self._pending = bytearray(memoryview(data)[sent:])
            self._watch(self._events | WRITE)
            self._watch_level()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._eof or self._lost:
            return
        self._eof = True
        if not self._pending:
            self._end_half()

    def close(self) -> None:
        """Send what is pending, then end."""
        if self._closing:
            return
        self._closing = True
        if self._pending:
            self._watch(self._events & ~READ)
        else:
            self._poller.soon(self._lose)

    def abort(self) -> None:
        self._break(None)

    # -- inside ------------------------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if events & ~WRITE and self._events & READ and not self._closing:
            try:
                count = self._socket.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._break(error)
            else:
                if count:
                    self._protocol.buffer_updated(count)
                else:
                    self._end_of_input()
        if events & ~READ and self._pending:
            self._send_pending(self._pending)

    def _end_of_input(self) -> None:
        self._watch(self._events & ~READ)
        if not self._protocol.eof_received():
            self.close()

    def _send_pending(self, pending: bytearray) -> None:
        try:
            sent = self._socket.send(pending)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._break(error)
            return
        del pending[:sent]
        if not pending:
            self._pending = None
            self._watch(self._events & ~WRITE)
            if self._closing:
                self._lose()
                return
            if self._eof:
                self._end_half()
        self._watch_level()

    def _watch_level(self) -> None:
        size = self.get_write_buffer_size()
        if size > self._high and not self._paused_writer:
            self._paused_writer = True
            self._protocol.pause_writing()
        elif self._paused_writer and size <= self._high // 4:
            self._paused_writer = False
            self._protocol.resume_writing()

    def _end_half(self) -> None:
        with contextlib.suppress(OSError):  # the peer is gone already, which reading will tell
            self._socket.shutdown(socket.SHUT_WR)

    def _watch(self, events: int) -> None:
        before, self._events = self._events, events
        if events == before:
            return
        if not before:
            self._poller.watch(self._descriptor, events, self._ready)
        elif events:
            self._poller.change(self._descriptor, events)
        else:  # a hang-up is told whatever is asked for: only what is not watched is silent
            self._poller.forget(self._descriptor)

    def _break(self, error: OSError | None) -> None:
        """Drop what is pending and end; the protocol is told soon, not now: it may be in the middle of something."""
        if self._lost:
            return
        self._pending = None
        self._closing = self._lost = True
        self._poller.soon(lambda: self._end(error))

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._end(None)

    def _end(self, error: OSError | None) -> None:
        self._events = 0
        self._poller.leave(self._descriptor)
        protocol = self._protocol
        # it has this transport, too: a ring of the two, with the TLS session, would wait for the garbage collector
        self._protocol = _NOBODY
        try:
            protocol.connection_lost(error)
        finally:
            self._socket.close()
