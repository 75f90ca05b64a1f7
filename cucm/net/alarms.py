"""Waiting for a moment of the lab's clock, which a story may move: one look at the clock for all who wait.

A phone that is registered waits for two moments (its registration and its lease are to be refreshed). Ten thousand that
each looked at the clock twice a second would keep a processor busy with nothing else.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from itertools import count
from typing import Final

from cucm.clock import Clock

CHECK_S: Final = 0.5
"""How often, in real seconds, the lab's clock is looked at while somebody waits; ours."""

_log = logging.getLogger(__name__)


class Alarm:
    """Calls `act` once; `cancel` it as often as you like."""

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        self.act = None


class Alarms:
    """Alarms by the moments (Unix seconds of `clock`) they are set for. For one event loop at a time."""

    def __init__(self, clock: Clock, *, check_s: float = CHECK_S) -> None:
        self._clock = clock
        self._check_s = check_s
        self._numbers = count()
        self._waiting: list[tuple[float, int, Alarm]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def at(self, moment: float, act: Callable[[], None]) -> Alarm:
        """`act` is called from the event loop, up to `check_s` after the moment; at once if that has passed."""
        alarm = Alarm(act)
        heapq.heappush(self._waiting, (moment, next(self._numbers), alarm))
        loop = asyncio.get_running_loop()
        if loop is not self._loop or self._timer is None:
            self._loop = loop
            self._look_in(0 if moment <= self._clock.now() else self._wait_s(moment))
        elif self._waiting[0][2] is alarm and moment - self._clock.now() < self._check_s:
            # the first of all: for one behind it the look at the clock would be put off, again and again
            self._timer.cancel()
            self._look_in(self._wait_s(moment))
        return alarm

    def _wait_s(self, moment: float) -> float:
        return min(max(moment - self._clock.now(), 0.0), self._check_s)

    def _look_in(self, seconds: float) -> None:
        if self._loop is not None:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.now()
        while self._waiting and (self._waiting[0][0] <= now or self._waiting[0][2].act is None):
            act = heapq.heappop(self._waiting)[2].act
            if act is not None:
                self._call(act)
        if self._waiting and self._timer is None:  # one of those who were called may have set it
            self._look_in(self._wait_s(self._waiting[0][0]))

    def _call(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:  # ours: whoever waits behind it must not wait for ever
            _log.exception("an alarm broke")
