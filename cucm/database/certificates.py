"""Rows of the certificate tables: who may come into which store, and which roles that gives.

A certificate (issuer and serial) is one row however many stores it lies in; its roles are recomputed from all of
them whenever one changes (facts 5.3 to 5.5).
"""
# ruff: noqa: S608 - the SQL is put together from the names of our own tables; values are bound

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import field
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address
from sqlite3 import Connection
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cucm.database.capture import forget_local_deletion
from cucm.database.schema import (
    certificate,
    certificatehashmap,
    certificateprocessnodemap,
    certificateservicecertificatemap,
    certificatetrustrolemap,
    pkid,
    upsert,
)
from cucm.errors import CertificateRefused, DatabaseError, UsageError
from cucm.identity import CertificateSummary, describe, load_certificate
from cucm.names import cisco_name, database_name
from cucm.records import dataclass
from cucm.roles import SERVICE_NUMBERS, CertificateUnit, TrustRole, roles_of_units

_MAX_TTL_S: Final = 0xFFFF_FFFF
"""What the TTL of a TVS answer can hold (facts 2.3)."""
UNITS: Final = {number: unit for unit, number in SERVICE_NUMBERS.items()}
_STORED: Final = "SELECT c.pkid, c.certificate, c.timetolive, {place} FROM certificate c"
_PLACE: Final = "{0}.servername, coalesce({0}.ipv4address, {0}.ipv6address)"
_OF_ALL: Final = _STORED.format(place=_PLACE.format("c")) + " ORDER BY c.rowid"
_OF_TRUST_STORE: Final = (
    _STORED.format(place=_PLACE.format("c")) + " JOIN certificateservicecertificatemap s ON s.fkcertificate = c.pkid"
    " WHERE s.tkcertificateservice = ? ORDER BY c.rowid"
)
_OF_OWN_UNIT: Final = (
    _STORED.format(place=_PLACE.format("n")) + " JOIN certificateprocessnodemap n ON n.fkcertificate = c.pkid"
    " WHERE n.tkcertificateservice = ? ORDER BY c.rowid, n.rowid"
)
"""The order is that of the uploads. An own certificate that several nodes share comes once for each of them."""


class PutOutcome(StrEnum):
    """What became of an uploaded certificate."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    IGNORED = "ignored"
    """Another certificate of the same CN stays, because it starts later or at the same moment (facts 5.5, F11)."""


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """A certificate, the stores it lies in, the roles this gives; `ttl_s` None: the default applies (facts 5.4)."""

    der: bytes = field(repr=False)
    units: tuple[CertificateUnit, ...]
    roles: tuple[TrustRole, ...]
    server_name: str
    ip_address: str | None
    ttl_s: int | None


def name_in_store(known: CertificateSummary) -> str:
    """What a store keeps one certificate of: the CN, or the whole subject of a certificate without CN."""
    return known.common_name or known.subject


def put(
    connection: Connection,
    der: bytes,
    unit: CertificateUnit,
    server_name: str,
    ip: str | None,
    *,
    moment: float,
    ttl_s: int | None,
) -> PutOutcome:
    """Put a certificate into a store; see `NodeDatabase.put_certificate`."""
    if ttl_s is not None and not 0 <= ttl_s <= _MAX_TTL_S:
        raise UsageError(f"a time to live of {ttl_s} seconds", mend=f"use 0 to {_MAX_TTL_S}")
    known = describe(der)
    if unit.is_trust_store:
        outcome = _admit_trusted(connection, known, unit, moment)
        if outcome in (PutOutcome.IGNORED, PutOutcome.UNCHANGED):
            return outcome
    else:
        outcome = _release_own(connection, known, unit, server_name)
    key = _store_row(connection, known, unit, server_name, ip, ttl_s)
    _put_into_unit(connection, key, unit)
    if not unit.is_trust_store:
        _give_to_node(connection, key, unit, server_name, ip)
    _recompute_roles(connection, key)
    return outcome


def delete_from_store(connection: Connection, unit: CertificateUnit, name: str) -> None:
    """Take the certificate of that CN out of the store. CertificateRefused if there is none."""
    keys = [key for key, known in in_store(connection, unit) if name_in_store(known) == name]
    if not keys:
        raise CertificateRefused(f"there is no certificate of {name!r}", where=str(unit))
    for key in keys:
        _remove_from_unit(connection, key, unit)


def stored(connection: Connection, unit: CertificateUnit | None) -> tuple[StoredCertificate, ...]:
    """All certificates, or those of one store; see `NodeDatabase.certificates`."""
    rows = _rows_of(connection, unit)
    units = _grouped(connection, "certificateservicecertificatemap", "tkcertificateservice")
    roles = _grouped(connection, "certificatetrustrolemap", "tktrustrole")
    try:
        return tuple(
            StoredCertificate(
                der=der_of(pem),
                units=tuple(UNITS[number] for number in units[key]),
                roles=tuple(TrustRole(number) for number in roles[key]),
                server_name=server_name,
                ip_address=address,
                ttl_s=ttl_s,
            )
            for key, pem, ttl_s, server_name, address in rows
        )
    except (ValueError, KeyError) as error:
        raise _senseless(error) from error


def _rows_of(
    connection: Connection, unit: CertificateUnit | None
) -> list[tuple[str, str, int | None, str, str | None]]:
    if unit is None:
        return connection.execute(_OF_ALL).fetchall()
    chosen = _OF_TRUST_STORE if unit.is_trust_store else _OF_OWN_UNIT
    return connection.execute(chosen, (SERVICE_NUMBERS[unit],)).fetchall()


def _grouped(connection: Connection, table: str, column: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for key, number in connection.execute(f"SELECT fkcertificate, {column} FROM {table} ORDER BY {column}"):
        found[key].append(number)
    return found


def der_of(pem: str) -> bytes:
    """DER of a row's certificate. DatabaseError for what is none: SQL written by hand can put anything there."""
    try:
        return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    except (ValueError, AttributeError) as error:
        raise _senseless(error) from error


