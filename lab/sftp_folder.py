"""The folder an SFTP client sees: everything in it, nothing outside, no more than the limits.

Every path is walked from the folder's own descriptor, one name at a time and never through a symbolic link, so that
neither `..` nor a link that somebody put there leads out, whenever it is put there.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from asyncssh import SFTPFailure, SFTPNoSuchFile, SFTPPermissionDenied

from cucm.faults import Action
from cucm.records import dataclass

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700


@dataclass(frozen=True, slots=True)
class FolderLimits:
    """Sizes in bytes. `entries`: files and folders in all; more can neither be made nor listed."""

    file_size: int = 4 * 1024 * 1024
    entries: int = 512
    depth: int = 6
    path_length: int = 1024
    name_length: int = 128


class FolderFile(io.FileIO):
    """An open file and what was done with it."""

    def __init__(self, descriptor: int, mode: str, path: str, *, appends: bool = False) -> None:
        super().__init__(descriptor, mode)
        self.path = path
        self.appends = appends
        self.fault: Action | None = None
        """What goes wrong when a certain part of it has been written or read."""


class ServedFolder:
    """A folder of the machine as a file system of its own. Paths are bytes, as SFTP has them.

    Methods raise OSError, or SFTPError where the limits or the rules of the folder say no.
    """

    def __init__(self, root: Path, limits: FolderLimits | None = None) -> None:
        self.root = root
        self.limits = limits or FolderLimits()

    def parts(self, path: bytes) -> tuple[str, ...]:
        """The names on the way from the root; `.` and `..` are gone. SFTPNoSuchFile for a path that cannot be."""
        try:
            text = path.decode("utf-8")
        except UnicodeDecodeError:
            raise SFTPNoSuchFile("names are UTF-8") from None
        parts = tuple(part for part in posixpath.normpath(posixpath.join("/", text)).split("/") if part)
        limits = self.limits
        if len(path) > limits.path_length or len(parts) > limits.depth or not text.isprintable():
            raise SFTPNoSuchFile("no such path")
        if any(len(part.encode()) > limits.name_length for part in parts):
            raise SFTPNoSuchFile("a name is too long")
        return parts

    def shown(self, path: bytes) -> str:
        """The path as a client sees it: `/a/b`."""
        return "/" + "/".join(self.parts(path))

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that holds `path`, and its name there; `.` for the root itself."""
        parts = self.parts(path)
        with self._opened(parts[:-1]) as descriptor:
            yield descriptor, parts[-1] if parts else "."

    @contextmanager
    def _opened(self, parts: tuple[str, ...]) -> Iterator[int]:
        descriptor = os.open(self.root, _DIRECTORY)
        try:
            for part in parts:
                inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def status(self, path: bytes) -> os.stat_result:
        """Links are shown as what they are."""
        with self._parent(path) as (parent, name):
            return os.stat(name, dir_fd=parent, follow_symlinks=False)

    def listing(self, path: bytes) -> list[tuple[str, os.stat_result]]:
        """Names and their status, `.` and `..` first."""
        with self._opened(self.parts(path)) as descriptor:
            names = [".", *sorted(os.listdir(descriptor))[: self.limits.entries]]  # noqa: PTH208 (a descriptor is no path)
            found = [(name, _status(name, descriptor)) for name in names]
        listed = [(name, status) for name, status in found if status is not None]
        return [listed[0], ("..", listed[0][1]), *listed[1:]]

    def open(self, path: bytes, flags: int) -> FolderFile:
        """A regular file; `flags` are those of `os.open`. What is made has mode 0600."""
        flags &= os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND
        with self._parent(path) as (parent, name):
            if flags & os.O_CREAT and _status(name, parent) is None:
                self._require_room()
            extra = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold the server up
            descriptor = os.open(name, flags | extra, _FILE_MODE, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SFTPPermissionDenied("not a regular file")
        return FolderFile(descriptor, _python_mode(flags), self.shown(path), appends=bool(flags & os.O_APPEND))

    def write(self, file: FolderFile, offset: int, data: bytes) -> int:
        if file.appends:  # as the system does, whatever the offset says
            offset = os.fstat(file.fileno()).st_size
        if offset + len(data) > self.limits.file_size:
            raise SFTPFailure(f"a file may have {self.limits.file_size} bytes")
        return os.pwrite(file.fileno(), data, offset)

    def truncate(self, file: FolderFile, size: int) -> None:
        if size > self.limits.file_size:
            raise SFTPFailure(f"a file may have {self.limits.file_size} bytes")
        file.truncate(size)

    def remove(self, path: bytes) -> None:
        with self._parent(path) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def make_folder(self, path: bytes) -> None:
        with self._parent(path) as (parent, name):
            self._require_room()
            os.mkdir(name, _FOLDER_MODE, dir_fd=parent)

    def remove_folder(self, path: bytes) -> None:
        with self._parent(path) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """`replace`: what has the new name gives way, in one step."""
        with self._parent(old) as (source, name), self._parent(new) as (target, new_name):
            if not replace and _status(new_name, target) is not None:
                raise SFTPFailure("there is a file of the new name")
            self._require_shallow(name, source, len(self.parts(new)))
            os.replace(name, new_name, src_dir_fd=source, dst_dir_fd=target)

    def _require_shallow(self, name: str, parent: int, depth: int) -> None:
        """A folder that moves down takes what is in it along, out of everybody's reach."""
        status = _status(name, parent)
        if status is not None and stat.S_ISDIR(status.st_mode) and depth > 1:
            raise SFTPPermissionDenied("folders can be renamed at the top only")

    def _require_room(self) -> None:
        count = 0
        for _, folders, files in os.walk(self.root):
            count += len(folders) + len(files)
            if count >= self.limits.entries:
                raise SFTPFailure(f"the folder is full: {self.limits.entries} entries")


def _status(name: str, parent: int) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    return None


def _python_mode(flags: int) -> str:
    return {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}[flags & os.O_ACCMODE]
