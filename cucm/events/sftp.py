"""Events of the SFTP server. `peer` is an IP address; paths are those the client sees, `/` being the served folder."""

from __future__ import annotations

from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class SftpServerStarted(Event):
    """The port is bound. `host_key` is the fingerprint as OpenSSH prints it."""

    kind: ClassVar[str] = "sftp_server.started"
    address: str
    port: int
    host_key: str


@dataclass(frozen=True, slots=True)
class SftpServerStopped(Event):
    kind: ClassVar[str] = "sftp_server.stopped"
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class SftpConnectionRefused(Event):
    """A connection was turned away by the server's limits."""

    kind: ClassVar[str] = "sftp.connection_refused"
    peer: str
    why: str


@dataclass(frozen=True, slots=True)
class SftpLoginAccepted(Event):
    kind: ClassVar[str] = "sftp.login_accepted"
    peer: str
    user: str


@dataclass(frozen=True, slots=True)
class SftpLoginRefused(Event):
    """Unknown user or wrong password; the client is not told which."""

    kind: ClassVar[str] = "sftp.login_refused"
    peer: str
    user: str


@dataclass(frozen=True, slots=True)
class SftpFileStored(Event):
    """A file that a client had opened for writing was closed, by the client or by the end of its connection; `size`
    (bytes) is what it has then, which may be a part.
    """

    kind: ClassVar[str] = "sftp.file_stored"
    peer: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class SftpFileRead(Event):
    """The same of a file opened for reading; `size` is the file's, however much was read."""

    kind: ClassVar[str] = "sftp.file_read"
    peer: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class SftpFileRenamed(Event):
    kind: ClassVar[str] = "sftp.file_renamed"
    peer: str
    old_path: str
    new_path: str


@dataclass(frozen=True, slots=True)
class SftpFileRemoved(Event):
    kind: ClassVar[str] = "sftp.file_removed"
    peer: str
    path: str
