"""One timer for all that wait equally long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")


class Countdown(Generic[Waiting]):
    """Calls `expired(item)` when `seconds` have passed since `start(item)` without a `stop(item)`.

    All wait equally long, so that they come due in the order in which they began: a dictionary is the queue, and the
    loop has one timer, for the first. A timer for each would be a heap operation and two objects per connection.
    """

    def __init__(self, seconds: float, expired: Callable[[Waiting], None]) -> None:
        self.seconds = seconds
        self._expired = expired
        self._due: dict[Waiting, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, item: Waiting) -> None:
        """Begin, or begin anew."""
        due = self._due
        if item in due:
            del due[item]  # to stand at the end again
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        due[item] = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self.seconds, self._check)

    def stop(self, item: Waiting) -> None:
        """It waits no more, if it did."""
        self._due.pop(item, None)

    def close(self) -> None:
        """Nobody waits any more."""
        self._due.clear()
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._due:
            item, due = next(iter(self._due.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._check)
                return
            del self._due[item]
            try:
                self._expired(item)
            except Exception as trouble:  # told as the loop tells it; whoever waits behind it must not wait for ever
                loop.call_exception_handler({"message": f"{self._expired!r} failed", "exception": trouble})
