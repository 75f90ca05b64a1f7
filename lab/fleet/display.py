"""Progress for people: one line that is written over on a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

import asyncio
import shutil
import time
from types import TracebackType
from typing import Final, Self, TextIO

from lab.fleet.progress import Progress

PLAIN_EVERY_S: Final = 5.0
LOOK_EVERY_S: Final = 0.25
SHOWN_REASONS: Final = 3


class Display:
    """Plain lines: what begins, at once, and how far it is now and then."""

    def __init__(self, progress: Progress, out: TextIO) -> None:
        self._progress = progress
        self._out = out
        self._told = ""
        self._told_s = -PLAIN_EVERY_S
        self._step_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            if self._is_due():
                self.show(progress_text(self._progress))
            await asyncio.sleep(LOOK_EVERY_S)

    def _is_due(self) -> bool:
        now_s, step_s = time.monotonic(), self._progress.began_s
        if step_s == self._step_s and now_s - self._told_s < PLAIN_EVERY_S:
            return False
        self._told_s, self._step_s = now_s, step_s
        return True

    def show(self, text: str) -> None:
        if text != self._told:
            self._told = text
            print(text, file=self._out, flush=True)


class LiveDisplay(Display):
    """The same line again and again."""

    def _is_due(self) -> bool:
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        print("\r\033[K", end="", file=self._out, flush=True)

    def show(self, text: str) -> None:
        width = shutil.get_terminal_size().columns
        print(f"\r\033[K{text[: width - 1]}", end="", file=self._out, flush=True)


def display_for(progress: Progress, out: TextIO) -> Display:
    return (LiveDisplay if out.isatty() else Display)(progress, out)


def progress_text(progress: Progress) -> str:
    """`reset-phone  420 of 1000 (42 %)  55.1/s  registered 400  refused: tvs-unreachable 20  about 11 s left`."""
    if not progress.total:
        return f"{progress.step} ..."
    parts = [
        f"{progress.step}  {progress.done} of {progress.total} ({100 * progress.done // progress.total} %)",
        f"{progress.per_second:.1f}/s",
        *(f"{state} {count}" for state, count in progress.states.most_common(3)),
    ]
    if progress.reasons:
        told = ", ".join(f"{reason[:40]} {count}" for reason, count in progress.reasons.most_common(SHOWN_REASONS))
        parts.append(f"trouble: {told}")
    if progress.remaining_s is not None and progress.done < progress.total:
        parts.append(f"about {progress.remaining_s:.0f} s left")
    return "  ".join(parts)
