"""Device configuration files: `SEP<mac>.cnf.xml` and `XMLDefault.cnf.xml`.

Sources: facts 2.9 (TVS list: nodes and order of the phone's CallManager group), 7.7 (security mode, transport, ports).
Element names are those of Cisco's own files [recall]; the facts prescribe the TVS list only. Real files also give
`<device>` an `xsi:type` without declaring the prefix, which a strict XML parser refuses: left out on purpose.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Final
from xml.etree import ElementTree

from cucm.database import Device, NodeDatabase, ProcessNode
from cucm.records import dataclass
from cucm.signalling import CAPF_PORT, SECURE_SIP_PORT, SIP_PORT, TVS_PORT, DeviceSecurityMode, TransportLayerProtocol
from tftp_server.cluster_view import (
    CALLMANAGER_SERVICE,
    CAPF_SERVICE,
    TVS_SERVICE,
    is_mixed_mode,
    nodes_of,
    nodes_running,
    runs,
    security_mode_of,
)

SCCP_PORT: Final = 2000
MAX_TVS_MEMBERS: Final = 5
"""Priorities 0 to 4 (facts 2.9)."""

REGISTER_EXPIRES_S: Final = 3600
"""[recall]"""
KEEP_ALIVE_EXPIRES_S: Final = 120
"""[recall]"""
CAPF_NO_OPERATION: Final = 0
"""`capfAuthMode` while no certificate operation is pending [recall]."""
DEFAULT_GROUP: Final = "Default"
"""The CallManager group that phones unknown to the cluster are sent to [recall]."""
DEVICE_LOADS: Final = MappingProxyType({"CP-8861": "sip88xx.10-3-1-20"})
"""Firmware by model ("device defaults"): that of the seed's phone. Other models keep what they have."""


KEPT: Final = 256
"""Documents that are kept: devices of one pool and model have the same. Ours."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A node as a configuration names it: `name` for people, `address` for the phone to connect to."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class CallManagerGroup:
    """The servers of one CallManager group, each tuple in priority order: only nodes where that service is active."""

    name: str
    callmanagers: tuple[ServerAddress, ...]
    tvs: tuple[ServerAddress, ...]


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What the database says about one phone. `load` is its firmware, empty for "keep what you have"."""

    description: str
    device_pool: str
    group: CallManagerGroup
    capf: tuple[ServerAddress, ...]
    security_mode: DeviceSecurityMode
    load: str = ""
    digest_user: str = ""
    digest_password: str = field(default="", repr=False)


def group_of(database: NodeDatabase, name: str) -> CallManagerGroup:
    """The CallManager group as a configuration lists it; without such a group, all nodes in their order [inferred]."""
    nodes = database.callmanager_group(name) or nodes_of(database)
    return CallManagerGroup(
        name,
        callmanagers=_addresses(node for node in nodes if runs(database, node, CALLMANAGER_SERVICE)),
        tvs=_addresses(node for node in nodes if runs(database, node, TVS_SERVICE)),
    )


class ClusterSettings:
    """What the configurations of all devices have in common, asked of the database once: to be made anew when that has
    changed.
    """

    def __init__(self, database: NodeDatabase) -> None:
        self._database = database
        self._groups: dict[str, CallManagerGroup] = {}

    def group(self, name: str) -> CallManagerGroup:
        if name not in self._groups:
            self._groups[name] = group_of(self._database, name)
        return self._groups[name]

    @cached_property
    def capf(self) -> tuple[ServerAddress, ...]:
        return _addresses(nodes_running(self._database, CAPF_SERVICE))

    @cached_property
    def is_mixed_mode(self) -> bool:
        return is_mixed_mode(self._database)

    def of(self, device: Device) -> DeviceSettings:
        """What the database says about a device."""
        return DeviceSettings(
            description=device.description,
            device_pool=device.device_pool,
            group=self.group(device.callmanager_group),
            capf=self.capf,
            security_mode=security_mode_of(device, mixed=self.is_mixed_mode),
            load=DEVICE_LOADS.get(device.model, ""),
            digest_user=device.digest_user,
            digest_password=device.digest_password,
        )


def _addresses(nodes: Iterable[ProcessNode]) -> tuple[ServerAddress, ...]:
    return tuple(ServerAddress(node.name, node.ip_address) for node in nodes)


@lru_cache(maxsize=KEPT)
def device_configuration(settings: DeviceSettings) -> bytes:
    """The XML of `SEP<mac>.cnf.xml`. The same settings give the same bytes, `versionStamp` included."""
    device = ElementTree.Element("device")
    _leaves(device, fullConfig="true", deviceProtocol="SIP")
    _device_pool(device, settings)
    _tvs(device, settings.group.tvs)
    _sip_profile(device, settings)
    _leaves(device, loadInformation=settings.load)
    version_stamp = ElementTree.SubElement(device, "versionStamp")
    _security(device, settings.security_mode)
    _capf_list(device, settings.capf)
    version_stamp.text = _stamp_of(device)
    return _document(device)


