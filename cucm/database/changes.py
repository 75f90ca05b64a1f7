"""The publisher's history of changes, and a subscriber's copy of it: reading, applying, full copies.

A transaction of the publisher is one of the subscriber, which writes down in it how far it is: killed at any moment,
a file holds a prefix of the history.
"""
# ruff: noqa: S608 - the SQL is put together from the names of our own tables; values are bound

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from itertools import groupby
from sqlite3 import Connection, IntegrityError
from typing import Any, Final

from cucm.database.capture import (
    CERTIFICATE_PARTS,
    PER_NODE_NUMBERS,
    PER_NODE_UNITS,
    REPLICATED,
    SEAL,
)
from cucm.database.schema import (
    Table,
    certificate,
    certificatehashmap,
    certificateservicecertificatemap,
    certificatetrustrolemap,
    pkid,
)
from cucm.errors import DatabaseError
from cucm.records import dataclass
from cucm.roles import SERVICE_NUMBERS, roles_of_units

MAX_TRANSACTIONS: Final = 500
"""Transactions read at once."""
MAX_CHANGES: Final = 200_000
"""Changes of one transaction, rows of a full copy, changes kept: memory is bounded, not what CUCM does."""
_UNITS: Final = {number: unit for unit, number in SERVICE_NUMBERS.items()}
_STORES: Final = certificateservicecertificatemap.name
_KEPT: Final = f"(SELECT fkcertificate FROM {_STORES} WHERE tkcertificateservice IN ({PER_NODE_NUMBERS}))"
"""Certificates that a node holds for itself."""


class FullCopyNeeded(DatabaseError):
    """A copy cannot be brought up to date change by change."""


@dataclass(frozen=True, slots=True)
class ReplicationPosition:
    """How far a file is: `sequence` of the last change in it, of the `history` of one publisher's file ("": none)."""

    history: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Change:
    """One row put (its values by column) or deleted (None). `key` is its primary key."""

    sequence: int
    table: str
    key: str
    row: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transaction:
    """Changes that belong together; never empty. `lost`: sequences that count as taken over and are not (a fault)."""

    number: int
    changes: tuple[Change, ...]
    lost: frozenset[int] = frozenset()

    @property
    def first(self) -> int:
        return self.changes[0].sequence

    @property
    def last(self) -> int:
        return self.changes[-1].sequence


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All replicated rows as of a position.

    `deletions` are rows of `localdeletion`: what the publisher alone deleted (facts 5.5) the copy lacks too, and as on
    the publisher it comes back while another node has it.
    """

    position: ReplicationPosition
    rows: tuple[Change, ...] = field(repr=False)
    deletions: tuple[tuple[str | int | None, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class LinkSetting:
    """What an administrator or a fault did to a subscriber's link: delay in seconds, held up, broken (why)."""

    lag_s: float = 0.0
    paused: bool = False
    broken: str | None = None


# --- the publisher's side


def history_of(connection: Connection) -> str:
    (history,) = connection.execute("SELECT history FROM replicationstate").fetchone()
    return str(history)


