"""How far a fleet is: numbers that the engine writes and a display reads."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from lab.fleet.batch import PhoneFinding
from lab.fleet.result import of_any_phone

WINDOW_S: Final = 5.0
"""The rate is that of the last so many seconds."""


def nobody_watches() -> None:
    pass


class Progress:
    """`act` is the story's act, `step` what is done now; `done` of `total` phones have done it. `on_begin` is called
    when another step has begun: who looks now and then would never see a short one.
    """

    def __init__(self) -> None:
        self.on_begin: Callable[[], None] = nobody_watches
        self.act = ""
        self.step = ""
        self.total = 0
        self.done = 0
        self.booted = 0
        self.states: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        """Why phones that are done refused a file or are not registered."""
        self.began_s = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque()

    def begin(self, act: str, step: str, total: int = 0) -> None:
        self.act, self.step, self.total, self.done = act, step, total, 0
        self.states.clear()
        self.reasons.clear()
        self._marks.clear()
        self.began_s = time.monotonic()
        self.on_begin()

    def phone_done(self, _name: str, finding: PhoneFinding) -> None:
        self.add(1, Counter({finding.state: 1}), Counter(finding.reasons[:1] or _other(finding)))

    def add(self, done: int, states: Counter[str], reasons: Counter[str]) -> None:
        """What came to an end since the last call."""
        self.done += done
        self.states += states
        self.reasons += reasons
        now_s = time.monotonic()
        self._forget(now_s)
        self._marks.append((now_s, self.done))

    @property
    def per_second(self) -> float:
        """Of the last few seconds, this moment included: phones that wait for an answer make it less."""
        now_s = time.monotonic()
        self._forget(now_s)
        first_s, first = self._marks[0] if self._marks else (self.began_s, 0)
        if now_s - first_s < 0.5:  # too short to tell: since the step began
            first_s, first = self.began_s, 0
        return max(self.done - first, 0) / max(now_s - first_s, 1e-3)

    def _forget(self, now_s: float) -> None:
        """All marks before the window but the last one."""
        while len(self._marks) > 1 and self._marks[1][0] < now_s - WINDOW_S:
            self._marks.popleft()

    @property
    def remaining_s(self) -> float | None:
        """None while nothing can be said."""
        rate = self.per_second
        return (self.total - self.done) / rate if rate and self.total else None


def _other(finding: PhoneFinding) -> tuple[str, ...]:
    return (of_any_phone(finding.detail),) if finding.detail and finding.state != "registered" else ()
