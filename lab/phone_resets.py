"""Phones that a cluster resets by itself: after a bulk import, a new certificate of its own, the rollback parameter.

Who is concerned is in facts 9.1 (by certificate), 5.6 ("Phone Interaction on Certificate Update", from 14 on) and 7.3
(the rollback parameter). Told can only be who is registered with one of the cluster's CallManagers. How a CallManager
tells a phone to reset is UNKNOWN to our sources: whoever owns the phones (`on_reset`) is asked inside the lab, and
nobody tells those that are not the lab's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final

from cucm.database import NodeDatabase
from cucm.events import Emit
from cucm.events.administration import PhonesReset
from cucm.roles import CertificateUnit
from lab.node import Node
from tftp_server.cluster_view import CAPF_SERVICE, TFTP_SERVICE

PHONE_INTERACTION_PARAMETER: Final = "Phone Interaction on Certificate Update"
AUTOMATICALLY: Final = "Automatically Reset Phones"
MANUALLY: Final = "Manually Reset Phones"
"""The two values; their wording is UNKNOWN, the first is the default (facts 5.6)."""
CONCERNING_PHONES: Final = (CertificateUnit.CALLMANAGER, CertificateUnit.TVS, CertificateUnit.CAPF)
"""Units whose new certificates reset phones (facts 9.1)."""

OnReset = Callable[[tuple[str, ...]], Awaitable[object]]
"""Called with names of devices; returns when they have been reset."""


async def _nobody_cares(_devices: tuple[str, ...]) -> None:
    pass


class PhoneResets:
    """One cluster's. `settled` waits until subscribers have the publisher's data, which phones boot from.

    `phones` are the names of those that `on_reset` can reset.
    """

    def __init__(
        self, cluster: str, nodes: Mapping[str, Node], settled: Callable[[], Awaitable[object]], emit: Emit
    ) -> None:
        self.phones: Collection[str] = ()
        self.on_reset: OnReset = _nobody_cares
        self._cluster = cluster
        self._nodes = nodes
        self._settled = settled
        self._emit = emit

    async def after_change(self, units: Iterable[CertificateUnit], nodes: Collection[Node], why: str) -> None:
        """Certificates of these units are new on these nodes. Nothing happens if phones are to be reset manually."""
        if self._database.parameter(PHONE_INTERACTION_PARAMETER) == MANUALLY:
            return
        concerned: set[str] = set()
        for unit in units:
            for node in nodes:
                concerned |= self._concerned(unit, node)
        await self._reset(concerned, why)

    async def reset_all(self, why: str) -> None:
        await self._reset(self._registered(), why)

    async def _reset(self, concerned: set[str], why: str) -> None:
        devices = tuple(sorted(concerned.intersection(self.phones) & self._registered()))
        if not devices:
            return
        self._emit(PhonesReset(self._cluster, devices, why))
        await self._settled()
        await self.on_reset(devices)

    def _concerned(self, unit: CertificateUnit, node: Node) -> set[str]:
        """Devices that a certificate of that unit on that node concerns, registered or not (facts 9.1)."""
        match unit:
            case CertificateUnit.CALLMANAGER if TFTP_SERVICE in node.services:
                return {device.name for device in self._database.devices()}
            case CertificateUnit.CAPF if CAPF_SERVICE in node.services:
                return {device.name for device in self._database.devices()}
            case CertificateUnit.TVS:
                return self._with_callmanager(node)
        return set()

    def _with_callmanager(self, node: Node) -> set[str]:
        """Devices in whose CallManager group the node is."""
        members: dict[str, bool] = {}
        for device in self._database.devices():
            group = device.callmanager_group
            if group not in members:
                members[group] = node.name in (one.name for one in self._database.callmanager_group(group))
        return {device.name for device in self._database.devices() if members[device.callmanager_group]}

    def _registered(self) -> set[str]:
        return set().union(*(node.registered_devices for node in self._nodes.values()))

    @property
    def _database(self) -> NodeDatabase:
        return next(iter(self._nodes.values())).database
