"""Certificates deleted on one node only, as always before 11.0 (facts 5.5): remembered, for they come back."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from sqlite3 import Connection

from cucm.database.capture import PER_NODE_UNITS, capture_deletion, forget_local_deletion
from cucm.database.certificates import (
    UNITS,
    PutOutcome,
    delete_from_store,
    der_of,
    in_store,
    name_in_store,
    put,
)
from cucm.database.schema import certificateservicecertificatemap, certificatetrustrolemap, pkid
from cucm.errors import CertificateRefused
from cucm.identity import describe
from cucm.roles import SERVICE_NUMBERS, CertificateUnit, TrustRole


def delete_here(connection: Connection, unit: CertificateUnit, name: str) -> None:
    """Delete it from this node's store and remember it, unless the store is per node anyway. CertificateRefused."""
    columns = "SELECT certificate, servername, coalesce(ipv4address, ipv6address) FROM certificate WHERE pkid = ?"
    found = [key for key, known in in_store(connection, unit) if name_in_store(known) == name]
    for key in found if unit not in PER_NODE_UNITS else ():
        pem, server, address = connection.execute(columns, (key,)).fetchone()
        connection.execute(
            "INSERT OR REPLACE INTO localdeletion VALUES (?, ?, ?, ?, ?)",
            (key, SERVICE_NUMBERS[unit], pem, server, address),
        )
    delete_from_store(connection, unit, name)


def deleted_here(connection: Connection) -> tuple[tuple[CertificateUnit, str], ...]:
    """(store, name) of what `delete_here` took away and nobody has put back since."""
    rows = connection.execute("SELECT tkcertificateservice, certificate FROM localdeletion ORDER BY rowid").fetchall()
    return tuple((UNITS[number], _name(pem)) for number, pem in rows)


def restore(
    connection: Connection, moment: float, wanted: Collection[tuple[CertificateUnit, str]] | None
) -> tuple[tuple[CertificateUnit, str], ...]:
    """Put back what `delete_here` took away, or what of it is `wanted`; (store, name) of what came back.

    What expired meanwhile stays away.
    """
    rows = connection.execute(
        "SELECT tkcertificateservice, certificate, servername, ipaddress FROM localdeletion ORDER BY rowid"
    ).fetchall()
    back = []
    for number, pem, server, ip in rows:
        if wanted is not None and (UNITS[number], _name(pem)) not in wanted:
            continue
        connection.execute(
            "DELETE FROM localdeletion WHERE tkcertificateservice = ? AND certificate = ?", (number, pem)
        )
        with suppress(CertificateRefused):
            outcome = put(connection, der_of(pem), UNITS[number], server, ip, moment=moment, ttl_s=None)
            if outcome is not PutOutcome.IGNORED:
                back.append((UNITS[number], _name(pem)))
    return tuple(back)


def supersede(connection: Connection, der: bytes, unit: CertificateUnit) -> None:
    """A publisher's store has a new certificate of a CN it deleted here: the subscribers' old one gives way, too."""
    number, name = SERVICE_NUMBERS[unit], name_in_store(describe(der))
    deleted = connection.execute(
        "SELECT fkcertificate, certificate FROM localdeletion WHERE tkcertificateservice = ?", (number,)
    ).fetchall()
    for key in [key for key, pem in deleted if _name(pem) == name]:
        forget_local_deletion(connection, key, number)
        table = certificateservicecertificatemap.name
        capture_deletion(connection, table, pkid(table, key, number))
        for role in set(TrustRole) - _roles(connection, key):
            table = certificatetrustrolemap.name
            capture_deletion(connection, table, pkid(table, key, int(role)))


def _roles(connection: Connection, key: str) -> set[TrustRole]:
    held = connection.execute("SELECT tktrustrole FROM certificatetrustrolemap WHERE fkcertificate = ?", (key,))
    return {TrustRole(number) for (number,) in held}


def _name(pem: str) -> str:
    return name_in_store(describe(der_of(pem)))
