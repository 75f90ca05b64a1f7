"""Tables of a node's database, with Cisco's lower-case names.

`certificate` and the maps around it, `typecertificateservice` and `processconfig` with their columns: facts 4.3, 5.4.
The other tables, and columns those pages do not list, follow the data dictionary's habits (`pkid`, `fk...` to a
`pkid`, `tk...` to an `enum`) [recall]; `processnode.ipv4address` and the columns of `certificateprocessnodemap` are
ours.
"""
# ruff: noqa: S608 - the SQL is put together from the names of our own tables; values are bound

from __future__ import annotations

import uuid
from functools import lru_cache
from sqlite3 import Connection
from typing import Any, Final

from cucm.records import dataclass
from cucm.roles import SERVICE_NUMBERS, TrustRole

PKID_NAMESPACE: Final = uuid.UUID("0b6a3e0e-3f4a-5c0e-9d0a-2b1c7e5f4a10")


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """`definitions` are SQLite's, the columns first, the first of them the primary key."""

    name: str
    columns: tuple[str, ...]
    definitions: tuple[str, ...]

    @property
    def key(self) -> str:
        """The primary key's column: `pkid`, or `enum` of a type table."""
        return self.columns[0]

    @property
    def create_statement(self) -> str:
        return f"CREATE TABLE {self.name} ({', '.join(self.definitions)})"


TABLES: Final[dict[str, Table]] = {}
"""By name; what a row points to comes before it."""


def pkid(table: str, *key: object) -> str:
    """The row's UUID, derived from what identifies it: the same row has the same pkid in every run."""
    return str(uuid.uuid5(PKID_NAMESPACE, "\0".join((table, *map(str, key)))))


def upsert(connection: Connection, table: Table, **values: Any) -> None:
    """Insert the row, or give the row of that primary key these values."""
    connection.execute(_upsert_statement(table, tuple(values)), tuple(values.values()))


@lru_cache(maxsize=64)
def _upsert_statement(table: Table, columns: tuple[str, ...]) -> str:
    rest = ", ".join(f"{name} = excluded.{name}" for name in columns if name != table.key)
    places = ", ".join("?" * len(columns))
    return (
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({places})"
        f" ON CONFLICT ({table.key}) DO UPDATE SET {rest}"
    )


_PKID: Final = "pkid TEXT NOT NULL PRIMARY KEY"


def _table(name: str, *definitions: str) -> Table:
    columns = tuple(text.partition(" ")[0] for text in definitions if not text.startswith("UNIQUE "))
    table = TABLES[name] = Table(name, columns, definitions)
    return table


def _text(name: str, *, nullable: bool = False, unique: bool = False) -> str:
    return f"{name} TEXT{'' if nullable else ' NOT NULL'}{' UNIQUE' if unique else ''}"


def _number(name: str, *, nullable: bool = False, unique: bool = False) -> str:
    return f"{name} INTEGER{'' if nullable else ' NOT NULL'}{' UNIQUE' if unique else ''}"


def _foreign(name: str, target: Table, *, nullable: bool = False) -> str:
    """An `fk...` column; rows go with what they point to, unless they may stand alone."""
    rule = "SET NULL" if nullable else "CASCADE"
    return f"{_text(name, nullable=nullable)} REFERENCES {target.name} (pkid) ON DELETE {rule}"


def _type_key(name: str, target: Table) -> str:
    return f"{name} INTEGER NOT NULL REFERENCES {target.name} (enum)"


def _type_table(name: str) -> Table:
    return _table(name, "enum INTEGER NOT NULL PRIMARY KEY", _text("name", unique=True), _text("moniker", unique=True))


typecertificateservice: Final = _type_table("typecertificateservice")
typetrustrole: Final = _type_table("typetrustrole")
typeservice: Final = _type_table("typeservice")
typemodel: Final = _type_table("typemodel")
typedevicesecuritymode: Final = _type_table("typedevicesecuritymode")

