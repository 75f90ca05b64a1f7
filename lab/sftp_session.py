"""What one SFTP client may do: asyncssh's requests, answered by a `ServedFolder`.

Links of either kind cannot be made or read, owners and modes cannot be changed. What asyncssh would do with a path by
itself ends in `map_path`, which refuses.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NoReturn, cast

import asyncssh
from asyncssh import SFTPAttrs, SFTPConnectionLost, SFTPFailure, SFTPName, SFTPOpUnsupported

from cucm.events import Emit, Event
from cucm.events.sftp import SftpFileRead, SftpFileRemoved, SftpFileRenamed, SftpFileStored
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.sftp import SFTP_READ, SFTP_WRITE, CutTransfer, DiskFull
from lab.sftp_folder import FolderFile, ServedFolder

MAX_OPEN_FILES: Final = 32
"""Of one client, over all sessions of its connection."""
MAX_UNREAD: Final = 8 * 1024 * 1024
"""Bytes of answers that a client has asked for and not taken: asyncssh keeps them all, and forty bytes can ask for
four million. OpenSSH's `sftp` asks for two million at once, asyncssh for the whole file.
"""
MAX_LISTINGS: Final = 4096
"""Folders a client may open in one session: asyncssh keeps each until it is closed, and does not tell of that."""


class FolderSession(asyncssh.SFTPServer):
    """One client's session; `emit` gets what it did, `peer` is its address, `open_files` those of all its sessions."""

    def __init__(
        self,
        channel: asyncssh.SSHServerChannel[bytes],
        folder: ServedFolder,
        peer: str,
        emit: Emit,
        open_files: set[FolderFile],
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        super().__init__(channel)
        self._faults = faults
        self._answers = channel
        self._folder = folder
        self._peer = peer
        self._emit = emit
        self._open = open_files
        self._listings = 0

    def map_path(self, path: bytes) -> bytes:  # noqa: ARG002
        return _refuse()

    def reverse_map_path(self, path: bytes) -> bytes:  # noqa: ARG002
        return _refuse()

    def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:  # noqa: ARG002
        if len(self._open) >= MAX_OPEN_FILES:
            raise SFTPFailure(f"{MAX_OPEN_FILES} files are open already")
        file = self._folder.open(path, _system_flags(pflags))
        self._open.add(file)
        point = SFTP_WRITE if file.writable() else SFTP_READ
        file.fault = self._faults.fire(point, peer=self._peer, file=file.path)
        return file

    def close(self, file_obj: object) -> None:
        file = cast(FolderFile, file_obj)
        self._open.discard(file)
        size = os.fstat(file.fileno()).st_size
        event: Callable[..., Event] = SftpFileStored if file.writable() else SftpFileRead
        file.close()
        self._emit(event(self._peer, file.path, size))

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        self._require_taken()
        wanted = min(size, self._folder.limits.file_size)
        file = cast(FolderFile, file_obj)
        data = os.pread(file.fileno(), wanted, min(offset, _MAX_OFFSET))
        self._cut(file, offset + len(data))
        return data

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        file = cast(FolderFile, file_obj)
        if isinstance(file.fault, DiskFull) and offset + len(data) > file.fault.after_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._folder.write(file, offset, data)
        self._cut(file, offset + written)
        return written

    def _cut(self, file: FolderFile, reached: int) -> None:
        """End the connection where a fault says so."""
        if isinstance(file.fault, CutTransfer) and reached >= file.fault.after_bytes:
            self._answers.get_connection().abort()
            raise SFTPConnectionLost("cut by a fault of the lab")

    def lstat(self, path: bytes) -> os.stat_result:
        return self._folder.status(path)

    def stat(self, path: bytes) -> os.stat_result:
        return self._folder.status(path)

    def fstat(self, file_obj: object) -> os.stat_result:
        return os.fstat(cast(FolderFile, file_obj).fileno())

    def setstat(self, path: bytes, attrs: SFTPAttrs) -> None:
        """Sizes alone; modes and times are taken and left alone, as clients send them along without being asked."""
        if attrs.size is not None:
            with self._folder.open(path, os.O_WRONLY) as file:
                self._folder.truncate(file, attrs.size)

    def lsetstat(self, path: bytes, attrs: SFTPAttrs) -> None:
        self.setstat(path, attrs)

    def fsetstat(self, file_obj: object, attrs: SFTPAttrs) -> None:
        if attrs.size is not None:
            self._folder.truncate(cast(FolderFile, file_obj), attrs.size)

    def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
        self._require_taken()
        self._listings += 1
        if self._listings > MAX_LISTINGS:
            raise SFTPFailure(f"{MAX_LISTINGS} folders are the most a session may open")
        return self._names(path)

    async def _names(self, path: bytes) -> AsyncIterator[SFTPName]:
        for name, status in self._folder.listing(path):
            yield SFTPName(os.fsencode(name), attrs=SFTPAttrs.from_local(status))

    def _require_taken(self) -> None:
        if self._answers.get_write_buffer_size() > MAX_UNREAD:
            raise SFTPFailure("read the answers that were sent before asking for more")

    def remove(self, path: bytes) -> None:
        self._folder.remove(path)
        self._emit(SftpFileRemoved(self._peer, self._folder.shown(path)))

    def mkdir(self, path: bytes, attrs: SFTPAttrs) -> None:  # noqa: ARG002
        self._folder.make_folder(path)

    def rmdir(self, path: bytes) -> None:
        self._folder.remove_folder(path)

    def realpath(self, path: bytes) -> bytes:
        return self._folder.shown(path).encode()

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        self._rename(oldpath, newpath, replace=False)

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        self._rename(oldpath, newpath, replace=True)

    def _rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        self._folder.rename(old, new, replace=replace)
        self._emit(SftpFileRenamed(self._peer, self._folder.shown(old), self._folder.shown(new)))

    def readlink(self, path: bytes) -> bytes:  # noqa: ARG002
        return _refuse()

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:  # noqa: ARG002
        _refuse()

    def link(self, oldpath: bytes, newpath: bytes) -> None:  # noqa: ARG002
        _refuse()

    def statvfs(self, path: bytes) -> Any:  # noqa: ARG002
        return os.statvfs(self._folder.root)


_MAX_OFFSET: Final = (1 << 63) - 1


def _refuse() -> NoReturn:
    raise SFTPOpUnsupported("this server has no links")


def _system_flags(pflags: int) -> int:
    """SFTP version 3 flags as `os.open` has them; neither reading nor writing means reading."""
    writing, reading = bool(pflags & asyncssh.FXF_WRITE), bool(pflags & asyncssh.FXF_READ)
    flags = (os.O_RDWR if reading else os.O_WRONLY) if writing else os.O_RDONLY
    if not writing:
        return flags
    pairs = (
        (asyncssh.FXF_APPEND, os.O_APPEND),
        (asyncssh.FXF_CREAT, os.O_CREAT),
        (asyncssh.FXF_TRUNC, os.O_TRUNC),
        (asyncssh.FXF_EXCL, os.O_EXCL),
    )
    return flags | sum(system for theirs, system in pairs if pflags & theirs)
