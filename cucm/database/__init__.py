"""One node's database: a SQLite file with Cisco's tables, so that `run sql ...` and SQL tools work for real.

Architecture: Database. Rules of the certificate stores: facts 5.3 to 5.5.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import select

from cucm.database import certificates as _certificates
from cucm.database import devices as _devices
from cucm.database.certificates import PutOutcome, StoredCertificate
from cucm.database.devices import Device, ProcessNode
from cucm.database.file import BUSY_TIMEOUT_S, DatabaseFile, QueryResult
from cucm.database.schema import pkid, processconfig, upsert
from cucm.roles import CertificateUnit

__all__ = ["Device", "NodeDatabase", "ProcessNode", "PutOutcome", "QueryResult", "StoredCertificate"]


class NodeDatabase:
    """A node's database. Every method is one transaction; DatabaseError when the file cannot be used.

    Threads may share one object, processes one file: readers go on while one writes. `busy_timeout_s` is how long
    each step waits for a lock of somebody else's.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = path
        self._file = DatabaseFile(path, busy_timeout_s)

    def create(self) -> Self:
        """Make the file (mode 0600) with its tables, or open the one that is there."""
        self._file.create()
        return self

    def open(self) -> Self:
        """Open an existing file; it is not touched if it is no node database."""
        self._file.open()
        return self

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
        with self._file.transaction(write=True) as connection:
            return _certificates.put(connection, der, unit, server_name, ip, moment=moment, ttl_s=ttl_s)

    def delete_certificate(self, unit: CertificateUnit, common_name: str) -> None:
        """Take it out of one store; roles are recomputed from the others. CertificateRefused if it is not there."""
        with self._file.transaction(write=True) as connection:
            _certificates.delete_from_store(connection, unit, common_name)

    def certificates(self, unit: CertificateUnit | None = None) -> tuple[StoredCertificate, ...]:
        """All certificates in the order they came, once each; or those of one store.

        Asked for a node's own unit, a certificate that several nodes share comes once per node, with its name and
        address. Roles are what `certificatetrustrolemap` says.
        """
        with self._file.transaction() as connection:
            return _certificates.stored(connection, unit)

    def add_node(self, name: str, ip: str, *, services: Collection[str] = ()) -> None:
        """Add a node, or change it. `services`: CallManager, TFTP, CAPF, TVS. UsageError for others."""
        with self._file.transaction(write=True) as connection:
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
        with self._file.transaction(write=True) as connection:
            upsert(connection, processconfig, pkid=pkid("processconfig", name), paramname=name, paramvalue=value)

    def parameter(self, name: str) -> str | None:
        with self._file.transaction() as connection:
            value = connection.scalar(select(processconfig.c.paramvalue).where(processconfig.c.paramname == name))
            return None if value is None else str(value)

    def put_callmanager_group(self, name: str, node_names: Sequence[str]) -> None:
        """1 to 3 nodes, highest priority first. UsageError for unknown nodes."""
        with self._file.transaction(write=True) as connection:
            _devices.put_callmanager_group(connection, name, node_names)

    def callmanager_group(self, name: str) -> tuple[ProcessNode, ...]:
        """Highest priority first; empty if there is no such group."""
        with self._file.transaction() as connection:
            return _devices.callmanager_group(connection, name)

    def put_device_pool(self, name: str, callmanager_group: str) -> None:
        """Give a device pool its CallManager group. UsageError if there is no such group."""
        with self._file.transaction(write=True) as connection:
            _devices.put_device_pool(connection, name, callmanager_group)

    def put_device(self, device: Device) -> None:
        """Add or change a device; makes its pool. UsageError for an unknown group or a pool with another one."""
        with self._file.transaction(write=True) as connection:
            _devices.put_device(connection, device)

    def delete_device(self, name: str) -> None:
        """UsageError if there is none."""
        with self._file.transaction(write=True) as connection:
            _devices.delete_device(connection, name)

    def device(self, name: str) -> Device | None:
        with self._file.transaction() as connection:
            return next(iter(_devices.devices(connection, name)), None)

    def devices(self) -> tuple[Device, ...]:
        """By name."""
        with self._file.transaction() as connection:
            return _devices.devices(connection)
