"""Where phones are that are in the lab only while a batch of them runs: by the CallManagers' own events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cucm.events import EventRecord
from cucm.events.cluster import RegistrationAccepted, RegistrationEnd, RegistrationEnded
from lab.fleet.batch import Holding, PhoneFinding
from phone_agent.state import PhoneState

_TAKEN_AWAY: Final = frozenset({RegistrationEnd.CONNECTION_CLOSED, RegistrationEnd.CONNECTION_BROKEN})
"""How a CallManager sees that a phone was taken out of the lab with its batch."""


class Attendance:
    """Hears the servers' events; a phone that was taken away counts where it was registered last."""

    def __init__(self, cluster_of: Mapping[str, str]) -> None:
        self._cluster_of = cluster_of
        self._present: dict[str, dict[str, bool]] = {}
        """By device, then by node: whether its connection still stood when last heard of."""

    def __call__(self, record: EventRecord) -> None:
        event, node = record.event, record.source.partition(":")[2]
        if isinstance(event, RegistrationAccepted):
            nodes = self._present.get(event.device_name, {})
            self._present[event.device_name] = {name: True for name, stands in nodes.items() if stands} | {node: True}
        elif isinstance(event, RegistrationEnded):
            nodes = self._present.get(event.device_name, {})
            if event.reason in _TAKEN_AWAY and node in nodes:
                nodes[node] = False
            else:
                nodes.pop(node, None)

    def places(self, accounts: Mapping[str, tuple[PhoneFinding, Holding]]) -> dict[str, tuple[str, str | None]]:
        """Cluster (several: joined by `and`) and node of each phone that says that it is registered, if its
        CallManager had said so too.
        """
        registered = PhoneState.REGISTERED.value
        names = (name for name, (finding, _) in accounts.items() if finding.state == registered)
        return {name: self._place(nodes) for name in names if (nodes := self._present.get(name))}

    def _place(self, nodes: Iterable[str]) -> tuple[str, str | None]:
        clusters = dict.fromkeys(self._cluster_of.get(node, node) for node in nodes)
        return " and ".join(clusters), list(nodes)[-1]
