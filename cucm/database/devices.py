"""Rows about nodes, their services, CallManager groups and devices."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import field
from sqlite3 import Connection
from typing import Any, Final

from cucm.database.certificates import split_address
from cucm.database.schema import (
    SECURITY_MODES,
    SERVICES,
    callmanager,
    callmanagergroup,
    callmanagergroupmember,
    device,
    devicepool,
    enduser,
    pkid,
    processnode,
    processnodeservice,
    security_profile_pkid,
    typemodel,
    upsert,
)
from cucm.errors import UsageError
from cucm.records import dataclass

MAX_GROUP_MEMBERS: Final = 3
"""A CallManager group has up to three members (a phone: primary, secondary, tertiary) [recall]."""
_SERVICE_ENUMS: Final = {moniker: enum for enum, _, moniker in SERVICES}
_FIRST_MODEL: Final = 60_001
"""Models are numbered from here as they come: Cisco's numbers are UNKNOWN here."""


@dataclass(frozen=True, slots=True)
class ProcessNode:
    """A server of the cluster."""

    name: str
    ip_address: str


@dataclass(frozen=True, slots=True)
class Device:
    """A phone. `name` is SEP and the MAC address; `security_mode` 1 non-secure, 2 authenticated, 3 encrypted.

    `digest_password` is its digest user's: with another one it changes for all devices of that user.
    `certificate_operation`: what CAPF shall do; numbers UNKNOWN, 0 is nothing.
    """

    name: str
    model: str
    description: str
    security_mode: int
    callmanager_group: str
    device_pool: str = "Default"
    digest_user: str = ""
    digest_password: str = field(default="", repr=False)
    certificate_operation: int = 0


def put_node(connection: Connection, name: str, ip: str, services: Collection[str]) -> None:
    """Add a node or change its address and services; the first one added is the publisher."""
    unknown = sorted(set(services) - set(_SERVICE_ENUMS))
    if unknown:
        raise UsageError(f"no such service: {', '.join(unknown)}", mend=f"use {', '.join(_SERVICE_ENUMS)}")
    key, (ipv4, ipv6) = pkid("processnode", name), split_address(ip)
    number = connection.execute(
        "SELECT coalesce((SELECT nodeid FROM processnode WHERE pkid = ?),"
        " (SELECT coalesce(max(nodeid), 0) + 1 FROM processnode))",
        (key,),
    ).fetchone()[0]
    upsert(
        connection, processnode, pkid=key, name=name, description=name, nodeid=number, ipv4address=ipv4, ipv6name=ipv6
    )
    connection.execute("DELETE FROM processnodeservice WHERE fkprocessnode = ?", (key,))
    for service in services:
        upsert(
            connection,
            processnodeservice,
            pkid=pkid("processnodeservice", name, service),
            fkprocessnode=key,
            tkservice=_SERVICE_ENUMS[service],
            enable="t",
            isactive="t",
        )


def nodes(connection: Connection) -> tuple[ProcessNode, ...]:
    """In the order they were added."""
    return _as_nodes(connection, f"{_NODES} ORDER BY n.nodeid")


def services_of(connection: Connection, name: str) -> tuple[str, ...]:
    """Names of the active services of the node."""
    found = connection.execute(
        "SELECT t.moniker FROM processnodeservice s JOIN processnode n ON n.pkid = s.fkprocessnode"
        " JOIN typeservice t ON t.enum = s.tkservice WHERE n.name = ? AND s.isactive = 't' ORDER BY t.enum",
        (name,),
    )
    return tuple(moniker for (moniker,) in found)


def put_callmanager_group(connection: Connection, name: str, node_names: Sequence[str]) -> None:
    """A group of nodes, highest priority first; replaces the members of a group of that name."""
    if not 0 < len(node_names) <= MAX_GROUP_MEMBERS or len(set(node_names)) != len(node_names):
        raise UsageError(f"a CallManager group has 1 to {MAX_GROUP_MEMBERS} different nodes", where=name)
    group = pkid("callmanagergroup", name)
    upsert(connection, callmanagergroup, pkid=group, name=name)
    connection.execute("DELETE FROM callmanagergroupmember WHERE fkcallmanagergroup = ?", (group,))
    for priority, node_name in enumerate(node_names):
        upsert(
            connection,
            callmanagergroupmember,
            pkid=pkid("callmanagergroupmember", name, node_name),
            fkcallmanagergroup=group,
            fkcallmanager=_callmanager_of(connection, node_name),
            priority=priority,
        )


def callmanager_group(connection: Connection, name: str) -> tuple[ProcessNode, ...]:
    """The group's nodes, highest priority first; empty if there is no such group."""
    return _as_nodes(
        connection,
        f"{_NODES} JOIN callmanager c ON c.fkprocessnode = n.pkid"
        " JOIN callmanagergroupmember m ON m.fkcallmanager = c.pkid"
        " JOIN callmanagergroup g ON g.pkid = m.fkcallmanagergroup WHERE g.name = ? ORDER BY m.priority",
        name,
    )


