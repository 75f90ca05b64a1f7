"""Many sockets behind one descriptor of the event loop.

The loop is given one epoll set instead of each socket: it wakes this poller once, which then serves all sockets that
are ready in a plain Python loop. A handle of the loop's own for each socket and direction (made, started, stopped,
closed) costs uvloop 10 to 20 microseconds for a connection that lives for four packets.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

READ: Final = 1
"""EPOLLIN; what is not WRITE in an event (hang-up, error) is to be found out by reading."""
WRITE: Final = 4
"""EPOLLOUT."""
EVENTS_PER_TURN: Final = 256
"""Sockets served before the loop's other work gets its turn."""
HAS_EPOLL: Final = hasattr(select, "epoll")

Ready = Callable[[int], None]
"""Called with the events that are there, READ and WRITE."""


class ConnectionPoller:
    """Watches sockets for a loop. Whoever makes one holds it until `release`; it closes when all `members` have left.

    A member is one whose socket is open, whether it is watched or not: it may want to be watched again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.members = 0
        self._loop = loop
        self._ready: dict[int, Ready] = {}
        self._later: list[Callable[[], None]] = []
        self._in_turn = False
        self._released = False
        self._epoll = select.epoll() if HAS_EPOLL else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._turn)

    def watch(self, descriptor: int, events: int, ready: Ready) -> None:
        """Level-triggered, until `forget`."""
        self._ready[descriptor] = ready
        if self._epoll is not None:
            self._epoll.register(descriptor, events)
        else:
            self._watch_by_loop(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Other events from now on, at least one."""
        if self._epoll is not None:
            self._epoll.modify(descriptor, events)
        else:
            self._watch_by_loop(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """It is to be silent. Nothing happens if it is not watched."""
        if self._ready.pop(descriptor, None) is None:
            return
        if self._epoll is None:
            self._watch_by_loop(descriptor, 0)
        else:
            self._epoll.unregister(descriptor)

    def leave(self, descriptor: int) -> None:
        """A member's socket is closed next, which takes it out of the epoll set without another system call."""
        if self._ready.pop(descriptor, None) is not None and self._epoll is None:
            self._watch_by_loop(descriptor, 0)
        self.members -= 1
        if self._released and not self.members:
            self._close()

    def soon(self, call: Callable[[], None]) -> None:
        """After what is running now, as `call_soon`: at the end of this turn, without the price of a loop's handle."""
        if self._in_turn:
            self._later.append(call)
        else:
            self._loop.call_soon(call)

    def release(self) -> None:
        """Nobody new will come."""
        self._released = True
        if not self.members:
            self._close()

    def _close(self) -> None:
        if self._epoll is not None and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _turn(self) -> None:
        if self._epoll is None or self._epoll.closed:
            return
        self._in_turn = True
        try:
            for descriptor, events in self._epoll.poll(0, EVENTS_PER_TURN):
                ready = self._ready.get(descriptor)
                if ready is not None:  # an earlier one of this turn may have closed it
                    try:
                        ready(events)
                    except Exception as trouble:
                        self._tell(ready, trouble)
            while self._later:
                calls, self._later = self._later, []
                for call in calls:
                    try:
                        call()
                    except Exception as trouble:
                        self._tell(call, trouble)
        finally:
            self._in_turn = False

    def _tell(self, call: object, trouble: Exception) -> None:
        """As the loop does it; nobody else is kept from being served."""
        self._loop.call_exception_handler({"message": f"{call!r} failed", "exception": trouble})

    def _watch_by_loop(self, descriptor: int, events: int) -> None:
        """Where there is no epoll (macOS): the loop's own way."""
        ready = self._ready.get(descriptor)
        if ready is not None and events & READ:
            self._loop.add_reader(descriptor, ready, READ)
        else:
            self._loop.remove_reader(descriptor)
        if ready is not None and events & WRITE:
            self._loop.add_writer(descriptor, ready, WRITE)
        else:
            self._loop.remove_writer(descriptor)
