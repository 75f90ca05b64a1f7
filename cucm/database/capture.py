"""What a node's file does by itself: the publisher's writes down every change, a subscriber's refuses them.

SQLite triggers do both, in the transaction of the change, so that SQL written by hand with any tool counts too. The
tables here are ours: how CUCM's Informix keeps such things is not public.
"""
# ruff: noqa: S608 - the SQL is put together from the names of our own tables

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from sqlite3 import Connection
from typing import Final

from cucm.database.schema import (
    TABLES,
    Table,
    certificate,
    certificatehashmap,
    certificateprocessnodemap,
    certificateservicecertificatemap,
    certificatetrustrolemap,
)
from cucm.roles import SERVICE_NUMBERS, CertificateUnit

PER_NODE_UNITS: Final = frozenset({CertificateUnit.CAPF_TRUST})
"""Stores that are each node's own (facts 5.5). That everything else replicates is [inferred]."""
PER_NODE_NUMBERS: Final = ", ".join(str(SERVICE_NUMBERS[unit]) for unit in PER_NODE_UNITS)
READ_ONLY_TEXT: Final = "the database of a subscriber is read-only"
WRITE_ELSEWHERE_TEXT: Final = "write on the publisher"
CERTIFICATE_PARTS: Final = (certificatehashmap, certificatetrustrolemap, certificateprocessnodemap)
"""Tables whose rows belong to a certificate, beside the map of its stores."""
REPLICATED: Final = TABLES
"""The replicated tables, by name; what a row points to comes before it."""

_TABLES: Final = (
    # one row; `number` is the transaction that the next change belongs to, `guarded` 0 only inside a transaction
    "CREATE TABLE replicationstate (id INTEGER PRIMARY KEY CHECK (id = 1), role TEXT NOT NULL, history TEXT NOT NULL,"
    " position INTEGER NOT NULL, number INTEGER NOT NULL, forgotten INTEGER NOT NULL, guarded INTEGER NOT NULL,"
    " lag REAL NOT NULL, paused INTEGER NOT NULL, broken TEXT)",
    # AUTOINCREMENT: a sequence number is never used twice, also after all changes were forgotten
    "CREATE TABLE replicationchange (sequence INTEGER PRIMARY KEY AUTOINCREMENT, transactionnumber INTEGER NOT NULL,"
    " tablename TEXT NOT NULL, pkid TEXT NOT NULL, operation TEXT NOT NULL, row TEXT)",
    "CREATE TABLE localdeletion (fkcertificate TEXT NOT NULL, tkcertificateservice INTEGER NOT NULL,"
    " certificate TEXT NOT NULL, servername TEXT NOT NULL, ipaddress TEXT,"
    " PRIMARY KEY (fkcertificate, tkcertificateservice))",
)
_GUARDED: Final = "(SELECT guarded FROM replicationstate) = 1"
_NUMBER: Final = "(SELECT number FROM replicationstate)"
_LOG: Final = "INSERT INTO replicationchange (transactionnumber, tablename, pkid, operation, row)"
_STORES: Final = certificateservicecertificatemap
_IN_REPLICATED_STORE: Final = (
    f"EXISTS (SELECT 1 FROM {_STORES.name} m WHERE m.fkcertificate = {{key}}"
    f" AND m.tkcertificateservice NOT IN ({PER_NODE_NUMBERS}))"
)


class DatabaseRole(StrEnum):
    """Whose data a node's file holds."""

    PUBLISHER = "publisher"
    """The cluster's own data: may be written, every change is kept for the others."""
    SUBSCRIBER = "subscriber"
    """A copy: read-only but for what is per node."""


class Operation(StrEnum):
    """What a change did to a row."""

    PUT = "U"
    DELETE = "D"


def install(connection: Connection, role: DatabaseRole) -> None:
    """Make the tables of replication and the triggers of that role."""
    for statement in _TABLES:
        connection.execute(statement)
    history = "lower(hex(randomblob(16)))" if role is DatabaseRole.PUBLISHER else "''"
    connection.execute(f"INSERT INTO replicationstate VALUES (1, ?, {history}, 0, 1, 0, 1, 0, 0, NULL)", (role.value,))
    triggers = _capture_triggers if role is DatabaseRole.PUBLISHER else _refusing_triggers
    for table in REPLICATED.values():
        for statement in triggers(table):
            connection.execute(statement)