certificate: Final = _table(
    "certificate",
    _PKID,
    _text("servername"),
    _text("subjectname"),
    _text("issuername"),
    _text("serialnumber"),
    _text("certificate"),
    _text("ipv4address", nullable=True),
    _text("ipv6address", nullable=True),
    _number("timetolive", nullable=True),
)
certificateservicecertificatemap: Final = _table(
    "certificateservicecertificatemap",
    _PKID,
    _foreign("fkcertificate", certificate),
    _type_key("tkcertificateservice", typecertificateservice),
    "UNIQUE (fkcertificate, tkcertificateservice)",
)
certificatetrustrolemap: Final = _table(
    "certificatetrustrolemap",
    _PKID,
    _foreign("fkcertificate", certificate),
    _type_key("tktrustrole", typetrustrole),
    "UNIQUE (fkcertificate, tktrustrole)",
)
certificateprocessnodemap: Final = _table(
    "certificateprocessnodemap",
    _PKID,
    _foreign("fkcertificate", certificate),
    _type_key("tkcertificateservice", typecertificateservice),
    _text("servername"),
    _text("ipv4address", nullable=True),
    _text("ipv6address", nullable=True),
    "UNIQUE (fkcertificate, tkcertificateservice, servername)",
)
certificatehashmap: Final = _table(
    "certificatehashmap",
    _PKID,
    _foreign("fkcertificate", certificate),
    _text("certificatehash"),
)

processnode: Final = _table(
    "processnode",
    _PKID,
    _text("name", unique=True),
    _text("description"),
    _number("nodeid", unique=True),
    _text("ipv4address", nullable=True),
    _text("ipv6name", nullable=True),
)
processnodeservice: Final = _table(
    "processnodeservice",
    _PKID,
    _foreign("fkprocessnode", processnode),
    _type_key("tkservice", typeservice),
    _text("enable"),
    _text("isactive"),
    "UNIQUE (fkprocessnode, tkservice)",
)
processconfig: Final = _table(
    "processconfig",
    _PKID,
    _text("paramname", unique=True),
    _text("paramvalue"),
)

callmanager: Final = _table(
    "callmanager",
    _PKID,
    _text("name", unique=True),
    _text("description"),
    _foreign("fkprocessnode", processnode),
)
callmanagergroup: Final = _table("callmanagergroup", _PKID, _text("name", unique=True))
callmanagergroupmember: Final = _table(
    "callmanagergroupmember",
    _PKID,
    _foreign("fkcallmanagergroup", callmanagergroup),
    _foreign("fkcallmanager", callmanager),
    _number("priority"),
    "UNIQUE (fkcallmanagergroup, fkcallmanager)",
    "UNIQUE (fkcallmanagergroup, priority)",
)
devicepool: Final = _table(
    "devicepool",
    _PKID,
    _text("name", unique=True),
    _foreign("fkcallmanagergroup", callmanagergroup),
)
securityprofile: Final = _table(
    "securityprofile",
    _PKID,
    _text("name", unique=True),
    _type_key("tkdevicesecuritymode", typedevicesecuritymode),
)
enduser: Final = _table(
    "enduser",
    _PKID,
    _text("userid", unique=True),
    _text("digestpassword"),
)
"""Who may answer a digest challenge. The column of the password is ours: Cisco keeps it encrypted elsewhere."""
device: Final = _table(
    "device",
    _PKID,
    _text("name", unique=True),
    _text("description"),
    _type_key("tkmodel", typemodel),
    _foreign("fkdevicepool", devicepool),
    _foreign("fksecurityprofile", securityprofile),
    _foreign("fkenduser", enduser, nullable=True),
    _number("tkcertificateoperation"),
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
    for table, rows in (
        (typetrustrole, [(int(role), name, f"ROLE_{name}") for role, name in names]),
        (typecertificateservice, [(number, unit.value, unit.name) for unit, number in SERVICE_NUMBERS.items()]),
        (typeservice, list(SERVICES)),
        (typedevicesecuritymode, [(mode, name, name.replace(" ", "")) for mode, name in SECURITY_MODES]),
        (securityprofile, [(security_profile_pkid(mode), f"{name} Profile", mode) for mode, name in SECURITY_MODES]),
    ):
        connection.executemany(f"INSERT INTO {table.name} VALUES (?, ?, ?)", rows)