def default_configuration(group: CallManagerGroup, *, lists_tvs: bool = True) -> bytes:
    """The XML of `XMLDefault.cnf.xml`, for phones the cluster does not know yet.

    A release with CSCti64589 leaves the TVS list out (`lists_tvs` False; facts F14): no empty one either [inferred].
    The firmware of each model is left out: no source at hand has the model numbers its element names are made of.
    """
    default = ElementTree.Element("Default")
    _callmanager_group(default, group)
    if lists_tvs:
        _tvs(default, group.tvs)
    return _document(default)


def transport_of(mode: DeviceSecurityMode) -> TransportLayerProtocol:
    """TLS for a secure device; TCP is what CUCM's standard non-secure SIP profile has [recall]."""
    return TransportLayerProtocol.TCP if mode is DeviceSecurityMode.NON_SECURE else TransportLayerProtocol.TLS


def _device_pool(parent: ElementTree.Element, settings: DeviceSettings) -> None:
    pool = ElementTree.SubElement(parent, "devicePool")
    _leaves(pool, name=settings.device_pool)
    _callmanager_group(pool, settings.group)


def _callmanager_group(parent: ElementTree.Element, group: CallManagerGroup) -> None:
    element = ElementTree.SubElement(parent, "callManagerGroup")
    _leaves(element, name=group.name)
    for member, server in _members(element, group.callmanagers):
        callmanager = ElementTree.SubElement(member, "callManager")
        _leaves(callmanager, name=server.name)
        ports = ElementTree.SubElement(callmanager, "ports")
        _leaves(ports, ethernetPhonePort=SCCP_PORT, sipPort=SIP_PORT, securedSipPort=SECURE_SIP_PORT)
        # an address, not a name: the lab's phones resolve no names, and the seed's phone knows addresses [inferred]
        _leaves(callmanager, processNodeName=server.address)


def _tvs(parent: ElementTree.Element, servers: Sequence[ServerAddress]) -> None:
    element = ElementTree.SubElement(parent, "TVS")
    for member, server in _members(element, servers[:MAX_TVS_MEMBERS]):
        _leaves(member, port=TVS_PORT, address=server.address)


def _members(
    parent: ElementTree.Element, servers: Sequence[ServerAddress]
) -> list[tuple[ElementTree.Element, ServerAddress]]:
    members = ElementTree.SubElement(parent, "members")
    return [
        (ElementTree.SubElement(members, "member", priority=str(priority)), server)
        for priority, server in enumerate(servers)
    ]


def _sip_profile(parent: ElementTree.Element, settings: DeviceSettings) -> None:
    profile = ElementTree.SubElement(parent, "sipProfile")
    _leaves(ElementTree.SubElement(profile, "sipProxies"), registerWithProxy="true")
    stack = ElementTree.SubElement(profile, "sipStack")
    _leaves(stack, timerRegisterExpires=REGISTER_EXPIRES_S, timerKeepAliveExpires=KEEP_ALIVE_EXPIRES_S)
    _leaves(profile, phoneLabel=settings.description)
    if settings.digest_user:
        # where they stand, and that a file which is not encrypted has them in the clear, is [recall]
        line = ElementTree.SubElement(ElementTree.SubElement(profile, "sipLines"), "line", button="1")
        _leaves(line, authName=settings.digest_user, authPassword=settings.digest_password)


def _security(parent: ElementTree.Element, mode: DeviceSecurityMode) -> None:
    _leaves(
        parent,
        deviceSecurityMode=mode.value,
        transportLayerProtocol=transport_of(mode).value,
        capfAuthMode=CAPF_NO_OPERATION,
    )


def _capf_list(parent: ElementTree.Element, servers: Sequence[ServerAddress]) -> None:
    capf_list = ElementTree.SubElement(parent, "capfList")
    for server in servers:
        capf = ElementTree.SubElement(capf_list, "capf")
        _leaves(capf, phonePort=CAPF_PORT, processNodeName=server.address)
    # certHash is only read with an encrypted configuration [recall], which the lab does not make
    _leaves(parent, certHash="", encrConfig="false")


def _leaves(parent: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = _xml_text(str(text))


_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml_text(text: str) -> str:
    """`text` without the characters that XML 1.0 cannot carry."""
    return _NOT_XML.sub("\ufffd", text)


def _stamp_of(element: ElementTree.Element) -> str:
    """A stamp that changes with the contents, in the braces-and-hyphens form of Cisco's [recall]."""
    digest = hashlib.sha256(ElementTree.tostring(element, encoding="utf-8")).hexdigest()
    return f"{{{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}}}"


def _document(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'.encode()
