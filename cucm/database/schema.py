"""Tables of a node's database, with Cisco's lower-case names.

`certificate` and the maps around it, `typecertificateservice` and `processconfig` with their columns: facts 4.3, 5.4.
The other tables, and columns those pages do not list, follow the data dictionary's habits (`pkid`, `fk...` to a
`pkid`, `tk...` to an `enum`) [recall]; `processnode.ipv4address` and the columns of `certificateprocessnodemap` are
ours.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from sqlalchemy import Column, Connection, ForeignKey, Integer, MetaData, Table, Text, UniqueConstraint
from sqlalchemy.dialects.sqlite import insert

from cucm.roles import SERVICE_NUMBERS, TrustRole

metadata: Final = MetaData()
PKID_NAMESPACE: Final = uuid.UUID("0b6a3e0e-3f4a-5c0e-9d0a-2b1c7e5f4a10")


def pkid(table: str, *key: object) -> str:
    """The row's UUID, derived from what identifies it: the same row has the same pkid in every run."""
    return str(uuid.uuid5(PKID_NAMESPACE, "\0".join((table, *map(str, key)))))


def upsert(connection: Connection, table: Table, **values: Any) -> None:
    """Insert the row, or give the row of that primary key these values."""
    key = [column.name for column in table.primary_key]
    rest = {name: value for name, value in values.items() if name not in key}
    statement = insert(table).values(**values)
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=rest))


def _pkid() -> Column[str]:
    return Column("pkid", Text, primary_key=True)


def _text(name: str, *, nullable: bool = False, unique: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable, unique=unique)


def _foreign(name: str, target: Table, *, nullable: bool = False) -> Column[str]:
    """An `fk...` column; rows go with what they point to, unless they may stand alone."""
    rule = "SET NULL" if nullable else "CASCADE"
    return Column(name, Text, ForeignKey(target.c.pkid, ondelete=rule), nullable=nullable)


def _type_key(name: str, target: Table) -> Column[int]:
    return Column(name, Integer, ForeignKey(target.c.enum), nullable=False)


def _type_table(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("enum", Integer, primary_key=True),
        _text("name", unique=True),
        _text("moniker", unique=True),
    )


typecertificateservice: Final = _type_table("typecertificateservice")
typetrustrole: Final = _type_table("typetrustrole")
typeservice: Final = _type_table("typeservice")
typemodel: Final = _type_table("typemodel")
typedevicesecuritymode: Final = _type_table("typedevicesecuritymode")

certificate: Final = Table(
    "certificate",
    metadata,
    _pkid(),
    _text("servername"),
    _text("subjectname"),
    _text("issuername"),
    _text("serialnumber"),
    _text("certificate"),
    _text("ipv4address", nullable=True),
    _text("ipv6address", nullable=True),
    Column("timetolive", Integer, nullable=True),
)
certificateservicecertificatemap: Final = Table(
    "certificateservicecertificatemap",
    metadata,
    _pkid(),
    _foreign("fkcertificate", certificate),
    _type_key("tkcertificateservice", typecertificateservice),
    UniqueConstraint("fkcertificate", "tkcertificateservice"),
)
certificatetrustrolemap: Final = Table(
    "certificatetrustrolemap",
    metadata,
    _pkid(),
    _foreign("fkcertificate", certificate),
    _type_key("tktrustrole", typetrustrole),
    UniqueConstraint("fkcertificate", "tktrustrole"),
)
certificateprocessnodemap: Final = Table(
    "certificateprocessnodemap",
    metadata,
    _pkid(),
    _foreign("fkcertificate", certificate),
    _type_key("tkcertificateservice", typecertificateservice),
    _text("servername"),
    _text("ipv4address", nullable=True),
    _text("ipv6address", nullable=True),
    UniqueConstraint("fkcertificate", "tkcertificateservice", "servername"),
)
certificatehashmap: Final = Table(
    "certificatehashmap",
    metadata,
    _pkid(),
    _foreign("fkcertificate", certificate),
    _text("certificatehash"),
)

