"""Database replication from a publisher to its subscribers."""

from __future__ import annotations

from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class ChangesReplicated(Event):
    """Transactions of the publisher are in a subscriber's database. `late`: the link had a delay, or was held up."""

    kind: ClassVar[str] = "replication.changes_replicated"
    node: str
    transactions: int
    changes: int
    position: int
    late: bool


@dataclass(frozen=True, slots=True)
class ReplicationLagSet(Event):
    kind: ClassVar[str] = "replication.lag_set"
    node: str
    lag_s: float


@dataclass(frozen=True, slots=True)
class ReplicationPaused(Event):
    kind: ClassVar[str] = "replication.paused"
    node: str


@dataclass(frozen=True, slots=True)
class ReplicationResumed(Event):
    kind: ClassVar[str] = "replication.resumed"
    node: str


@dataclass(frozen=True, slots=True)
class ReplicationBroken(Event):
    """The link is down until somebody repairs it: on purpose, or because a change could not be applied."""

    kind: ClassVar[str] = "replication.broken"
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicationDelayed(Event):
    """A file could not be read or written just now (locked by another program, disk full); it is tried again."""

    kind: ClassVar[str] = "replication.delayed"
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeCopied(Event):
    """A subscriber took over all of the publisher's rows: its installation, or `utils dbreplication reset`."""

    kind: ClassVar[str] = "replication.node_copied"
    node: str
    rows: int
    position: int
