"""Many sockets behind one reader of the event loop."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

MAX_EVENTS: Final = 256
"""Sockets taken from the kernel at once."""
ROUNDS_PER_TURN: Final = 4
"""How often a turn of the loop looks again for what has come meanwhile, before everything else gets its turn."""


def _nothing() -> None:
    pass


class Readers:
    """Calls back for sockets that can be read, until `close`; `before` is called before the first of those that are
    called together, `after` after the last.

    The trick: the sockets are in an epoll of our own, and the loop watches only that one. Putting a socket there and
    taking it away costs one system call each where `add_reader` costs the loop three to five, and a callback costs a
    look into a dictionary and not a handle of the loop: a fifth of what a small TFTP transfer costs in all. The epoll
    is there only while sockets are. Where the system has none, the loop watches each socket itself.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        before: Callable[[], None] = _nothing,
        after: Callable[[], None] = _nothing,
    ) -> None:
        self._loop = loop
        self._before = before
        self._after = after
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._epoll: select.epoll | None = None
        self._has_epoll = hasattr(select, "epoll")

    def add(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Call back whenever it can be read (or has an error to tell); what that returns is ignored. Raises OSError."""
        if not self._has_epoll:
            self._loop.add_reader(descriptor, partial(self._call, descriptor))
        else:
            epoll = self._open()
            try:
                epoll.register(descriptor, select.EPOLLIN)
            except BaseException:
                if not self._callbacks:
                    self._shut(epoll)
                raise
        self._callbacks[descriptor] = callback

    def redirect(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Another callback for one that was added; no system call."""
        self._callbacks[descriptor] = callback

    def remove(self, descriptor: int) -> None:
        """Before it is closed. Nothing happens if it is not there."""
        if self._callbacks.pop(descriptor, None) is None:
            return
        if self._epoll is None:
            self._loop.remove_reader(descriptor)
            return
        self._epoll.unregister(descriptor)
        if not self._callbacks:
            self._shut(self._epoll)

    def close(self) -> None:
        """Forget all of them."""
        for descriptor in tuple(self._callbacks):
            self.remove(descriptor)

    def _open(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._turn)
        return self._epoll

    def _shut(self, epoll: select.epoll) -> None:
        self._loop.remove_reader(epoll.fileno())
        epoll.close()
        self._epoll = None

    def _turn(self) -> None:
        for _ in range(ROUNDS_PER_TURN):
            epoll = self._epoll
            if epoll is None or not (ready := epoll.poll(0, MAX_EVENTS)):
                break
            self._call_all(ready)

    def _call_all(self, ready: Iterable[tuple[int, int]]) -> None:
        self._before()
        callbacks = self._callbacks
        for descriptor, _ in ready:
            callback = callbacks.get(descriptor)
            if callback is not None:  # not taken away by one before it
                try:
                    callback()
                except Exception as trouble:  # told as the loop tells it; the others are served all the same
                    what = {"message": f"{callback!r} failed", "exception": trouble}
                    self._loop.call_exception_handler(what)
        self._after()

    def _call(self, descriptor: int) -> None:
        self._call_all(((descriptor, 0),))
