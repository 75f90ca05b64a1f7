"""Certificates deleted on one node only, as always before 11.0 (facts 5.5): remembered, for they come back."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from sqlalchemy import Connection, select

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
from cucm.database.schema import certificate, certificateservicecertificatemap, certificatetrustrolemap, pkid
from cucm.errors import CertificateRefused
from cucm.identity import describe
from cucm.roles import SERVICE_NUMBERS, CertificateUnit, TrustRole


def delete_here(connection: Connection, unit: CertificateUnit, name: str) -> None:
    """Delete it from this node's store and remember it, unless the store is per node anyway. CertificateRefused."""
    columns = (
        certificate.c.certificate,
        certificate.c.servername,
        certificate.c.ipv4address,
        certificate.c.ipv6address,
    )
    found = [key for key, known in in_store(connection, unit) if name_in_store(known) == name]
    for key in found if unit not in PER_NODE_UNITS else ():
        pem, server, ipv4, ipv6 = connection.execute(select(*columns).where(certificate.c.pkid == key)).one()
        connection.exec_driver_sql(
            "INSERT OR REPLACE INTO localdeletion VALUES (?, ?, ?, ?, ?)",
            (key, SERVICE_NUMBERS[unit], pem, server, ipv4 or ipv6),
        )
    delete_from_store(connection, unit, name)


def deleted_here(connection: Connection) -> tuple[tuple[CertificateUnit, str], ...]:
    """(store, name) of what `delete_here` took away and nobody has put back since."""
    rows = connection.exec_driver_sql(
        "SELECT tkcertificateservice, certificate FROM localdeletion ORDER BY rowid"
    ).all()
    return tuple((UNITS[number], _name(pem)) for number, pem in rows)


def restore(
    connection: Connection, moment: float, wanted: Collection[tuple[CertificateUnit, str]] | None
) -> tuple[tuple[CertificateUnit, str], ...]:
    """Put back what `delete_here` took away, or what of it is `wanted`; (store, name) of what came back.

    What expired meanwhile stays away.
    """
    rows = connection.exec_driver_sql(
        "SELECT tkcertificateservice, certificate, servername, ipaddress FROM localdeletion ORDER BY rowid"
    ).all()
    back = []
    for number, pem, server, ip in rows:
        if wanted is not None and (UNITS[number], _name(pem)) not in wanted:
            continue
        connection.exec_driver_sql(
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
    deleted = connection.exec_driver_sql(
        "SELECT fkcertificate, certificate FROM localdeletion WHERE tkcertificateservice = ?", (number,)
    ).all()
    for key in [key for key, pem in deleted if _name(pem) == name]:
        forget_local_deletion(connection, key, number)
        table = certificateservicecertificatemap.name
        capture_deletion(connection, table, pkid(table, key, number))
        for role in set(TrustRole) - _roles(connection, key):
            table = certificatetrustrolemap.name
            capture_deletion(connection, table, pkid(table, key, int(role)))


def _roles(connection: Connection, key: str) -> set[TrustRole]:
    roles = certificatetrustrolemap.c
    return {TrustRole(n) for n in connection.scalars(select(roles.tktrustrole).where(roles.fkcertificate == key))}


def _name(pem: str) -> str:
    return name_in_store(describe(der_of(pem)))