processnode: Final = Table(
    "processnode",
    metadata,
    _pkid(),
    _text("name", unique=True),
    _text("description"),
    Column("nodeid", Integer, nullable=False, unique=True),
    _text("ipv4address", nullable=True),
    _text("ipv6name", nullable=True),
)
processnodeservice: Final = Table(
    "processnodeservice",
    metadata,
    _pkid(),
    _foreign("fkprocessnode", processnode),
    _type_key("tkservice", typeservice),
    _text("enable"),
    _text("isactive"),
    UniqueConstraint("fkprocessnode", "tkservice"),
)
processconfig: Final = Table(
    "processconfig",
    metadata,
    _pkid(),
    _text("paramname", unique=True),
    _text("paramvalue"),
)

callmanager: Final = Table(
    "callmanager",
    metadata,
    _pkid(),
    _text("name", unique=True),
    _text("description"),
    _foreign("fkprocessnode", processnode),
)
callmanagergroup: Final = Table("callmanagergroup", metadata, _pkid(), _text("name", unique=True))
callmanagergroupmember: Final = Table(
    "callmanagergroupmember",
    metadata,
    _pkid(),
    _foreign("fkcallmanagergroup", callmanagergroup),
    _foreign("fkcallmanager", callmanager),
    Column("priority", Integer, nullable=False),
    UniqueConstraint("fkcallmanagergroup", "fkcallmanager"),
    UniqueConstraint("fkcallmanagergroup", "priority"),
)
devicepool: Final = Table(
    "devicepool",
    metadata,
    _pkid(),
    _text("name", unique=True),
    _foreign("fkcallmanagergroup", callmanagergroup),
)
securityprofile: Final = Table(
    "securityprofile",
    metadata,
    _pkid(),
    _text("name", unique=True),
    _type_key("tkdevicesecuritymode", typedevicesecuritymode),
)
enduser: Final = Table(
    "enduser",
    metadata,
    _pkid(),
    _text("userid", unique=True),
    _text("digestpassword"),
)
"""Who may answer a digest challenge. The column of the password is ours: Cisco keeps it encrypted elsewhere."""
device: Final = Table(
    "device",
    metadata,
    _pkid(),
    _text("name", unique=True),
    _text("description"),
    _type_key("tkmodel", typemodel),
    _foreign("fkdevicepool", devicepool),
    _foreign("fksecurityprofile", securityprofile),
    _foreign("fkenduser", enduser, nullable=True),
    Column("tkcertificateoperation", Integer, nullable=False),
)
"""`fkenduser` is the digest user here (ours); the numbers of `tkcertificateoperation` are UNKNOWN, 0 is none."""

SERVICES: Final = (
    (0, "Cisco CallManager", "CallManager"),
    (1, "Cisco Tftp", "TFTP"),
    (2, "Cisco Certificate Authority Proxy Function", "CAPF"),
    (3, "Cisco Trust Verification Service", "TVS"),
)
"""(enum, name, moniker) of the services a node may run. The numbers from 2 on are UNKNOWN: these are ours."""
CISCO_ROLE_NAMES: Final = {TrustRole.TVS: "AUTHENTICATION_AUTHORIZATION"}
"""Names of `typetrustrole` that differ from those of `TrustRole` (facts 5.1)."""
SECURITY_MODES: Final = ((1, "Non Secure"), (2, "Authenticated"), (3, "Encrypted"))
"""deviceSecurityMode (facts 7.7)."""


def security_profile_pkid(mode: int) -> str:
    return pkid("securityprofile", mode)


def fill_type_tables(connection: Connection) -> None:
    """The rows that are the same on every node."""
    names = [(role, CISCO_ROLE_NAMES.get(role, role.name)) for role in TrustRole]
    roles = [{"enum": int(role), "name": name, "moniker": f"ROLE_{name}"} for role, name in names]
    units = [{"enum": number, "name": unit.value, "moniker": unit.name} for unit, number in SERVICE_NUMBERS.items()]
    services = [{"enum": enum, "name": name, "moniker": moniker} for enum, name, moniker in SERVICES]
    modes = [{"enum": mode, "name": name, "moniker": name.replace(" ", "")} for mode, name in SECURITY_MODES]
    profiles = [
        {"pkid": security_profile_pkid(mode), "name": f"{name} Profile", "tkdevicesecuritymode": mode}
        for mode, name in SECURITY_MODES
    ]
    for table, rows in (
        (typetrustrole, roles),
        (typecertificateservice, units),
        (typeservice, services),
        (typedevicesecuritymode, modes),
        (securityprofile, profiles),
    ):
        connection.execute(insert(table), rows)
