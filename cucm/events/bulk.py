"""Events of bulk certificate management. `text` is the line of the CLI: facts 9.1 has TFTP's, the rest [inferred]."""

from __future__ import annotations

from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class BulkSftpSet(Event):
    """`host_key` is the fingerprint that every later connection must find again."""

    kind: ClassVar[str] = "bulk.sftp_set"
    cluster: str
    address: str
    port: int
    user: str
    directory: str
    host_key: str


@dataclass(frozen=True, slots=True)
class BulkExported(Event):
    kind: ClassVar[str] = "bulk.exported"
    cluster: str
    bulk_type: str
    files: tuple[str, ...]
    certificates: int
    text: str


@dataclass(frozen=True, slots=True)
class BulkConsolidated(Event):
    """`clusters` are those whose certificates the consolidated file holds."""

    kind: ClassVar[str] = "bulk.consolidated"
    cluster: str
    bulk_type: str
    clusters: tuple[str, ...]
    certificates: int
    text: str


@dataclass(frozen=True, slots=True)
class BulkImported(Event):
    """Certificates by what became of them in the trust stores; one that goes into two stores counts twice."""

    kind: ClassVar[str] = "bulk.imported"
    cluster: str
    bulk_type: str
    added: int
    replaced: int
    unchanged: int
    ignored: int
    refused: int
    text: str


@dataclass(frozen=True, slots=True)
class BulkTypeSkipped(Event):
    """One of the types of "All" had nothing to do."""

    kind: ClassVar[str] = "bulk.type_skipped"
    cluster: str
    bulk_type: str
    why: str


@dataclass(frozen=True, slots=True)
class BulkCertificateRefused(Event):
    """A certificate of the consolidated file did not come into a trust store; the import goes on without it."""

    kind: ClassVar[str] = "bulk.certificate_refused"
    cluster: str
    store: str
    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class BulkFailed(Event):
    """`text` tells what the administrator is told."""

    kind: ClassVar[str] = "bulk.failed"
    cluster: str
    step: str
    bulk_type: str
    text: str
