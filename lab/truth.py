"""The ground truth about a phone: what its flash holds and which CallManagers have it registered, not what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from cucm.errors import DecodeError, LimitExceeded, TrustReason
from cucm.events import EventRecord
from cucm.events.phone import ConfigurationRefused, TrustListRefused
from cucm.identity import describe
from cucm.names import name_key, serial_hex
from cucm.records import dataclass
from cucm.wire.trust_list import SignerId, decode_trust_list
from lab.runtime import Lab

NOWHERE: Final = "nowhere"
NONE: Final = "none"
FOREIGN: Final = "unknown"
"""The phone holds a file that no node of this lab has served."""
REFUSABLE: Final = ("CTL", "ITL", "configuration")
"""What a phone refuses for a reason; other verdicts are about TVS and CallManagers."""
_REASONS: Final = frozenset(reason.value for reason in TrustReason)


@dataclass(frozen=True, slots=True)
class InstalledList:
    """A CTL or ITL in a phone's flash.

    `sha1` is what the phone's menu calls its signature (facts 7.5). `signer_cluster` is whose certificate signed it,
    `unknown` if no cluster of the lab has that certificate now; `served_by` the address it was fetched from.
    """

    sha1: str
    length: int
    signer: str
    issuer: str
    serial: str
    signer_cluster: str
    served_by: str | None


@dataclass(frozen=True, slots=True)
class DeviceStanding:
    """What one node's CallManager knows of the device (facts: ground truth is the CallManager's, not the phone's)."""

    cluster: str
    node: str
    status: str
    reason: str = ""
    sip_status: int | None = None


@dataclass(frozen=True, slots=True)
class TrustVerdict:
    """One question of the phone's last boot: what was asked about, the verdict, and the details."""

    what: str
    verdict: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PhoneTruth:
    """Cluster names, or `nowhere` / `none` / `unknown`; `reasons` are those of refusals since the act began."""

    registered: str
    ctl: str
    itl: str
    configuration: str
    reasons: tuple[TrustReason, ...]
    status_messages: tuple[str, ...]
    state: str = ""
    node: str | None = None
    """The node it is registered with; None while it is registered nowhere."""
    ctl_list: InstalledList | None = None
    itl_list: InstalledList | None = None
    configuration_name: str | None = None
    call_managers: tuple[DeviceStanding, ...] = ()
    """Nodes that have heard of the device, publisher first."""
    trust_verdicts: tuple[TrustVerdict, ...] = ()
    """TVS's answers and the refusals of the last boot."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def truth_of(lab: Lab, phone: str, since: tuple[EventRecord, ...]) -> PhoneTruth:
    """The truth about `phone` now; `since` are the event records to take the reasons of refusals from."""
    return _truth_of(lab, phone, _reasons(phone, since), Signers(lab))


def truths_of(lab: Lab) -> dict[str, PhoneTruth]:
    """The truth about every phone of the lab; `reasons` are those of its last boot."""
    signers = Signers(lab)
    return {phone: _truth_of(lab, phone, _reasons_of_last_boot(lab, phone), signers) for phone in lab.phones}


class Signers:
    """Whose certificate a signer is: the own certificates of all clusters, as their publishers list them now."""

    def __init__(self, lab: Lab) -> None:
        self._clusters: dict[tuple[object, bytes], str] = {}
        for name, cluster in lab.clusters.items():
            for stored in cluster.publisher.database.certificates():
                if not all(unit.is_trust_store for unit in stored.units):
                    known = describe(stored.der)
                    self._clusters.setdefault(_identity(known.issuer, known.serial), name)

    def cluster_of(self, signer: SignerId) -> str | None:
        return self._clusters.get(_identity(signer.issuer, signer.serial))

    def installed(self, data: bytes | None, served_by: str | None) -> InstalledList | None:
        """What is to be said of a list in flash; None for none, empty names for bytes that are no list."""
        if data is None:
            return None
        try:
            signer = decode_trust_list(data).signer
        except (DecodeError, LimitExceeded):
            signer = SignerId("", b"", "")
        return InstalledList(
            sha1=hashlib.sha1(data).hexdigest(),
            length=len(data),
            signer=signer.subject,
            issuer=signer.issuer,
            serial=serial_hex(signer.serial),
            signer_cluster=self.cluster_of(signer) or FOREIGN,
            served_by=served_by,
        )


def _identity(issuer: str, serial: bytes) -> tuple[object, bytes]:
    return name_key(issuer), serial.lstrip(b"\0")


def _truth_of(lab: Lab, phone: str, reasons: tuple[TrustReason, ...], signers: Signers) -> PhoneTruth:
    agent = lab.phone(phone)
    contents = agent.flash.contents
    return PhoneTruth(
        registered=_registered(lab, phone),
        ctl=_origin(lab, contents.ctl),
        itl=_origin(lab, contents.itl),
        configuration=_origin(lab, contents.configuration),
        reasons=reasons,
        status_messages=tuple(agent.status_messages),
        state=agent.state.value,
        node=_node(lab, phone),
        ctl_list=signers.installed(contents.ctl, contents.ctl_source),
        itl_list=signers.installed(contents.itl, contents.itl_source),
        configuration_name=contents.configuration_name,
        call_managers=tuple(_standings(lab, phone)),
        trust_verdicts=tuple(TrustVerdict(*map(str, item)) for item in agent.last_verdicts),
    )


def _registered(lab: Lab, phone: str) -> str:
    clusters = [name for name, cluster in lab.clusters.items() if phone in cluster.registered_devices]
    others = [name for name, server in lab.plain_servers.items() if phone in server.call_processing.registered]
    return " and ".join(clusters + others) or NOWHERE


def _node(lab: Lab, phone: str) -> str | None:
    nodes = (node for cluster in lab.clusters.values() for node in cluster.nodes.values())
    return next((node.name for node in nodes if phone in node.registered_devices), None)


def _standings(lab: Lab, phone: str) -> Iterable[DeviceStanding]:
    for name, cluster in lab.clusters.items():
        for node in cluster.nodes.values():
            known = node.call_processing and node.call_processing.devices.get(phone)
            if known:
                yield DeviceStanding(name, node.name, known.status.value, known.reason, known.sip_status)


def _origin(lab: Lab, data: bytes | None) -> str:
    if data is None:
        return NONE
    node = lab.served.node_of(data)
    return (node and lab.cluster_of_node(node)) or FOREIGN


def _reasons_of_last_boot(lab: Lab, phone: str) -> tuple[TrustReason, ...]:
    """From what the phone itself remembers: that is brought back with a checkpoint, events are not."""
    verdicts = (item.verdict for item in lab.phone(phone).last_verdicts if item.what in REFUSABLE)
    return tuple(dict.fromkeys(TrustReason(verdict) for verdict in verdicts if verdict in _REASONS))


def _reasons(phone: str, since: Iterable[EventRecord]) -> tuple[TrustReason, ...]:
    refused = (
        record.event.reason
        for record in since
        if record.source == f"phone:{phone}" and isinstance(record.event, TrustListRefused | ConfigurationRefused)
    )
    return tuple(dict.fromkeys(reason for reason in refused if reason is not None))
