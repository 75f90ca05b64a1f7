"""CM Administration: parameters and devices; DHCP; the lab's clock."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, model_validator

from cucm.clock import MovableClock
from cucm.errors import LabError, UsageError
from lab.operations.base import ClusterOperation, Operation
from lab.phone_resets import AUTOMATICALLY, MANUALLY, PHONE_INTERACTION_PARAMETER
from lab.topology import ClusterName, Name, NodeName, PhoneName, PoolName, ServerName
from tftp_server.cluster_view import (
    DIGESTS,
    ROLLBACK_PARAMETER,
    SECURITY_MODE_PARAMETER,
    SIGNATURE_ALGORITHM_PARAMETER,
)
from tvs_server.certificate_cache import FreshnessMode

if TYPE_CHECKING:
    from lab.runtime import Lab


PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    ROLLBACK_PARAMETER: ("True", "False"),
    SIGNATURE_ALGORITHM_PARAMETER: tuple(DIGESTS),
    PHONE_INTERACTION_PARAMETER: (AUTOMATICALLY, MANUALLY),
}
"""Values of the parameters that something in the lab acts on."""


class SetEnterpriseParameter(ClusterOperation):
    """The lab acts on "Prepare Cluster for Rollback to pre 8.0" (True, False), "TFTP File Signature Algorithm" (SHA-1,
    SHA-512) and, from 14 on, "Phone Interaction on Certificate Update" (Automatically Reset Phones, Manually Reset
    Phones). Any other parameter is stored and replicated, and nothing comes of it.
    """

    do: Literal["set-enterprise-parameter"]
    parameter: Annotated[str, Field(min_length=1, max_length=128)]
    value: Annotated[str, Field(max_length=1024)]

    @model_validator(mode="after")
    def _means_something(self) -> SetEnterpriseParameter:
        if self.parameter.casefold() == SECURITY_MODE_PARAMETER.casefold():
            raise ValueError(f"{SECURITY_MODE_PARAMETER} is set by set-cluster-mixed-mode, set-cluster-non-secure-mode")
        known = {name.casefold(): name for name in PARAMETERS}
        near = get_close_matches(self.parameter.casefold(), known, n=1, cutoff=0.85)
        if near and known[near[0]] != self.parameter:
            raise ValueError(f"no parameter {self.parameter!r}; did you mean {known[near[0]]!r}?")
        values = PARAMETERS.get(self.parameter)
        if values is not None and self.value not in values:
            raise ValueError(f"{self.parameter} cannot be {self.value!r}; it can be {' or '.join(values)}")
        return self

    def what(self) -> str:
        return f"enterprise parameter “{self.parameter}” := {self.value}"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).set_enterprise_parameter(self.parameter, self.value)


class SetTvsCache(ClusterOperation):
    """How fresh TVS's certificate cache is; TVS is restarted for it."""

    do: Literal["set-tvs-cache"]
    mode: FreshnessMode

    def what(self) -> str:
        return f"TVS certificate cache is {self.mode}"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).set_tvs_cache(self.mode)


class AddDevice(ClusterOperation):
    do: Literal["add-device"]
    phone: PhoneName
    pool: Name | None = None
    """Its device pool; else the one of the topology."""

    def what(self) -> str:
        return f"add device {self.phone}"

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: add device {lab.phone(self.phone).model.name}"

    async def perform(self, lab: Lab) -> None:
        lab.provision(self.phone, self.cluster, self.pool)


class RemoveDevice(ClusterOperation):
    do: Literal["remove-device"]
    phone: PhoneName

    def what(self) -> str:
        return f"delete device {self.phone}"

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: delete device {lab.phone(self.phone).model.name}"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).remove_device(lab.phone(self.phone).model.name)


class SetOption150(Operation):
    """DHCP names the TFTP nodes of a cluster, or these nodes in this order, or a plain call server."""

    do: Literal["set-option-150"]
    cluster: ClusterName | None = None
    nodes: tuple[NodeName, ...] = ()
    server: ServerName | None = None
    pool: PoolName | None = None
    """One pool of the DHCP server; else all."""

    def _addresses(self, lab: Lab) -> tuple[str, ...]:
        if self.server is not None and self.cluster is None and not self.nodes:
            if self.server not in lab.plain_servers:
                known = ", ".join(lab.plain_servers) or "none"
                raise UsageError(f"no plain call server {self.server!r} in this lab", mend=f"there are: {known}")
            return (lab.plain_servers[self.server].address,)
        if self.server is None and self.nodes:
            find = lab.node if self.cluster is None else lab.cluster(self.cluster).node
            return tuple(find(node).address for node in self.nodes)
        if self.server is None and self.cluster is not None:
            found = lab.cluster(self.cluster).tftp_addresses
            if not found:
                raise LabError(f"no node of {self.cluster} has TFTP activated", mend="activate it, or name `nodes`")
            return found
        raise UsageError("name a `cluster`, `nodes`, or a plain `server`", where=self.do)

    def says(self, lab: Lab) -> str:
        where = f" ({self.cluster or self.server})" if self.cluster or self.server else ""
        pool = f" pool {self.pool}" if self.pool else ""
        return f"DHCP{pool}: option 150 := {', '.join(self._addresses(lab))}{where}"

    async def perform(self, lab: Lab) -> None:
        lab.set_option_150(self._addresses(lab), self.pool)


class AdvanceClock(Operation):
    """Move the lab's clock: certificates expire, caches grow old."""

    do: Literal["advance-clock"]
    days: Annotated[float, Field(gt=0, le=36_500)]

    def says(self, lab: Lab) -> str:
        return f"{self.days:g} days pass"

    async def perform(self, lab: Lab) -> None:
        if not isinstance(lab.clock, MovableClock):
            raise UsageError("this lab runs by the system's clock", where=self.do)
        lab.clock.move(self.days * 86_400)
