"""The ground truth about a phone: what its flash holds and which cluster has it registered, not what anybody says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from cucm.errors import TrustReason
from cucm.events import EventRecord
from cucm.events.phone import ConfigurationRefused, TrustListRefused
from lab.runtime import Lab

NOWHERE: Final = "nowhere"
NONE: Final = "none"
FOREIGN: Final = "unknown"
"""The phone holds a file that no node of this lab has served."""


@dataclass(frozen=True, slots=True)
class PhoneTruth:
    """Cluster names, or `nowhere` / `none` / `unknown`; `reasons` are those of refusals since the act began."""

    registered: str
    ctl: str
    itl: str
    configuration: str
    reasons: tuple[TrustReason, ...]
    status_messages: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def truth_of(lab: Lab, phone: str, since: tuple[EventRecord, ...]) -> PhoneTruth:
    """The truth about `phone` now; `since` are the event records to take the reasons of refusals from."""
    agent = lab.phone(phone)
    contents = agent.flash.contents
    return PhoneTruth(
        registered=_registered(lab, phone),
        ctl=_origin(lab, contents.ctl),
        itl=_origin(lab, contents.itl),
        configuration=_origin(lab, contents.configuration),
        reasons=_reasons(phone, since),
        status_messages=tuple(agent.status_messages),
    )


def _registered(lab: Lab, phone: str) -> str:
    clusters = [name for name, cluster in lab.clusters.items() if phone in cluster.registered_devices]
    return " and ".join(clusters) or NOWHERE


def _origin(lab: Lab, data: bytes | None) -> str:
    if data is None:
        return NONE
    node = lab.served.node_of(data)
    return (node and lab.cluster_of_node(node)) or FOREIGN


def _reasons(phone: str, since: tuple[EventRecord, ...]) -> tuple[TrustReason, ...]:
    refused = (
        record.event.reason
        for record in since
        if record.source == f"phone:{phone}" and isinstance(record.event, TrustListRefused | ConfigurationRefused)
    )
    return tuple(dict.fromkeys(reason for reason in refused if reason is not None))