@contextmanager
def unguarded(connection: Connection) -> Iterator[None]:
    """What is written in here is this node's alone: not captured on a publisher, allowed on a subscriber."""
    connection.execute("UPDATE replicationstate SET guarded = 0")
    yield  # after an error the transaction ends, and this with it
    connection.execute("UPDATE replicationstate SET guarded = 1")


def capture_deletion(connection: Connection, table: str, key: str) -> None:
    """Let the subscribers delete a row that the publisher has no longer. Nothing happens on a subscriber."""
    connection.execute(
        f"{_LOG} SELECT number, ?, ?, 'D', NULL FROM replicationstate WHERE guarded = 1 AND role = ?",
        (table, key, DatabaseRole.PUBLISHER.value),
    )


def forget_local_deletion(connection: Connection, key: str, number: int) -> None:
    connection.execute("DELETE FROM localdeletion WHERE fkcertificate = ? AND tkcertificateservice = ?", (key, number))


SEAL: Final = (
    "UPDATE replicationstate SET number = number + 1 WHERE number <="
    " (SELECT transactionnumber FROM replicationchange ORDER BY sequence DESC LIMIT 1)"
)
"""Begin a new transaction number if changes have the present one. A trigger cannot know where a transaction of another
program ended; run before and after each of ours, and when changes are read, this keeps them apart."""


def _refusing_triggers(table: Table) -> Iterator[str]:
    for action in ("INSERT", "UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER readonly_{table.name}_{action.lower()} BEFORE {action} ON {table.name} WHEN {_GUARDED}"
            f" BEGIN SELECT RAISE(ABORT, '{READ_ONLY_TEXT}: {WRITE_ELSEWHERE_TEXT}'); END"
        )


def _capture_triggers(table: Table) -> Iterator[str]:
    key = table.key
    put = f"{_put_row(table, 'NEW')} FROM (SELECT 1) WHERE {_concerns(table, 'NEW')};"
    if table is _STORES:
        # with its first replicated store a certificate that so far was this node's alone becomes everybody's
        put = f"{_whole_certificate()} {put}"
    gone = f"{_LOG} SELECT {_NUMBER}, '{table.name}', OLD.{key}, 'D', NULL WHERE {_concerned(table)}"
    moved = f"{gone} AND ({_moved(table, key)});"
    yield _capture(table, "INSERT", put)
    yield _capture(table, "UPDATE", f"{moved} {put}")
    yield _capture(table, "DELETE", f"{_clean_up(table)}{gone};")


def _capture(table: Table, action: str, body: str) -> str:
    return (
        f"CREATE TRIGGER capture_{table.name}_{action.lower()} AFTER {action} ON {table.name} WHEN {_GUARDED}"
        f" BEGIN {body} END"
    )


def _put_row(table: Table, row: str) -> str:
    values = ", ".join(f"'{column}', {row}.{column}" for column in table.columns)
    return f"{_LOG} SELECT {_NUMBER}, '{table.name}', {row}.{table.key}, 'U', json_object({values})"


def _concerns(table: Table, row: str) -> str:
    """Whether such a row is the others' business: not if its certificate lies in stores of this node only."""
    if table is _STORES:
        return f"{row}.tkcertificateservice NOT IN ({PER_NODE_NUMBERS})"
    if table is certificate:
        return _IN_REPLICATED_STORE.format(key=f"{row}.pkid")
    if table in CERTIFICATE_PARTS:
        return _IN_REPLICATED_STORE.format(key=f"{row}.fkcertificate")
    return "1"


def _concerned(table: Table) -> str:
    """Of a row that goes nobody can tell any more; deleting what is not there does no harm."""
    return _concerns(table, "OLD") if table is _STORES else "1"


def _moved(table: Table, key: str) -> str:
    moved = f"OLD.{key} IS NOT NEW.{key}"
    return f"{moved} OR NOT ({_concerns(table, 'NEW')})" if table is _STORES else moved


def _whole_certificate() -> str:
    owned = [(certificate, "pkid"), *((table, "fkcertificate") for table in CERTIFICATE_PARTS)]
    return " ".join(
        f"{_put_row(table, 't')} FROM {table.name} t"
        f" WHERE t.{column} = NEW.fkcertificate AND {_concerns(_STORES, 'NEW')};"
        for table, column in owned
    )


def _clean_up(table: Table) -> str:
    """Other tools do not enforce foreign keys: the rows of a deleted certificate must go all the same."""
    if table is not certificate:
        return ""
    return "".join(
        f"DELETE FROM {part.name} WHERE fkcertificate = OLD.pkid; " for part in (_STORES, *CERTIFICATE_PARTS)
    )
