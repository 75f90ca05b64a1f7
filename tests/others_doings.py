"""What other processes do, waited for by what the system tells of them."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

PATIENCE_S: Final = 60.0
AGAIN_S: Final = 0.02


def until(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """What `process` brings about, which nothing tells of; no longer than it lives."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends
        assert process.returncode is None, f"it has ended with {process.returncode}"
        with suppress(subprocess.TimeoutExpired):
            process.wait(AGAIN_S)


def has_ended(pidfd: int) -> bool:
    """Waits for it, and closes the descriptor."""
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    try:
        return bool(waiting.poll(1000 * PATIENCE_S))
    finally:
        os.close(pidfd)
