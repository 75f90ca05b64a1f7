"""One timer for everything that waits: coarse slots of time, each with those whose turn comes in it."""

from __future__ import annotations

import asyncio
import math
from typing import Final, Protocol

TICK_S: Final = 1 / 64
"""How late a wait may end. Waits are of a second and more, but for tests."""


class Waiting(Protocol):
    """What waits in a wheel; `slot` is the wheel's."""

    slot: int

    def time_is_up(self) -> None:
        """Its turn has come; it is in the wheel no more, and may go back in."""


class TimerWheel:
    """`now` is the loop's time as of the last `turn`.

    The trick: a TFTP transfer goes into the wheel when it begins and is left where it is while blocks go to and fro;
    when its slot's turn comes it looks at its own deadline, which as a rule has moved on, and goes back in. Thousands
    of transfers need one timer of the loop, and a block needs none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, dict[Waiting, None]] = {}  # ordered, so that a run can be repeated
        self._due: dict[Waiting, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0
        self.now = loop.time()

    def turn(self) -> None:
        """Look at the clock, once for all that is done in this turn of the loop."""
        self.now = self._loop.time()

    def add(self, waiting: Waiting, deadline: float) -> None:
        """Its `time_is_up` is called at the loop's time `deadline` or at most a tick later."""
        waiting.slot = slot = math.ceil(deadline / TICK_S)
        members = self._slots.get(slot)
        if members is None:
            self._slots[slot] = {waiting: None}
            if self._timer is None or slot < self._next:
                self._set_timer(slot)
        else:
            members[waiting] = None

    def remove(self, waiting: Waiting) -> None:
        """Nothing happens if it is not there."""
        self._due.pop(waiting, None)
        members = self._slots.get(waiting.slot)
        if members is not None:
            members.pop(waiting, None)

    def close(self) -> None:
        self._slots.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot
        self._timer = self._loop.call_at(slot * TICK_S, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self.turn()
        for slot in sorted(slot for slot in self._slots if slot <= self._next or slot * TICK_S <= self.now):
            self._due = self._slots.pop(slot, {})  # gone when one before it closes the wheel
            for waiting in tuple(self._due):
                if waiting in self._due:  # not taken out by one before it
                    self._call(waiting)
            self._due = {}
        if self._slots and self._timer is None:
            self._set_timer(min(self._slots))

    def _call(self, waiting: Waiting) -> None:
        try:
            waiting.time_is_up()
        except Exception as trouble:  # told as the loop tells it; whoever waits behind it must not wait for ever
            self._loop.call_exception_handler({"message": f"{waiting!r} failed", "exception": trouble})
