"""A folder for one run that goes with it, and at the next start if the run was killed: keys are not to lie about.

As long as a run lives it holds a lock on a file in its folder, which the system lets go of when the process dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cucm.machine import machine_problem

LOCK_NAME: Final = "alive.lock"
_UNLOCKED: Final = ".alive.lock-"
"""The file appears under its name when it is locked already: nobody may take a folder for a dead one meanwhile."""
_MEND: Final = "make room there, or name another folder in the variable TMPDIR"


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new folder of mode 0700, removed at the end; before, those of this prefix and user whose runs are dead.

    Raises EnvironmentProblem when none can be made.
    """
    remove_dead_folders(prefix)
    folder, lock = _new_folder(prefix)
    try:
        yield folder
    finally:
        with suppress(OSError):  # what cannot be removed now, the next start tries again
            _remove(folder)
        os.close(lock)


def remove_dead_folders(prefix: str) -> None:
    """Of this user, in the system's place for temporary files; what cannot be removed is left."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with suppress(OSError):
                    _remove_if_dead(Path(entry.path))


def _new_folder(prefix: str) -> tuple[Path, int]:
    """With the lock that says it is in use."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        raise machine_problem(error, tempfile.gettempdir(), failed="no folder can be made", mend=_MEND) from error
    try:
        return folder, _lock_in(folder)
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        raise machine_problem(error, str(folder), failed="cannot be used", mend=_MEND) from error


def _lock_in(folder: Path) -> int:
    lock, name = tempfile.mkstemp(prefix=_UNLOCKED, dir=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(name).rename(folder / LOCK_NAME)
    except OSError:
        os.close(lock)
        Path(name).unlink()
        raise
    return lock


def _remove_if_dead(path: Path) -> None:
    """Everything is looked at and removed by open descriptors: names may be exchanged for links meanwhile."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _is_private(os.fstat(folder)):
            return
        lock = os.open(LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it lives
            _empty(folder)
        finally:
            os.close(lock)
    finally:
        os.close(folder)
    path.rmdir()


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def _remove(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _empty(folder)
    finally:
        os.close(folder)
    path.rmdir()


def _empty(folder: int) -> None:
    """All that can be removed goes, and the lock if nothing else is left: else it is still known for a dead one."""
    refused = None
    for name in os.listdir(folder):
        if name != LOCK_NAME:
            try:
                _remove_in(folder, name)
            except OSError as error:
                refused = error
    if refused is not None:
        raise refused
    os.unlink(LOCK_NAME, dir_fd=folder)


def _remove_in(folder: int, name: str) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)
