"""Events of a file server: what was asked for, what went out, and what went wrong on the way."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


class FileTransport(StrEnum):
    HTTP = "http"
    TFTP = "tftp"


class RefusalReason(StrEnum):
    """Why a request was answered, but not with a file and not with "not found"."""

    BUSY = "busy"
    MALFORMED = "malformed"
    WRITE_REQUEST = "write-request"
    MODE = "mode"
    METHOD = "method"
    TOO_LARGE = "too-large"
    TOO_MANY_TRANSFERS = "too-many-transfers"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    TIMEOUT = "timeout"
    FAULT = "fault"


class FailureReason(StrEnum):
    """Why a transfer that had begun did not end well."""

    SILENCE = "silence"
    TOO_SLOW = "too-slow"
    CLIENT_ERROR = "client-error"
    PROTOCOL = "protocol"
    SUPERSEDED = "superseded"
    NETWORK = "network"
    SERVER_STOPPED = "server-stopped"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class FileServerStarted(Event):
    """Both ports are bound. `receive_buffer_bytes` is what the kernel granted the TFTP port, in the kernel's count."""

    kind: ClassVar[str] = "file_server.started"
    address: str
    tftp_port: int
    http_port: int
    receive_buffer_bytes: int


@dataclass(frozen=True, slots=True)
class FileServerStopped(Event):
    kind: ClassVar[str] = "file_server.stopped"
    address: str


@dataclass(frozen=True, slots=True)
class FileEvent(Event):
    """What all of them have: the transport, the client (`peer` address, its port) and the name as it asked for it."""

    transport: FileTransport
    peer: str
    peer_port: int
    name: str


@dataclass(frozen=True, slots=True)
class FileRequested(FileEvent):
    """`request` is what came over the wire: the TFTP datagram or the HTTP head."""

    kind: ClassVar[str] = "file.requested"
    request: bytes
    options: tuple[str, ...] = ()
    """TFTP options as asked, `blksize=1428`."""


@dataclass(frozen=True, slots=True)
class FileServed(FileEvent):
    """The client has the whole file: the last block was acknowledged, or the last byte taken by the connection.

    `digest` is the SHA-256 of the file in hex, `retransmissions` counts TFTP packets sent again.
    """

    kind: ClassVar[str] = "file.served"
    size: int
    digest: str
    retransmissions: int = 0


@dataclass(frozen=True, slots=True)
class FileNotFound(FileEvent):
    """Answered with HTTP 404 or TFTP ERROR 1."""

    kind: ClassVar[str] = "file.not_found"
    detail: str


@dataclass(frozen=True, slots=True)
class FileRefused(FileEvent):
    """`status` is the HTTP status or TFTP error code of the answer; None when nothing was answered."""

    kind: ClassVar[str] = "file.refused"
    reason: RefusalReason
    status: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class TransferRetransmitted(FileEvent):
    """No acknowledgement came in time: `block` and what follows it in the window go out for the `attempt`-th time."""

    kind: ClassVar[str] = "transfer.retransmitted"
    block: int
    attempt: int


@dataclass(frozen=True, slots=True)
class TransferFailed(FileEvent):
    """`sent` counts file bytes the client acknowledged (TFTP) or the connection took (HTTP)."""

    kind: ClassVar[str] = "transfer.failed"
    reason: FailureReason
    detail: str
    sent: int


@dataclass(frozen=True, slots=True)
class TransferIntruded(FileEvent):
    """A packet from another address or port reached a transfer's port and changed nothing; it got ERROR 5, unless it
    was an ERROR itself.
    """

    kind: ClassVar[str] = "transfer.intruded"
    intruder: str
    intruder_port: int


@dataclass(frozen=True, slots=True)
class FileAltered(Event):
    """A fault has changed what is served under `name`: by `action`, from content with SHA-256 `was` to one with `now`
    (hex) of `size` bytes.
    """

    kind: ClassVar[str] = "file.altered"
    name: str
    action: str
    was: str
    now: str
    size: int


@dataclass(frozen=True, slots=True)
class FileNotAltered(Event):
    """A fault has hit this file, but cannot be done to it: it is served as it is."""

    kind: ClassVar[str] = "file.not_altered"
    name: str
    action: str
    detail: str
