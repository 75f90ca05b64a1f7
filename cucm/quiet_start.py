"""Ctrl-C while a program still imports what it needs, or has done its work: it ends with 130 and without a traceback.

Nothing is begun then that would have to be undone. Imported before everything else, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

EXIT_INTERRUPTED = 130


def begin() -> None:
    """From now on Ctrl-C ends the process at once, unless the caller ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt, as always."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(EXIT_INTERRUPTED)
