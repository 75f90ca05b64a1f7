"""Where a running lab is spoken to: a Unix socket in its folder, however long the path to that is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "control.sock"
MAX_SOCKET_PATH: Final = 107
"""Bytes of a Unix socket's path: `sun_path` has 108 with the closing NUL (unix(7))."""


@contextmanager
def socket_address(directory: Path) -> Iterator[str]:
    """The path to bind or connect to while this lasts. Raises OSError when a long path leads to no folder."""
    path = directory.absolute() / SOCKET_NAME
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        yield str(path)
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
