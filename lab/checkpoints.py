"""Kept states of a lab's folder, and the way back to one: `checkpoints/NAME`, each there whole or not at all.

A checkpoint is a copy of all in the folder that the lab's parts write, databases by SQLite's backup. Going back takes
two steps, so that a kill at any instant leaves the old or the new state: the copy is put beside what is in force; then
a journal says that it counts from now on, and everything is moved into place by renames. `finish_restore` completes
what a kill interrupted. The lab's process is what may die; after a power cut the file system decides.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from cucm.errors import EnvironmentProblem, LimitExceeded, UsageError
from cucm.machine import machine_problem, require_descriptors
from cucm.records import dataclass
from cucm.whole_files import is_unfinished, remove_unfinished, write_private

STATE: Final = ("clusters", "phones", "sftp", "dhcp.json", "served.log", "clock.json", "disturbed.json")
"""All in a lab's folder that changes while it runs and is its state. A new part of the lab with a file belongs here."""
FOLDER: Final = "checkpoints"
START: Final = "start"
"""The one that the lab makes itself when it is ready, and that `reset` goes back to."""
MAX_CHECKPOINTS: Final = 64
"""Of one lab, without `start`; ours."""
MAX_DESCRIPTION: Final = 16 * 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_DESCRIPTION: Final = "checkpoint.json"
_CONTENT: Final = "state"
_UNFINISHED: Final = ".new-"
_JOURNAL: Final = "restore.json"
_STAGED: Final = ".restoring"
_REPLACED: Final = ".replaced"
_NOT_COPIED: Final = "the lab's state cannot be copied"
_MEND: Final = "make room and let the lab write there"
_DATABASE_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`made_at` in Unix seconds of the machine's clock."""

    name: str
    made_at: float


def require_name(name: str) -> str:
    """The name, if a checkpoint may have it. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"no name for a checkpoint: {name[:80]!r}", mend="1 to 64 letters, digits, `.`, `_`, `-`; no `.` in front"
        )
    return name


class Checkpoints:
    """Those of one lab's folder; whoever holds the folder's lock may use them. Not for two threads at once.

    Methods raise EnvironmentProblem when the disk is full or may not be written; then nothing has changed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._folder = directory / FOLDER

    def __iter__(self) -> Iterator[Checkpoint]:
        """Oldest first; `start` too. What else somebody put there is none."""
        found = []
        for path in self._folder.glob("*"):
            if _NAME.fullmatch(path.name) and (path / _DESCRIPTION).is_file():
                with suppress(UsageError):  # a damaged one is told of when it is asked for
                    found.append(Checkpoint(path.name, float(self._read(path.name)["made_at"])))
        return iter(sorted(found, key=lambda one: (one.made_at, one.name)))

    def make(self, name: str, databases: Sequence[Path], standing: Mapping[str, Any]) -> None:
        """Copy the folder's state, as it is now. `databases` are copied last, in this order.

        `standing` is what no file tells. Raises UsageError for a name that is wrong or taken, LimitExceeded.
        """
        self._require_free(require_name(name))
        with _telling(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=self._folder, prefix=_UNFINISHED))
            try:
                self._fill(unfinished, databases, standing)
                if name == START:
                    shutil.rmtree(self._folder / name, ignore_errors=True)
                unfinished.rename(self._folder / name)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise

    def standing(self, name: str) -> dict[str, Any]:
        """What no file tells. Raises UsageError if there is no such checkpoint."""
        value = self._read(name)["standing"]
        if not isinstance(value, dict):
            raise _damaged(self._folder / name, "no standing")
        return value

    def stage(self, name: str) -> None:
        """Put a copy of the checkpoint beside what is in force; the lab may go on meanwhile. Raises UsageError."""
        self._require(name)
        staged = self._directory / _STAGED
        with _telling(staged):
            shutil.rmtree(staged, ignore_errors=True)
            _copy_tree(self._folder / name / _CONTENT, staged)

    def swap(self) -> None:
        """What was staged is in force from now on; nothing of the lab may be open. All or nothing."""
        staged = sorted(path.name for path in (self._directory / _STAGED).iterdir())
        write_private(self._directory / _JOURNAL, json.dumps({"entries": staged}).encode())
        finish_restore(self._directory)

    def delete(self, name: str) -> None:
        """Raises UsageError if there is none, and for `start`."""
        self._require(name)
        if name == START:
            raise UsageError("this checkpoint is the lab's own", where=name, mend="`reset` needs it")
        with _telling(self._folder / name):
            doomed = Path(tempfile.mkdtemp(dir=self._folder, prefix=_UNFINISHED))
            (self._folder / name).rename(doomed / name)
            shutil.rmtree(doomed)

    # --- inside

    def _fill(self, folder: Path, databases: Sequence[Path], standing: Mapping[str, Any]) -> None:
        content = folder / _CONTENT
        content.mkdir(mode=0o700)
        apart = {str(database) + suffix for database in databases for suffix in _DATABASE_SUFFIXES}
        for entry in STATE:
            source = self._directory / entry
            if source.is_dir():
                _copy_tree(source, content / entry, apart)
            elif source.exists():
                shutil.copy2(source, content / entry)
        for database in databases:
            _copy_database(database, content / database.relative_to(self._directory))
        description = {"made_at": time.time(), "standing": standing}
        (folder / _DESCRIPTION).write_text(json.dumps(description))

    def _require_free(self, name: str) -> None:
        if name == START:
            return
        if (self._folder / name).exists():
            raise UsageError(
                "there is a checkpoint of this name already", where=name, mend="delete it first, or give another name"
            )
        if sum(one.name != START for one in self) >= MAX_CHECKPOINTS:
            raise LimitExceeded(f"the lab has {MAX_CHECKPOINTS} checkpoints already", mend="delete some first")

    def _require(self, name: str) -> None:
        if not (self._folder / require_name(name) / _DESCRIPTION).is_file():
            known = ", ".join(one.name for one in self) or "none"
            raise UsageError(f"no checkpoint {name!r}", mend=f"there are: {known}")

    def _read(self, name: str) -> dict[str, Any]:
        self._require(name)
        path = self._folder / name / _DESCRIPTION
        try:
            with path.open("rb") as file:
                value = json.loads(file.read(MAX_DESCRIPTION))
            if isinstance(value, dict) and isinstance(value["made_at"], int | float) and "standing" in value:
                return value
        except (OSError, ValueError, KeyError, RecursionError) as error:
            raise _damaged(self._folder / name, str(error)) from error
        raise _damaged(self._folder / name, "fields are missing")