def put_device_pool(connection: Connection, name: str, group_name: str) -> None:
    """A device pool and its CallManager group, new or changed."""
    group = pkid("callmanagergroup", group_name)
    if connection.execute("SELECT 1 FROM callmanagergroup WHERE pkid = ?", (group,)).fetchone() is None:
        raise UsageError(
            f"there is no CallManager group {group_name!r}", where=f"device pool {name}", mend="add it first"
        )
    upsert(connection, devicepool, pkid=pkid("devicepool", name), name=name, fkcallmanagergroup=group)


def put_device(connection: Connection, new: Device) -> None:
    """Add or change a device; its pool is made if it is not there."""
    if not new.name or new.security_mode not in dict(SECURITY_MODES):
        raise UsageError(
            f"a device needs a name and a security mode of 1 to 3, not {new.name!r} and {new.security_mode}",
            mend="1 is non-secure, 2 authenticated, 3 encrypted",
        )
    _settle_device_pool(connection, new)
    upsert(
        connection,
        device,
        pkid=pkid("device", new.name),
        name=new.name,
        description=new.description,
        tkmodel=_model(connection, new.model),
        fkdevicepool=pkid("devicepool", new.device_pool),
        fksecurityprofile=security_profile_pkid(new.security_mode),
        fkenduser=_end_user(connection, new),
        tkcertificateoperation=new.certificate_operation,
    )


def delete_device(connection: Connection, name: str) -> None:
    if connection.execute("DELETE FROM device WHERE name = ?", (name,)).rowcount == 0:
        raise UsageError(f"there is no device {name!r}")


def device_of(name: str, model: str, description: str, mode: int, group: str, pool: str, *rest: Any) -> Device:
    """One row. Thousands of devices have the same few models, groups and pools: each is one string, once."""
    return Device(name, sys.intern(model), description, mode, sys.intern(group), sys.intern(pool), *rest)


_NODES: Final = "SELECT n.name, coalesce(n.ipv4address, n.ipv6name) FROM processnode n"
_DEVICES: Final = (
    "SELECT d.name, t.name, d.description, s.tkdevicesecuritymode, g.name, p.name, coalesce(u.userid, ''),"
    " coalesce(u.digestpassword, ''), d.tkcertificateoperation FROM device d"
    " JOIN devicepool p ON p.pkid = d.fkdevicepool JOIN callmanagergroup g ON g.pkid = p.fkcallmanagergroup"
    " JOIN securityprofile s ON s.pkid = d.fksecurityprofile JOIN typemodel t ON t.enum = d.tkmodel"
    " LEFT JOIN enduser u ON u.pkid = d.fkenduser"
)
DEVICE_NAMED: Final = f"{_DEVICES} WHERE d.name = ?"
ALL_DEVICES: Final = f"{_DEVICES} ORDER BY d.name"
"""Statements whose rows are the fields of a `Device`."""


def _as_nodes(connection: Connection, statement: str, *values: str) -> tuple[ProcessNode, ...]:
    return tuple(ProcessNode(name, ip) for name, ip in connection.execute(statement, values))


def _callmanager_of(connection: Connection, node_name: str) -> str:
    node = pkid("processnode", node_name)
    if connection.execute("SELECT 1 FROM processnode WHERE pkid = ?", (node,)).fetchone() is None:
        raise UsageError(f"there is no node {node_name!r}", where="CallManager group", mend="add the node first")
    key = pkid("callmanager", node_name)
    upsert(connection, callmanager, pkid=key, name=f"CM_{node_name}", description=node_name, fkprocessnode=node)
    return key


def _settle_device_pool(connection: Connection, new: Device) -> None:
    """The group belongs to the pool: a device cannot bring another one for all the others in it."""
    present = connection.execute(
        "SELECT g.name FROM devicepool p JOIN callmanagergroup g ON g.pkid = p.fkcallmanagergroup WHERE p.name = ?",
        (new.device_pool,),
    ).fetchone()
    if present is None:
        put_device_pool(connection, new.device_pool, new.callmanager_group)
    elif present[0] != new.callmanager_group:
        raise UsageError(
            f"device pool {new.device_pool!r} has CallManager group {present[0]!r}, not {new.callmanager_group!r}",
            where=new.name,
            mend="use another pool, or give the pool that group",
        )


def _end_user(connection: Connection, new: Device) -> str | None:
    if not new.digest_user:
        if new.digest_password:
            raise UsageError("a digest password without a user", where=new.name, mend="name the digest user")
        return None
    key = pkid("enduser", new.digest_user)
    upsert(connection, enduser, pkid=key, userid=new.digest_user, digestpassword=new.digest_password)
    return key


def _model(connection: Connection, name: str) -> int:
    found = connection.execute("SELECT enum FROM typemodel WHERE name = ?", (name,)).fetchone()
    if found is None:
        highest = "SELECT coalesce(max(enum), ?) + 1 FROM typemodel"
        found = connection.execute(highest, (_FIRST_MODEL - 1,)).fetchone()
        upsert(connection, typemodel, enum=found[0], name=name, moniker=name)
    return int(found[0])