def last_sequence(connection: Connection) -> int:
    """Of the newest change there ever was."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'replicationchange'").fetchone()
    return int(found[0]) if found else 0


def transactions_after(connection: Connection, sequence: int) -> int:
    """How many transactions came after that change."""
    counted = "SELECT count(DISTINCT transactionnumber) FROM replicationchange WHERE sequence > ?"
    (count,) = connection.execute(counted, (sequence,)).fetchone()
    return int(count)


def has_open_end(connection: Connection) -> bool:
    """Whether the newest changes were made by another program, which does not end its transaction here."""
    asked = "SELECT max(transactionnumber) >= (SELECT number FROM replicationstate) FROM replicationchange"
    (is_open,) = connection.execute(asked).fetchone()
    return bool(is_open)


def seal(connection: Connection) -> None:
    connection.execute(SEAL)


def read_after(connection: Connection, sequence: int, limit: int, where: str) -> tuple[Transaction, ...]:
    """Whole transactions after that change, `limit` at most. DatabaseError if they are forgotten, or too large."""
    (forgotten,) = connection.execute("SELECT forgotten FROM replicationstate").fetchone()
    if sequence < forgotten:
        raise _needs_full_copy(f"the changes up to {forgotten} are kept no longer, {sequence} was asked for", where)
    found = connection.execute(
        "SELECT transactionnumber, sequence, tablename, pkid, row FROM replicationchange"
        " WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, MAX_CHANGES + 1),
    )
    transactions: list[Transaction] = []
    size = 0
    for number, group in groupby(found, key=lambda row: int(row[0])):
        changes = tuple(_change(*row[1:]) for row in group)
        size += len(changes)
        if size > MAX_CHANGES:  # the last one may be cut: it comes first the next time
            break
        transactions.append(Transaction(number, changes))
        if len(transactions) == limit:
            break
    found.close()
    if size > MAX_CHANGES and not transactions:
        raise _needs_full_copy(f"a transaction of more than {MAX_CHANGES} changes", where)
    return tuple(transactions)


def forget(connection: Connection, sequence: int) -> int:
    """Let go of the changes up to that one; how many that were. Whoever is not so far needs a full copy."""
    upto = min(sequence, last_sequence(connection))
    gone = connection.execute("DELETE FROM replicationchange WHERE sequence <= ?", (upto,)).rowcount
    connection.execute("UPDATE replicationstate SET forgotten = max(forgotten, ?)", (upto,))
    return gone


def take_snapshot(connection: Connection, where: str) -> Snapshot:
    """All replicated rows in the order they came. DatabaseError for more than MAX_CHANGES."""
    rows: list[Change] = []
    for table in REPLICATED.values():
        found = connection.execute(
            f"SELECT {', '.join(table.columns)} FROM {table.name} t{_replicated_only(table)} ORDER BY t.rowid LIMIT ?",
            (MAX_CHANGES + 1,),
        )
        for values in found:
            row = dict(zip(table.columns, values, strict=True))
            rows.append(Change(0, table.name, str(row[table.key]), row))
        if len(rows) > MAX_CHANGES:
            raise DatabaseError(f"more than {MAX_CHANGES} rows: too many for a full copy", where=where)
    deletions = tuple(connection.execute("SELECT * FROM localdeletion ORDER BY rowid").fetchall())
    return Snapshot(ReplicationPosition(history_of(connection), last_sequence(connection)), tuple(rows), deletions)


def _replicated_only(table: Table) -> str:
    if table.name == _STORES:
        return f" WHERE t.tkcertificateservice NOT IN ({PER_NODE_NUMBERS})"
    key = {certificate: "pkid"} | dict.fromkeys(CERTIFICATE_PARTS, "fkcertificate")
    if table not in key:
        return ""
    return (
        f" WHERE t.{key[table]} IN (SELECT m.fkcertificate FROM {_STORES} m"
        f" WHERE m.tkcertificateservice NOT IN ({PER_NODE_NUMBERS}))"
    )


def _change(sequence: int, table: str, key: str, row: str | None) -> Change:
    try:
        values = None if row is None else json.loads(row)
    except ValueError as error:
        raise _needs_full_copy(f"the row of change {sequence} is damaged", f"{table} {key}") from error
    return Change(sequence, table, key, values)


def _needs_full_copy(what: str, where: str) -> FullCopyNeeded:
    return FullCopyNeeded(what, where=where, mend="utils dbreplication reset: let the node be copied anew")


# --- a subscriber's side, on a connection that does not enforce foreign keys: a copy has the rows its original has


def position_of(connection: Connection) -> ReplicationPosition:
    row = connection.execute("SELECT history, position FROM replicationstate").fetchone()
    return ReplicationPosition(str(row[0]), int(row[1]))


def apply(connection: Connection, transaction: Transaction, history: str, where: str) -> bool:
    """Apply it, unless it is in the file already (False). DatabaseError if it is not the next of that history."""
    mine, position = connection.execute("SELECT history, position FROM replicationstate").fetchone()
    if mine != history:
        raise _needs_full_copy("is the copy of another publisher's database", where)
    if transaction.last <= position:
        return False
    if transaction.first > position + 1:
        raise _needs_full_copy(
            f"has the changes up to {position}, and the next ones begin at {transaction.first}", where
        )
    new = [
        change
        for change in transaction.changes
        if change.sequence > position and change.sequence not in transaction.lost
    ]
    _write(connection, new, where)
    connection.execute("UPDATE replicationstate SET position = ?", (transaction.last,))
    return True


def install_snapshot(connection: Connection, snapshot: Snapshot, where: str) -> None:
    """Put these rows in the place of all that are replicated; what is per node stays, its certificates too."""
    stays = {certificate.name: f"pkid IN {_KEPT}", certificatehashmap.name: f"fkcertificate IN {_KEPT}"}
    stays[_STORES] = f"tkcertificateservice IN ({PER_NODE_NUMBERS})"
    connection.execute("UPDATE replicationstate SET guarded = 0")
    for name in reversed(REPLICATED):
        connection.execute(f"DELETE FROM {name} WHERE NOT ({stays.get(name, '0')})")
    connection.execute("DELETE FROM localdeletion")
    _write(connection, snapshot.rows, where)
    connection.executemany("INSERT INTO localdeletion VALUES (?, ?, ?, ?, ?)", snapshot.deletions)
    connection.execute(
        "UPDATE replicationstate SET history = ?, position = ?, broken = NULL",
        (snapshot.position.history, snapshot.position.sequence),
    )


def _write(connection: Connection, changes: Iterable[Change], where: str) -> None:
    connection.execute("UPDATE replicationstate SET guarded = 0")
    touched: dict[str, None] = {}
    for change in changes:
        table = REPLICATED.get(change.table)
        if table is None:
            raise _needs_full_copy(f"a change of {change.table!r}, which is no replicated table", where)
        if change.row is not None and set(change.row) != set(table.columns):
            raise _needs_full_copy(f"a row of {table.name} with other columns: {', '.join(change.row)}", where)
        touched.update(dict.fromkeys(_certificates_touched(connection, table, change)))
        if change.row is None:
            _delete_row(connection, table, change.key)
        else:
            _put_row(connection, table, change.row)
    for key in touched:
        _settle_certificate(connection, key)
    connection.execute("UPDATE replicationstate SET guarded = 1")


def _certificates_touched(connection: Connection, table: Table, change: Change) -> Iterator[str]:
    if table is certificate:
        yield change.key
    elif table.name == _STORES or table in CERTIFICATE_PARTS:
        if change.row is not None:
            yield str(change.row["fkcertificate"])
        yield from (
            str(key)
            for (key,) in connection.execute(f"SELECT fkcertificate FROM {table.name} WHERE pkid = ?", (change.key,))
        )


def _put_row(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    key = table.key
    names = ", ".join(row)
    places = ", ".join(f":{name}" for name in row)
    values = ", ".join(f"{name} = excluded.{name}" for name in row)
    try:  # an upsert keeps the row's place in the order of upload
        connection.execute(
            f"INSERT INTO {table.name} ({names}) VALUES ({places}) ON CONFLICT ({key}) DO UPDATE SET {values}",
            dict(row),
        )
    except IntegrityError:  # a row that only this node has is in the way: the publisher's word counts
        connection.execute(f"INSERT OR REPLACE INTO {table.name} ({names}) VALUES ({places})", dict(row))
    if table.name == _STORES:
        connection.execute(
            "DELETE FROM localdeletion WHERE fkcertificate = ? AND tkcertificateservice = ?",
            (row["fkcertificate"], row["tkcertificateservice"]),
        )


def _delete_row(connection: Connection, table: Table, key: str) -> None:
    if table is not certificate:
        kept = f" AND fkcertificate NOT IN {_KEPT}" if table is certificatehashmap else ""
        connection.execute(f"DELETE FROM {table.name} WHERE {table.key} = ?{kept}", (key,))
        if table.name == _STORES:
            _forget_local_deletion(connection, key)
        return
    connection.execute(
        f"DELETE FROM {_STORES} WHERE fkcertificate = ? AND tkcertificateservice NOT IN ({PER_NODE_NUMBERS})", (key,)
    )
    connection.execute("DELETE FROM localdeletion WHERE fkcertificate = ?", (key,))


def _forget_local_deletion(connection: Connection, store_key: str) -> None:
    """The publisher took it out of that store, too."""
    for key, number in connection.execute("SELECT fkcertificate, tkcertificateservice FROM localdeletion").fetchall():
        if pkid(_STORES, key, number) == store_key:
            gone = "DELETE FROM localdeletion WHERE fkcertificate = ? AND tkcertificateservice = ?"
            connection.execute(gone, (key, number))


def _settle_certificate(connection: Connection, key: str) -> None:
    """A certificate in no store of this node goes, and one that the node's own hand took from some has fewer roles."""
    numbers = [
        n for (n,) in connection.execute(f"SELECT tkcertificateservice FROM {_STORES} WHERE fkcertificate = ?", (key,))
    ]
    if not numbers:
        connection.execute("DELETE FROM certificate WHERE pkid = ?", (key,))
        for part in CERTIFICATE_PARTS:
            connection.execute(f"DELETE FROM {part.name} WHERE fkcertificate = ?", (key,))
        return
    deleted_here = connection.execute("SELECT 1 FROM localdeletion WHERE fkcertificate = ?", (key,)).fetchone()
    only_here = not any(_UNITS[number] not in PER_NODE_UNITS for number in numbers if number in _UNITS)
    if deleted_here or only_here:
        _recompute_roles(connection, key, numbers)


def _recompute_roles(connection: Connection, key: str, numbers: Iterable[int]) -> None:
    name = certificatetrustrolemap.name
    connection.execute(f"DELETE FROM {name} WHERE fkcertificate = ?", (key,))
    for role in roles_of_units(_UNITS[number] for number in numbers if number in _UNITS):
        connection.execute(
            f"INSERT INTO {name} (pkid, fkcertificate, tktrustrole) VALUES (?, ?, ?)",
            (pkid(name, key, int(role)), key, int(role)),
        )


# --- the link's setting, kept in the subscriber's file


def link_setting(connection: Connection) -> LinkSetting:
    row = connection.execute("SELECT lag, paused, broken FROM replicationstate").fetchone()
    return LinkSetting(float(row[0]), bool(row[1]), None if row[2] is None else str(row[2]))


def set_link(connection: Connection, setting: LinkSetting) -> None:
    connection.execute(
        "UPDATE replicationstate SET lag = ?, paused = ?, broken = ?",
        (setting.lag_s, int(setting.paused), setting.broken),
    )
