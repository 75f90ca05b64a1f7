"""Progress for people: one line that is written over on a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TextIO

from cucm.render.text import printable
from lab.fleet.progress import Progress, nobody_watches

PLAIN_EVERY_S: Final = 5.0
LOOK_EVERY_S: Final = 0.25
SHOWN_REASONS: Final = 3
USUAL_COLUMNS: Final = 80
NARROWEST: Final = 20
"""Columns; nothing can be read in fewer."""
CLEARED: Final = "\r\033[K"
"""The line that the cursor is in, empty."""


class Display:
    """Plain lines: what begins, at once, however short it is, and how far it is now and then."""

    def __init__(self, progress: Progress, out: TextIO) -> None:
        self._progress = progress
        self._out = out
        self._told_s = -PLAIN_EVERY_S

    def __enter__(self) -> Self:
        self._progress.on_begin = self.tell
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.on_begin = nobody_watches

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._is_due():
                self.tell()

    def _is_due(self) -> bool:
        return time.monotonic() - self._told_s >= PLAIN_EVERY_S

    def tell(self) -> None:
        self._told_s = time.monotonic()
        self._write(f"{printable(progress_text(self._progress))}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # nobody reads it any more: the fleet goes on
            self._out.write(text)
            self._out.flush()


class LiveDisplay(Display):
    """The same line again and again."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._write(CLEARED)

    def _is_due(self) -> bool:
        return True

    def tell(self) -> None:
        self._write(f"{CLEARED}{printable(progress_text(self._progress, columns(self._out) - 1))}")


def columns(out: TextIO) -> int:
    """Of the terminal behind `out`, which may be another than that of stdout; the variable COLUMNS outdoes it."""
    try:
        found = int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(out.fileno()).columns
    except (ValueError, OSError):
        found = 0
    return max(found, NARROWEST) if found > 0 else USUAL_COLUMNS


def display_for(progress: Progress, out: TextIO) -> Display:
    return (LiveDisplay if out.isatty() else Display)(progress, out)


def progress_text(progress: Progress, width: int | None = None) -> str:
    """`reset-phone  420 of 1000 (42 %)  55.1/s  registered 400  trouble: tvs-unreachable 20  about 11 s left`.

    In no more columns than `width`: what matters least is left out, the trouble and the states before the rest.
    """
    if not progress.total:
        return f"{progress.step} ..."[:width]
    step = f"{progress.step}  {progress.done} of {progress.total} ({100 * progress.done // progress.total} %)"
    rate = f"{progress.per_second:.1f}/s"
    states = [f"{state} {count}" for state, count in progress.states.most_common(3)]
    trouble: list[str] = []
    left: list[str] = []
    if progress.reasons:
        told = ", ".join(f"{reason[:40]} {count}" for reason, count in progress.reasons.most_common(SHOWN_REASONS))
        trouble.append(f"trouble: {told}")
    if progress.remaining_s is not None and progress.done < progress.total:
        left.append(f"about {progress.remaining_s:.0f} s left")
    for more in ([*states, *trouble], states, states[:1], []):
        text = "  ".join([step, rate, *more, *left])
        if width is None or len(text) <= width:
            return text
    return f"{step}  {rate}"[:width]