def _senseless(error: Exception) -> DatabaseError:
    return DatabaseError(
        f"a row of the certificate tables makes no sense: {str(error)[:120]}",
        where="certificate",
        mend="mend or delete it",
    )


def _admit_trusted(
    connection: Connection, known: CertificateSummary, unit: CertificateUnit, moment: float
) -> PutOutcome:
    """One certificate per CN and store, replaced only by one that starts later; none that expired (facts 5.5)."""
    name = name_in_store(known)
    if known.not_after < moment:
        expiry = datetime.fromtimestamp(known.not_after, UTC)
        raise CertificateRefused(
            f"the certificate of {name!r} expired at {expiry:%Y-%m-%d %H:%M:%S} UTC",
            where=str(unit),
            mend="regenerate it where it comes from and upload the new one (facts 11: F12)",
        )
    others = [(key, old) for key, old in in_store(connection, unit) if name_in_store(old) == name]
    if any(old.der == known.der for _, old in others):
        return PutOutcome.UNCHANGED
    if any(old.not_before >= known.not_before for _, old in others):
        return PutOutcome.IGNORED
    for key, _ in others:
        _remove_from_unit(connection, key, unit)
    return PutOutcome.REPLACED if others else PutOutcome.ADDED


def _release_own(
    connection: Connection, known: CertificateSummary, unit: CertificateUnit, server_name: str
) -> PutOutcome:
    """A node has one own certificate per unit: the new one takes the place of the old, whatever its dates."""
    mine = "FROM certificateprocessnodemap WHERE tkcertificateservice = ? AND servername = ?"
    whose = (SERVICE_NUMBERS[unit], server_name)
    keys = _first_column(connection, f"SELECT fkcertificate {mine}", *whose)
    if not keys:
        return PutOutcome.ADDED
    new_key = _key(known)
    present = _pem(connection, new_key)
    is_same = new_key in keys and present is not None and der_of(present) == known.der
    for key in keys:
        if key != new_key:
            connection.execute(f"DELETE {mine} AND fkcertificate = ?", (*whose, key))
            _leave_if_unused(connection, key, unit)
    return PutOutcome.UNCHANGED if is_same else PutOutcome.REPLACED


def _leave_if_unused(connection: Connection, key: str, unit: CertificateUnit) -> None:
    """Take an own certificate out of its unit when no node uses it there any more."""
    used = "SELECT 1 FROM certificateprocessnodemap WHERE fkcertificate = ? AND tkcertificateservice = ?"
    if connection.execute(used, (key, SERVICE_NUMBERS[unit])).fetchone() is None:
        _remove_from_unit(connection, key, unit)


def _store_row(
    connection: Connection,
    known: CertificateSummary,
    unit: CertificateUnit,
    server_name: str,
    ip: str | None,
    ttl_s: int | None,
) -> str:
    """The row of this issuer and serial. A node's own certificate says where it lives; a trusted copy does not.

    Another certificate with both the same gives way only if it is the own one that this one replaces, and nothing else.
    """
    is_own = not unit.is_trust_store
    key = _key(known)
    present = _pem(connection, key)
    is_same = present is not None and der_of(present) == known.der
    if is_same and (not is_own or _is_of_other_nodes(connection, key, server_name)):
        return key
    if present is not None and not (is_own and _is_only_own(connection, key, unit, server_name)):
        raise CertificateRefused(
            "another certificate with the same issuer and serial number is stored",
            where=known.subject,
            mend="delete that one from all stores first",
        )
    names = load_certificate(known.der)
    upsert(
        connection,
        certificate,
        pkid=key,
        servername=server_name,
        subjectname=database_name(names.subject),
        issuername=database_name(names.issuer),
        serialnumber=known.serial.hex(),
        certificate=names.public_bytes(Encoding.PEM).decode("ascii"),
        timetolive=ttl_s,
        **_address_columns(ip),
    )
    upsert(
        connection,
        certificatehashmap,
        pkid=pkid("certificatehashmap", key),
        fkcertificate=key,
        certificatehash=base64.b64encode(hashlib.sha1(known.der).digest()).decode("ascii"),
    )
    return key


