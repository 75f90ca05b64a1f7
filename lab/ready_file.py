"""Files that say that a lab runs: the one that `--ready-file` names, and the process's number in the lab's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cucm.errors import EnvironmentProblem, UsageError
from cucm.whole_files import write_private

PID_NAME: Final = "up.pid"
SCHEMA: Final = 1
MAX_FILE: Final = 64 * 1024


class ReadyFile:
    """There from `write` until `remove`, whole; what a killed lab left there is removed before.

    Raises UsageError for the path of something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run: str | None = None
        if not path.parent.is_dir():
            raise UsageError("there is no such folder", where=str(path.parent), mend="make it, or name another file")
        self._remove_stale()

    def write(self, run: str, about: Mapping[str, Any]) -> None:
        """Raises EnvironmentProblem."""
        value = {"schema": SCHEMA, "ready": True, "run": run, "pid": os.getpid(), **about}
        write_private(self._path, json.dumps(value, indent=1).encode() + b"\n")
        self._run = run

    def remove(self) -> None:
        """Nothing happens if another lab has written it since."""
        if self._run is not None and _run_in(self._path) == self._run:
            with suppress(OSError):
                self._path.unlink()

    def _remove_stale(self) -> None:
        try:
            is_ours = _run_in(self._path) is not None or not self._path.exists() or not self._path.stat().st_size
            if not is_ours:
                raise UsageError("is no ready file of a lab", where=str(self._path), mend="name another --ready-file")
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise EnvironmentProblem(f"cannot be removed: {error.strerror}", where=str(self._path)) from error


def _run_in(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_FILE))
    except (OSError, ValueError, RecursionError):
        return None
    run = value.get("run") if isinstance(value, dict) and value.get("ready") is True else None
    return run if isinstance(run, str) else None


def write_pid(directory: Path) -> None:
    """Whoever holds the folder's lock is the one. Raises EnvironmentProblem."""
    write_private(directory / PID_NAME, f"{os.getpid()}\n".encode())


def remove_pid(directory: Path) -> None:
    with suppress(OSError):
        (directory / PID_NAME).unlink()
