"""One node's database: a SQLite file with Cisco's tables, so that `run sql ...` and SQL tools work for real.

Architecture: Database. Rules of the certificate stores: facts 5.3 to 5.5.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from sqlite3 import Connection
from types import TracebackType
from typing import Final, Self

from cucm.database import capture as _capture
from cucm.database import certificates as _certificates
from cucm.database import changes as _changes
from cucm.database import devices as _devices
from cucm.database import local_deletions as _local
from cucm.database.capture import PER_NODE_UNITS, DatabaseRole
from cucm.database.certificates import PutOutcome, StoredCertificate
from cucm.database.changes import (
    MAX_CHANGES,
    MAX_TRANSACTIONS,
    Change,
    FullCopyNeeded,
    LinkSetting,
    ReplicationPosition,
    Snapshot,
    Transaction,
)
from cucm.database.devices import Device, ProcessNode
from cucm.database.file import BUSY_TIMEOUT_S, DatabaseFile, QueryResult
from cucm.database.schema import pkid, processconfig, upsert
from cucm.errors import DatabaseError, UsageError
from cucm.roles import CertificateUnit

__all__ = [
    "MAX_CHANGES",
    "PER_NODE_UNITS",
    "Change",
    "DatabaseRole",
    "Device",
    "FullCopyNeeded",
    "LinkSetting",
    "NodeDatabase",
    "ProcessNode",
    "PutOutcome",
    "QueryResult",
    "ReplicationPosition",
    "Snapshot",
    "StoredCertificate",
    "Transaction",
]


DEVICES_AT_ONCE: Final = 500
"""Ours."""


class NodeDatabase:
    """A node's database. Every method is one transaction; DatabaseError when the file cannot be used.

    A subscriber's is a copy: whatever would change it raises UsageError ("write on the publisher"), but for the stores
    in PER_NODE_UNITS.

    Threads may share one object, processes one file: readers go on while one writes. `busy_timeout_s` is how long
    each step waits for a lock of somebody else's.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = path
        self._file = DatabaseFile(path, busy_timeout_s)
        self._role = DatabaseRole.PUBLISHER
        self._listeners: list[Callable[[], None]] = []

    def create(self, role: DatabaseRole | None = None) -> Self:
        """Make the file (mode 0600) with its tables, or open the one that is there.

        `role` of a new file, a publisher's unless given. DatabaseError if the file there has another one.
        """
        self._file.create(lambda connection: _capture.install(connection, role or DatabaseRole.PUBLISHER))
        self._read_role()
        if role not in (None, self._role):
            self.close()
            raise DatabaseError(f"is the database of a {self._role}, not of a {role}", where=str(self.path))
        return self

    def open(self) -> Self:
        """Open an existing file; it is not touched if it is no node database."""
        self._file.open()
        self._read_role()
        return self

    @property
    def role(self) -> DatabaseRole:
        return self._role

    def on_commit(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change made through this object, in the thread that made it.

        Returns the call that ends this. Changes made by others show in `data_version` only.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def data_version(self) -> int:
        """Changes when anyone (this object, another, another process) has committed since the last call."""
        return self._file.data_version()

    def query(self, sql: str) -> QueryResult:
        """One SELECT on a connection that cannot write. UsageError for other or faulty SQL, or too much of it."""
        return self._file.query(sql)

    def execute(self, sql: str) -> int:
        """One INSERT, UPDATE or DELETE, as an administrator's SQL; how many rows it changed.

        Data only, and it replicates. UsageError for other, faulty or too far-reaching SQL.
        """
        self._require_publisher()
        changed = self._file.execute(sql, before=_capture.SEAL)
        self._tell()
        return changed

    def put_certificate(
        self,
        der: bytes,
        unit: CertificateUnit,
        server_name: str,
        ip: str | None = None,
        *,
        moment: float,
        ttl_s: int | None = None,
    ) -> PutOutcome:
        """Put a certificate into a store and recompute its roles (facts 5.3, 5.5).

        Trust stores keep one certificate per CN: another one replaces it only if it starts later, else it is IGNORED;
        CertificateRefused if it expired before `moment` (Unix seconds), or if a different certificate with its issuer
        and serial is stored. A node's own unit takes what comes. DecodeError if it is no certificate, UsageError for a
        `ttl_s` that TVS could not send.
        `server_name` and `ip`: the node it belongs to, for an own unit; where it came from, for a trust store.
        """
        with self._writing(per_node=unit in PER_NODE_UNITS) as connection:
            outcome = _certificates.put(connection, der, unit, server_name, ip, moment=moment, ttl_s=ttl_s)
            if outcome in (PutOutcome.ADDED, PutOutcome.REPLACED):
                _local.supersede(connection, der, unit)
            return outcome

    def delete_certificate(self, unit: CertificateUnit, common_name: str, *, local: bool = False) -> None:
        """Take it out of one store; roles are recomputed from the others. CertificateRefused if it is not there.

        `local`: on this node only, as before 11.0 (facts 5.5); it stays away until the publisher puts it into that
        store again, `restore_local_deletions` or a full copy.
        """
        with self._writing(per_node=local or unit in PER_NODE_UNITS) as connection:
            delete = _local.delete_here if local else _certificates.delete_from_store
            delete(connection, unit, common_name)

    def local_deletions(self) -> tuple[tuple[CertificateUnit, str], ...]:
        """(store, CN) of what was deleted on this node only, and is still away."""
        with self._file.transaction() as connection:
            return _local.deleted_here(connection)

    def restore_local_deletions(
        self, moment: float, wanted: Collection[tuple[CertificateUnit, str]] | None = None
    ) -> tuple[tuple[CertificateUnit, str], ...]:
        """What was deleted on this node only comes back from the others (before 11.0, facts 5.5); what came back.

        `wanted`: these (store, CN) only.
        """
        with self._writing(per_node=True) as connection:
            return _local.restore(connection, moment, wanted)

    def certificates(self, unit: CertificateUnit | None = None) -> tuple[StoredCertificate, ...]:
        """All certificates in the order they came, once each; or those of one store.

        Asked for a node's own unit, a certificate that several nodes share comes once per node, with its name and
        address. Roles are what `certificatetrustrolemap` says.
        """
        with self._file.transaction() as connection:
            return _certificates.stored(connection, unit)

    def add_node(self, name: str, ip: str, *, services: Collection[str] = ()) -> None:
        """Add a node, or change it. `services`: CallManager, TFTP, CAPF, TVS. UsageError for others."""
        with self._writing() as connection:
            _devices.put_node(connection, name, ip, services)

    def nodes(self) -> tuple[ProcessNode, ...]:
        """In the order they were added: the publisher first."""
        with self._file.transaction() as connection:
            return _devices.nodes(connection)

    def services_of(self, node: str) -> tuple[str, ...]:
        with self._file.transaction() as connection:
            return _devices.services_of(connection, node)

    def set_parameter(self, name: str, value: str) -> None:
        """An enterprise or service parameter (`processconfig`)."""
        with self._writing() as connection:
            upsert(connection, processconfig, pkid=pkid("processconfig", name), paramname=name, paramvalue=value)

    def parameter(self, name: str) -> str | None:
        found = self._file.select("SELECT paramvalue FROM processconfig WHERE paramname = ?", name)
        return str(found[0][0]) if found else None

    def put_callmanager_group(self, name: str, node_names: Sequence[str]) -> None:
        """1 to 3 nodes, highest priority first. UsageError for unknown nodes."""
        with self._writing() as connection:
            _devices.put_callmanager_group(connection, name, node_names)

    def callmanager_group(self, name: str) -> tuple[ProcessNode, ...]:
        """Highest priority first; empty if there is no such group."""
        with self._file.transaction() as connection:
            return _devices.callmanager_group(connection, name)

    def put_device_pool(self, name: str, callmanager_group: str) -> None:
        """Give a device pool its CallManager group. UsageError if there is no such group."""
        with self._writing() as connection:
            _devices.put_device_pool(connection, name, callmanager_group)

    def put_device(self, device: Device) -> None:
        """Add or change a device; makes its pool. UsageError for an unknown group or a pool with another one."""
        with self._writing() as connection:
            _devices.put_device(connection, device)

    def put_devices(self, devices: Sequence[Device]) -> None:
        """As `put_device` for each, `DEVICES_AT_ONCE` in a transaction: replication takes them in such portions."""
        for first in range(0, len(devices), DEVICES_AT_ONCE):
            with self._writing() as connection:
                for device in devices[first : first + DEVICES_AT_ONCE]:
                    _devices.put_device(connection, device)

    def delete_device(self, name: str) -> None:
        """UsageError if there is none."""
        with self._writing() as connection:
            _devices.delete_device(connection, name)

    def device(self, name: str) -> Device | None:
        found = self._file.select(_devices.DEVICE_NAMED, name)
        return _devices.device_of(*found[0]) if found else None

    def devices(self) -> tuple[Device, ...]:
        """By name."""
        return tuple(Device(*row) for row in self._file.select(_devices.ALL_DEVICES))

    # --- replication: what the publisher tells, what a subscriber takes over

    def last_sequence(self) -> int:
        """Of the newest change of this publisher; 0 if there was none."""
        with self._file.transaction() as connection:
            return _changes.last_sequence(connection)

    def changes_since(self, sequence: int, *, limit: int = MAX_TRANSACTIONS) -> tuple[Transaction, ...]:
        """Whole transactions of this publisher after that change, `limit` at most.

        FullCopyNeeded if they are kept no longer, or larger than MAX_CHANGES: only a snapshot helps then.
        """
        with self._file.transaction() as connection:
            is_open = _changes.has_open_end(connection)
        if is_open:
            with self._file.transaction(write=True) as connection:
                _changes.seal(connection)
        with self._file.transaction() as connection:
            return _changes.read_after(connection, sequence, limit, str(self.path))

    def count_transactions_since(self, sequence: int) -> int:
        """How many transactions of this publisher a copy at `sequence` lacks."""
        with self._file.transaction() as connection:
            return _changes.transactions_after(connection, sequence)

    def forget_changes(self, sequence: int) -> int:
        """Let go of the publisher's changes up to that one; how many they were."""
        self._require_publisher()
        with self._file.transaction(write=True) as connection:
            return _changes.forget(connection, sequence)

    def snapshot(self) -> Snapshot:
        """All that is replicated, as it is now. DatabaseError for more than MAX_CHANGES rows."""
        with self._file.transaction() as connection:
            return _changes.take_snapshot(connection, str(self.path))

    @property
    def position(self) -> ReplicationPosition:
        """How far this copy is; of a publisher: its history, and its last change."""
        with self._file.transaction() as connection:
            if self._role is DatabaseRole.PUBLISHER:
                return ReplicationPosition(_changes.history_of(connection), _changes.last_sequence(connection))
            return _changes.position_of(connection)

    def apply_changes(self, transactions: Sequence[Transaction], history: str) -> int:
        """Take over the publisher's transactions, each in one of this file; how many were new.

        FullCopyNeeded if this is a copy of another history, or one is missing in between: only a snapshot helps then.
        """
        self._require_subscriber()
        applied = 0
        for transaction in transactions:
            with self._file.copying() as connection:
                applied += _changes.apply(connection, transaction, history, str(self.path))
        return applied

    def install_snapshot(self, snapshot: Snapshot) -> None:
        """Become this copy, in one transaction; stores that are per node stay. A broken link is whole again."""
        self._require_subscriber()
        with self._file.copying() as connection:
            _changes.install_snapshot(connection, snapshot, str(self.path))

    @property
    def link(self) -> LinkSetting:
        """What was done to the replication towards this subscriber; kept in its file."""
        with self._file.transaction() as connection:
            return _changes.link_setting(connection)

    def set_link(self, setting: LinkSetting) -> None:
        with self._file.transaction(write=True) as connection:
            _changes.set_link(connection, setting)

    # --- inside

    @contextmanager
    def _writing(self, *, per_node: bool = False) -> Iterator[Connection]:
        if not per_node:
            self._require_publisher()
        with self._file.transaction(write=True) as connection:
            _changes.seal(connection)
            with _capture.unguarded(connection) if per_node else nullcontext():
                yield connection
            _changes.seal(connection)
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _read_role(self) -> None:
        with self._file.transaction() as connection:
            (role,) = connection.execute("SELECT role FROM replicationstate").fetchone()
            self._role = DatabaseRole(role)

    def _require_publisher(self) -> None:
        if self._role is not DatabaseRole.PUBLISHER:
            raise UsageError(_capture.READ_ONLY_TEXT, where=str(self.path), mend=_capture.WRITE_ELSEWHERE_TEXT)

    def _require_subscriber(self) -> None:
        if self._role is not DatabaseRole.SUBSCRIBER:
            raise UsageError("is the publisher's database, no copy", where=str(self.path), mend="name a subscriber")