def finish_restore(directory: Path) -> None:
    """Complete the swap that a journal speaks of, else tidy what was never in force. Raises EnvironmentProblem."""
    remove_unfinished(directory)
    with _telling(directory):
        if (directory / _JOURNAL).exists():
            _move_into_place(directory)
            (directory / _JOURNAL).unlink()
        for leftover in (_STAGED, _REPLACED):
            shutil.rmtree(directory / leftover, ignore_errors=True)
        for unfinished in (directory / FOLDER).glob(f"{_UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)


def _move_into_place(directory: Path) -> None:
    """Each step may have been done before a kill, and may be the last before the next."""
    try:
        entries = json.loads((directory / _JOURNAL).read_bytes())["entries"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(directory / _JOURNAL, str(error)) from error
    replaced = directory / _REPLACED
    replaced.mkdir(mode=0o700, exist_ok=True)
    for entry in STATE:
        staged, live = directory / _STAGED / entry, directory / entry
        if live.exists() and (staged.exists() or entry not in entries):
            _remove(replaced / entry)
            live.rename(replaced / entry)
        if staged.exists():
            staged.rename(live)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- copying ---------------------------------------------------------------------------------------------------------


def _copy_tree(source: Path, target: Path, apart: frozenset[str] | set[str] = frozenset()) -> None:
    """Folders and regular files with their modes and times, without `apart` and what is being written.

    A folder with a file `lock` (a phone's flash) is copied under that lock. Links and the like are none of ours.
    """
    target.mkdir(mode=0o700)
    with _locked(source / "lock"), os.scandir(source) as entries:
        for entry in entries:
            if entry.path in apart or is_unfinished(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                _copy_tree(Path(entry.path), target / entry.name, apart)
            elif entry.is_file(follow_symlinks=False):
                shutil.copy2(entry.path, target / entry.name)
    shutil.copystat(source, target)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    if not path.is_file():
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _copy_database(source: Path, target: Path) -> None:
    """One state of a database that others may be writing to."""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
    with closing(reading), closing(sqlite3.connect(target)) as writing:
        writing.execute("PRAGMA synchronous=OFF")  # the checkpoint does not count before it is whole
        reading.backup(writing)


@contextmanager
def _telling(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise machine_problem(error, str(where), failed=_NOT_COPIED, mend=_MEND) from error
    except sqlite3.Error as error:
        require_descriptors(1)  # SQLite does not tell why it cannot open a file
        raise EnvironmentProblem(f"{_NOT_COPIED}: {error}", where=str(where), mend=_MEND) from error


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(f"is no checkpoint of a lab: {reason}", where=str(path), mend="delete this folder or file")
