"""What everybody on one event loop shares who has a socket for a moment: one reader of the loop, and one timer."""

from __future__ import annotations

import asyncio
from typing import Final, Self

from cucm.net.readers import Readers
from cucm.net.timer_wheel import TimerWheel


class SharedTurns:
    """`readers` and `wheel` of the running loop, there from the first who joins until the last has left.

    The trick: a reader and a timer of the loop's own for each small transfer cost more than the transfer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.wheel = TimerWheel(loop)
        self.readers = Readers(loop, self.wheel.turn)
        self._loop = loop
        self._members = 0

    @classmethod
    def join(cls) -> Self:
        """Every one who joins leaves."""
        loop = asyncio.get_running_loop()
        shared = _OF_LOOP.get(loop)
        if not isinstance(shared, cls):
            shared = _OF_LOOP[loop] = cls(loop)
        shared.wheel.turn()
        shared._members += 1
        return shared

    def leave(self) -> None:
        self._members -= 1
        if not self._members:
            del _OF_LOOP[self._loop]
            self.readers.close()
            self.wheel.close()


_OF_LOOP: Final[dict[asyncio.AbstractEventLoop, SharedTurns]] = {}
