"""Where served bytes come from: a name as a phone sends it, and the bytes it gets.

Names come from the wire and are never joined to a path: a store looks them up in an index of what it has.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from cucm.errors import LabError, UsageError
from cucm.machine import TOO_MANY_OPEN, machine_problem

MAX_NAME_LENGTH: Final = 255
MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Firmware images of 8800 phones reach some 100 MB; anything above this is a mistake. All of it fits the cache."""
MAX_INDEXED_FILES: Final = 100_000
MAX_CACHED_BYTES: Final = MAX_FILE_BYTES
SETTLED_NS: Final = 100_000_000
"""Time stamps tick coarsely: what changed this recently may change again under the same stamp, so it is not kept."""

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int, int, int]


class NotServedReason(StrEnum):
    NOT_FOUND = "not-found"
    BUSY = "busy"


class NotServed(LabError):
    """A store has no bytes for a name: it does not exist (404, TFTP ERROR 1) or cannot be had now (503)."""

    def __init__(self, what: str, *, reason: NotServedReason = NotServedReason.NOT_FOUND) -> None:
        super().__init__(what)
        self.reason = reason


class FileStore(Protocol):
    def read(self, name: str) -> bytes:
        """The whole file `name`. The same unchanged file should be the same `bytes` object, so that transfers share it.

        Called on the event loop: must answer from memory or a local disk. Raises `NotServed`.
        """
        ...


def look_up(store: FileStore, name: str) -> bytes:
    """Read `name` from `store` for a client. Raises `NotServed`, also for a store that fails: the server lives on."""
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise NotServed("no file has a name of this length")
    try:
        return store.read(name)
    except NotServed:
        raise
    except Exception as error:
        _log.exception("the file store failed on %r", name)
        raise NotServed(f"{name!r} cannot be had: {error}", reason=NotServedReason.BUSY) from error


def is_servable(name: str) -> bool:
    """Whether `name` can be a file's name at all: one path component, printable, of bounded length."""
    return (
        0 < len(name) <= MAX_NAME_LENGTH
        and name not in {".", ".."}
        and name.isprintable()
        and not any(separator in name for separator in "/\\\0")
    )


class MappingStore:
    """Serves from a mapping name -> bytes; the mapping stays the caller's, and may change while serving."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def read(self, name: str) -> bytes:
        data = self._files.get(name)
        if data is None:
            raise NotServed(f"no file {name!r}")
        return data


class FolderStore:
    """Serves the regular files directly in `directory`, as they are now.

    Symbolic links are served when they end on a regular file inside the folder. Contents are kept in memory while
    they are unchanged (up to `MAX_CACHED_BYTES` in all). Raises `UsageError` when the folder cannot be listed.
    """

    def __init__(self, directory: Path, *, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._directory = directory.resolve()
        self._max_file_bytes = max_file_bytes
        self._index: dict[str, Path] = {}
        self._index_stamp = -1
        self._cache: dict[str, tuple[_Stamp, str, bytes]] = {}  # with the path, "" for a link
        self._cached_bytes = 0
        self._refresh()

    def names(self) -> tuple[str, ...]:
        """Names served now, sorted."""
        self._refresh()
        return tuple(sorted(self._index))

    def read(self, name: str) -> bytes:
        # the trick: of a file in memory only the stamp is looked at, and nothing is opened
        cached = self._cache.get(name)
        if cached is not None and cached[1]:
            try:
                if _stamp(os.lstat(cached[1])) == cached[0]:
                    return cached[2]
            except OSError:
                pass  # why it cannot be had is told when it is opened
        return self._read(name)

    def _read(self, name: str) -> bytes:
        if not is_servable(name):
            raise NotServed("not the name of a file in this folder")
        try:
            self._refresh()
        except LabError as error:
            raise NotServed(str(error), reason=NotServedReason.BUSY) from error
        path = self._index.get(name)
        if path is None:
            raise NotServed(f"no file {name!r}")
        try:
            return self._contents(name, path)
        except FileNotFoundError as error:
            raise NotServed(f"no file {name!r}") from error
        except OSError as error:
            raise NotServed(f"{name!r} cannot be read: {error.strerror}", reason=NotServedReason.BUSY) from error

    def _refresh(self) -> None:
        try:
            stamp = self._directory.stat().st_mtime_ns
            if stamp != self._index_stamp:
                self._index = self._scan()
                self._index_stamp = stamp if _settled(stamp) else -1
        except OSError as error:
            if error.errno in TOO_MANY_OPEN:
                raise machine_problem(error, str(self._directory), failed="the folder cannot be listed") from error
            raise UsageError(
                f"the folder cannot be listed: {error.strerror}",
                where=str(self._directory),
                mend="give a folder that exists and may be read",
            ) from error

    def _scan(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                target = self._target(entry)
                if target is not None and is_servable(entry.name):
                    found[entry.name] = target
                if len(found) >= MAX_INDEXED_FILES:
                    break
        return found

    def _target(self, entry: os.DirEntry[str]) -> Path | None:
        """The file an entry stands for: itself, or for a link its end if that lies directly in the folder."""
        if not entry.is_symlink():
            return Path(entry.path) if entry.is_file(follow_symlinks=False) else None
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # dangling, or a loop
            return None
        return target if target.parent == self._directory and target.is_file() else None

    def _contents(self, name: str, path: Path) -> bytes:
        # a link put in the file's place since the scan is not followed; a FIFO would block without O_NONBLOCK
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotServed(f"no file {name!r}")
            if status.st_size > self._max_file_bytes:
                raise NotServed(
                    f"{name!r} has {status.st_size} bytes, more than are served", reason=NotServedReason.BUSY
                )
            stamp = _stamp(status)
            cached = self._cache.get(name)
            if cached is not None and cached[0] == stamp:
                return cached[2]
            data = file.read(self._max_file_bytes)
        # a link may come to lead elsewhere: it is looked up each time
        self._remember(name, stamp, str(path) if path.name == name else "", data)
        return data

    def _remember(self, name: str, stamp: _Stamp, path: str, data: bytes) -> None:
        self._forget(name)
        if not _settled(stamp[0]):
            return
        while self._cache and self._cached_bytes + len(data) > MAX_CACHED_BYTES:
            self._forget(next(iter(self._cache)))
        if len(data) <= MAX_CACHED_BYTES:
            self._cache[name] = (stamp, path, data)
            self._cached_bytes += len(data)

    def _forget(self, name: str) -> None:
        old = self._cache.pop(name, None)
        if old is not None:
            self._cached_bytes -= len(old[2])


def _stamp(status: os.stat_result) -> _Stamp:
    """Changes with the content, and (`st_ctime_ns`, `st_mode`) with what a file is and who may read it."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_mode


def _settled(stamp_ns: int) -> bool:
    return time.time_ns() - stamp_ns > SETTLED_NS
