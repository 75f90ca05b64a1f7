"""Time as the lab knows it: wall-clock seconds that tests and stories can move.

Timers on sockets stay with the event loop; a `Clock` answers what date it is (validity of certificates, TTL of
TVS answers, timestamps of files and log lines).
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Unix time in seconds."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()


class MovableClock:
    """A clock that runs on from any moment; `frozen` stops it, `move` jumps (seconds, either way)."""

    def __init__(self, start: float | None = None, *, frozen: bool = False) -> None:
        self._frozen_at = (start if start is not None else time.time()) if frozen else None
        self._offset_s = 0.0 if start is None else start - time.time()

    def now(self) -> float:
        return self._frozen_at if self._frozen_at is not None else time.time() + self._offset_s

    def move(self, seconds: float) -> None:
        if self._frozen_at is not None:
            self._frozen_at += seconds
        else:
            self._offset_s += seconds

    def jump(self, seconds: float) -> None:
        """As `move`, for a while: a clock that is kept somewhere keeps the date without it."""
        self.move(seconds)
