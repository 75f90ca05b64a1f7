"""Faults of HTTP answers: how much of a file is announced and sent, how fast, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Self

from cucm.faults import Action
from cucm.faults.catalogue.http import CutBody, Slow, Stall, WrongLength
from cucm.net.stream import Stream
from cucm.records import dataclass

SLOW_STEPS_PER_S: Final = 10
"""A slow file goes out in pieces, this many a second."""


class BrokenOff(ConnectionError):
    """The answer ends here because a fault has it so."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a file of `size` bytes is answered: `announced` is the length in the head, `sent` how much of it follows,
    in pieces of `piece` bytes with `pause_s` between them; where that is not all, the connection is closed after
    `silence_s` seconds.
    """

    size: int
    announced: int
    sent: int
    piece: int
    pause_s: float = 0.0
    silence_s: float = 0.0

    @classmethod
    def of(cls, action: Action | None, size: int, piece: int) -> Self:
        """As `action` has it; `piece` is the size in which files go out otherwise."""
        match action:
            case WrongLength(delta=delta):
                return cls(size, size + delta, size, piece)
            case CutBody(bytes=sent):
                return cls(size, size, min(sent, size), piece)
            case Stall(bytes=sent, seconds=seconds):
                return cls(size, size, min(sent, size), piece, silence_s=seconds)
            case Slow(bytes_per_s=speed):
                step = max(1, min(speed // SLOW_STEPS_PER_S, piece))
                return cls(size, size, size, step, pause_s=step / speed)
        return cls(size, size, size, piece)

    async def break_off(self, stream: Stream) -> None:
        """What comes after the last byte sent. Raises BrokenOff; returns where the whole file is sent in its time."""
        if self.silence_s:
            await _be_silent(stream, self.silence_s)
        if self.silence_s or self.sent < self.size:
            raise BrokenOff(f"a fault ends it after {self.sent} of {self.size} bytes")


async def _be_silent(stream: Stream, seconds: float) -> None:
    """Until the time is over or the client goes; what it says meanwhile is read and forgotten."""
    stream.idle_timeout_s = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while await stream.read():
                pass
