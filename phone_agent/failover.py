"""A phone that has lost its CallManager: the others of its group at once, then the whole group again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from cucm.records import dataclass

FIRST_RETRY_S: Final = 10.0
LONGEST_RETRY_S: Final = 120.0
"""How long a phone waits between its attempts is UNKNOWN: these two are ours."""
SHORTEST_RETRY_S: Final = 0.01
"""Ours: whatever the delays say, nobody is asked without a pause."""

RegisterAgain = Callable[[str | None], Awaitable[bool]]
"""Tries the CallManagers of the group, all or `without` one; whether the phone is registered then."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FailoverDelays:
    """Seconds before the group is tried again: `first_s`, then twice as long each time, at most `longest_s`."""

    first_s: float = FIRST_RETRY_S
    longest_s: float = LONGEST_RETRY_S

    def each(self) -> Iterator[float]:
        delay = self.first_s
        while True:
            delay = max(min(delay, self.longest_s), SHORTEST_RETRY_S)
            yield delay
            delay *= 2


class Failover:
    """Works in the background from a loss to the next registration, or until it is ended.

    "At once" is granted once in `first_s`: two CallManagers that take a phone and drop it do not keep it running in
    circles.
    """

    def __init__(self, register_again: RegisterAgain, delays: FailoverDelays) -> None:
        self._register_again = register_again
        self._delays = delays
        self._task: asyncio.Task[None] | None = None
        self._at_once_again = 0.0
        self._is_idle = True
        self._settled: asyncio.Event | None = None
        """Only while somebody waits in `settle`: an Event of every registered phone would be 0.7 KiB."""

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self, lost: str) -> None:
        """`lost` is the CallManager that has gone."""
        now = asyncio.get_running_loop().time()
        at_once = now >= self._at_once_again
        if at_once:
            self._at_once_again = now + self._delays.first_s
            self._is_idle = False
        self._task = asyncio.create_task(self._recover(lost, at_once=at_once))

    async def settle(self) -> None:
        """Returns when no attempt is under way: the phone is registered, or waits for the next one."""
        if not self._is_idle:
            self._settled = self._settled or asyncio.Event()
            await self._settled.wait()

    async def end(self) -> None:
        """Returns when nothing is tried any more."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        self._rest()

    async def _recover(self, lost: str, *, at_once: bool) -> None:
        try:
            if at_once and await self._attempt(lost):
                return
            for delay in self._delays.each():
                await asyncio.sleep(delay)
                if await self._attempt(None):
                    return
        except Exception:  # ours: an attempt returns its failures
            _log.exception("the phone's failover broke")

    async def _attempt(self, without: str | None) -> bool:
        self._is_idle = False
        try:
            return await self._register_again(without)
        finally:
            if self._task is asyncio.current_task():  # else the phone was lost again meanwhile, and another is at work
                self._rest()

    def _rest(self) -> None:
        self._is_idle = True
        settled, self._settled = self._settled, None
        if settled is not None:
            settled.set()