def _put_into_unit(connection: Connection, key: str, unit: CertificateUnit) -> None:
    number = SERVICE_NUMBERS[unit]
    row = pkid("certificateservicecertificatemap", key, number)
    upsert(connection, certificateservicecertificatemap, pkid=row, fkcertificate=key, tkcertificateservice=number)
    forget_local_deletion(connection, key, number)


def _give_to_node(connection: Connection, key: str, unit: CertificateUnit, server_name: str, ip: str | None) -> None:
    number = SERVICE_NUMBERS[unit]
    upsert(
        connection,
        certificateprocessnodemap,
        pkid=pkid("certificateprocessnodemap", key, number, server_name),
        fkcertificate=key,
        tkcertificateservice=number,
        servername=server_name,
        **_address_columns(ip),
    )


def _is_of_other_nodes(connection: Connection, key: str, server_name: str) -> bool:
    others = "SELECT 1 FROM certificateprocessnodemap WHERE fkcertificate = ? AND servername != ?"
    return connection.execute(others, (key, server_name)).fetchone() is not None


def _is_only_own(connection: Connection, key: str, unit: CertificateUnit, server_name: str) -> bool:
    """Whether the certificate is that node's in that unit, nobody else's, and in no other store."""
    owners = _first_column(connection, "SELECT servername FROM certificateprocessnodemap WHERE fkcertificate = ?", key)
    return _stores_of(connection, key) == [SERVICE_NUMBERS[unit]] and owners == [server_name]


def _stores_of(connection: Connection, key: str) -> list[int]:
    stores = "SELECT tkcertificateservice FROM certificateservicecertificatemap WHERE fkcertificate = ?"
    return _first_column(connection, stores, key)


def _first_column(connection: Connection, statement: str, *values: object) -> list[Any]:
    return [row[0] for row in connection.execute(statement, values)]


def _key(known: CertificateSummary) -> str:
    """Names with the same parts in another order are other names, which the column `issuername` does not show."""
    issuer = cisco_name(load_certificate(known.der).issuer)
    return pkid("certificate", issuer, known.serial.hex())


def _pem(connection: Connection, key: str) -> str | None:
    found = connection.execute("SELECT certificate FROM certificate WHERE pkid = ?", (key,)).fetchone()
    return None if found is None else str(found[0])


def in_store(connection: Connection, unit: CertificateUnit) -> Iterable[tuple[str, CertificateSummary]]:
    """(pkid, what it is) of every certificate in the store, once each."""
    return [
        (key, describe(der_of(pem))) for key, pem, *_ in connection.execute(_OF_TRUST_STORE, (SERVICE_NUMBERS[unit],))
    ]


def _remove_from_unit(connection: Connection, key: str, unit: CertificateUnit) -> None:
    for table in (certificateservicecertificatemap, certificateprocessnodemap):
        here = f"DELETE FROM {table.name} WHERE fkcertificate = ? AND tkcertificateservice = ?"
        connection.execute(here, (key, SERVICE_NUMBERS[unit]))
    _recompute_roles(connection, key)


def _recompute_roles(connection: Connection, key: str) -> None:
    """Roles follow from all stores the certificate is still in; in none, the row goes too."""
    numbers = _stores_of(connection, key)
    connection.execute("DELETE FROM certificatetrustrolemap WHERE fkcertificate = ?", (key,))
    if not numbers:
        connection.execute("DELETE FROM certificate WHERE pkid = ?", (key,))
    for role in roles_of_units(UNITS[number] for number in numbers if number in UNITS):
        upsert(
            connection,
            certificatetrustrolemap,
            pkid=pkid("certificatetrustrolemap", key, int(role)),
            fkcertificate=key,
            tktrustrole=int(role),
        )


def _address_columns(ip: str | None) -> dict[str, str | None]:
    return dict(zip(("ipv4address", "ipv6address"), split_address(ip), strict=True))


def split_address(ip: str | None) -> tuple[str | None, str | None]:
    """(IPv4 text, IPv6 text), one of them None. UsageError if it is no address."""
    if ip is None:
        return None, None
    try:
        is_v4 = ip_address(ip).version == 4
    except ValueError as error:
        raise UsageError(f"{ip!r} is no IP address", mend="write it as 127.0.11.32") from error
    return (ip, None) if is_v4 else (None, ip)
