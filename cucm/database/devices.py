"""Rows about nodes, their services, CallManager groups and devices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, func, literal_column, select

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
    securityprofile,
    typemodel,
    typeservice,
    upsert,
)
from cucm.errors import UsageError

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
    number = connection.scalars(select(processnode.c.nodeid).where(processnode.c.pkid == key)).one_or_none()
    if number is None:
        number = connection.scalar(select(func.coalesce(func.max(processnode.c.nodeid), 0) + 1))
    upsert(
        connection, processnode, pkid=key, name=name, description=name, nodeid=number, ipv4address=ipv4, ipv6name=ipv6
    )
    connection.execute(delete(processnodeservice).where(processnodeservice.c.fkprocessnode == key))
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
    return _as_nodes(connection, _select_nodes().order_by(processnode.c.nodeid))


def services_of(connection: Connection, name: str) -> tuple[str, ...]:
    """Names of the active services of the node."""
    source = processnodeservice.join(processnode).join(typeservice)
    statement = (
        select(typeservice.c.moniker)
        .select_from(source)
        .where(processnode.c.name == name, processnodeservice.c.isactive == "t")
        .order_by(typeservice.c.enum)
    )
    return tuple(connection.scalars(statement))


def put_callmanager_group(connection: Connection, name: str, node_names: Sequence[str]) -> None:
    """A group of nodes, highest priority first; replaces the members of a group of that name."""
    if not 0 < len(node_names) <= MAX_GROUP_MEMBERS or len(set(node_names)) != len(node_names):
        raise UsageError(f"a CallManager group has 1 to {MAX_GROUP_MEMBERS} different nodes", where=name)
    group = pkid("callmanagergroup", name)
    upsert(connection, callmanagergroup, pkid=group, name=name)
    connection.execute(delete(callmanagergroupmember).where(callmanagergroupmember.c.fkcallmanagergroup == group))
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
    source = processnode.join(callmanager).join(callmanagergroupmember).join(callmanagergroup)
    statement = _select_nodes().select_from(source).where(callmanagergroup.c.name == name)
    return _as_nodes(connection, statement.order_by(callmanagergroupmember.c.priority))


def put_device_pool(connection: Connection, name: str, group_name: str) -> None:
    """A device pool and its CallManager group, new or changed."""
    group = pkid("callmanagergroup", group_name)
    if connection.scalar(select(callmanagergroup.c.pkid).where(callmanagergroup.c.pkid == group)) is None:
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
    if connection.execute(delete(device).where(device.c.name == name)).rowcount == 0:
        raise UsageError(f"there is no device {name!r}")


def devices(connection: Connection, name: str | None = None) -> tuple[Device, ...]:
    """All devices by name, or the one of that name."""
    source = device.join(devicepool).join(callmanagergroup).join(securityprofile).join(typemodel)
    source = source.outerjoin(enduser, device.c.fkenduser == enduser.c.pkid)
    columns = (
        device.c.name,
        typemodel.c.name,
        device.c.description,
        securityprofile.c.tkdevicesecuritymode,
        callmanagergroup.c.name,
        devicepool.c.name,
        func.coalesce(enduser.c.userid, ""),
        func.coalesce(enduser.c.digestpassword, ""),
        device.c.tkcertificateoperation,
    )
    statement = select(*columns).select_from(source).order_by(device.c.name)
    if name is not None:
        statement = statement.where(device.c.name == name)
    return tuple(Device(*row) for row in connection.execute(statement))


def _select_nodes() -> Select[Any]:
    address: ColumnElement[str] = func.coalesce(processnode.c.ipv4address, processnode.c.ipv6name)
    return select(processnode.c.name, address)


def _as_nodes(connection: Connection, statement: Select[Any]) -> tuple[ProcessNode, ...]:
    return tuple(ProcessNode(name, ip) for name, ip in connection.execute(statement))


def _callmanager_of(connection: Connection, node_name: str) -> str:
    node = pkid("processnode", node_name)
    if connection.scalar(select(processnode.c.pkid).where(processnode.c.pkid == node)) is None:
        raise UsageError(f"there is no node {node_name!r}", where="CallManager group", mend="add the node first")
    key = pkid("callmanager", node_name)
    upsert(connection, callmanager, pkid=key, name=f"CM_{node_name}", description=node_name, fkprocessnode=node)
    return key


def _settle_device_pool(connection: Connection, new: Device) -> None:
    """The group belongs to the pool: a device cannot bring another one for all the others in it."""
    source = devicepool.join(callmanagergroup)
    statement = select(callmanagergroup.c.name).select_from(source).where(devicepool.c.name == new.device_pool)
    present = connection.scalar(statement)
    if present is None:
        put_device_pool(connection, new.device_pool, new.callmanager_group)
    elif present != new.callmanager_group:
        raise UsageError(
            f"device pool {new.device_pool!r} has CallManager group {present!r}, not {new.callmanager_group!r}",
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
    number = connection.scalar(select(typemodel.c.enum).where(typemodel.c.name == name))
    if number is None:
        highest = func.coalesce(func.max(typemodel.c.enum), literal_column(str(_FIRST_MODEL - 1)))
        number = connection.scalars(select(highest + 1)).one()
        upsert(connection, typemodel, enum=number, name=name, moniker=name)
    return int(number)
