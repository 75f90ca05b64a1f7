"""Events written as lines, a turn of the event loop at a time, or a few of them while much happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from cucm.events import EventRecord

RenderAll = Callable[[list[EventRecord]], list[str]]
"""Makes lines, or texts of several lines, of records in order; neither ends with a line break."""

BUSY: Final = 6
"""Events of a turn after which those of the next are awaited. A packet of one client seldom brings so many: who tries
a server by hand reads each line at once."""
ENOUGH: Final = 48
"""Events that are written whatever comes: after `ENOUGH // BUSY` turns at the latest."""


class TraceWriter:
    """For an event log: renders and writes what has happened at the end of a turn of the loop, or of a few busy ones.

    The trick: a busy server tells of a hundred events in a turn. Rendered one after the other they find the renderer
    in the CPU's cache, which the network's code has not just emptied, and they cost one system call in place of a
    hundred. Where turns bring some events, but not so many, those of the next turns are awaited until there are
    enough or one brings few. Outside of a running loop every record is written as it comes.
    """

    def __init__(self, render: RenderAll, write: Callable[[list[str]], object]) -> None:
        """`render` is given records in order, `write` the lines or texts that it makes of them, at least one."""
        self._render = render
        self._write = write
        self._waiting: list[EventRecord] = []

    def add(self, record: EventRecord) -> None:
        """To be subscribed: a method costs half of what calling an object of ours does."""
        self._waiting.append(record)
        if len(self._waiting) > 1:
            return  # the end of a turn is awaited already
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            loop.call_soon(self._turn_ends, loop, 0)

    def _turn_ends(self, loop: asyncio.AbstractEventLoop, known: int) -> None:
        waiting = len(self._waiting)
        if known + BUSY <= waiting < ENOUGH:
            loop.call_soon(self._turn_ends, loop, waiting)
        else:
            self.flush()

    def flush(self) -> None:
        """Write what waits, now."""
        waiting, self._waiting = self._waiting, []
        lines = self._render(waiting)
        if lines:
            self._write(lines)


def each(lines: Callable[[EventRecord], Sequence[str]]) -> RenderAll:
    """For a renderer of one record."""
    return lambda records: [line for record in records for line in lines(record)]
