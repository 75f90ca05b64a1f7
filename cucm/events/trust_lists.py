"""What happens to a node's trust lists and to the files it signs."""

from __future__ import annotations

from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class TrustListSigned(Event):
    """A CTL or ITL was built and signed.

    `records` are `FUNCTION dns-name` texts in the file's order; `sha1` is the hash of the whole file, the "signature"
    that phones and `show ctl` print; `timestamp` is the header's, in Unix seconds.
    """

    kind: ClassVar[str] = "trust_list.signed"
    file_name: str
    signer: str
    signer_serial: bytes
    digest: str
    records: tuple[str, ...]
    timestamp: int
    sha1: bytes


@dataclass(frozen=True, slots=True)
class TrustListKept(Event):
    """A service start found a list that says just what it would say now, so it was not signed again."""

    kind: ClassVar[str] = "trust_list.kept"
    file_name: str
    sha1: bytes


@dataclass(frozen=True, slots=True)
class TrustListRefused(Event):
    """A list could not be built; the one before it, if any, is served on."""

    kind: ClassVar[str] = "trust_list.refused"
    file_name: str
    cause: str


@dataclass(frozen=True, slots=True)
class TrustListReset(Event):
    """A node's TFTP service was given the list that `utils itl reset` made, and serves it in the place of its own."""

    kind: ClassVar[str] = "trust_list.reset"
    file_name: str
    signer: str
    sha1: bytes


@dataclass(frozen=True, slots=True)
class TrustListOutgrown(Event):
    """A list is larger than phones load (facts 3.5, F19); it is served all the same. Sizes in bytes."""

    kind: ClassVar[str] = "trust_list.outgrown"
    file_name: str
    length: int
    limit: int


@dataclass(frozen=True, slots=True)
class FileSigned(Event):
    """A file's contents were wrapped and signed as `file_name` (.sgn)."""

    kind: ClassVar[str] = "file.signed"
    file_name: str
    signer: str
    signer_serial: bytes
    digest: str
    timestamp: int
    sha1: bytes


@dataclass(frozen=True, slots=True)
class FileNotSigned(Event):
    """A signed file was asked for and could not be made."""

    kind: ClassVar[str] = "file.not_signed"
    file_name: str
    cause: str
