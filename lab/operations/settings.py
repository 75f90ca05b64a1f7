"""CM Administration: parameters and devices; DHCP; the lab's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cucm.clock import MovableClock
from cucm.errors import UsageError
from lab.operations.base import ClusterOperation, Operation
from lab.topology import ClusterName, Name, NodeName, PhoneName, PoolName, ServerName
from tvs_server.certificate_cache import FreshnessMode

if TYPE_CHECKING:
    from lab.runtime import Lab


class SetEnterpriseParameter(ClusterOperation):
    do: Literal["set-enterprise-parameter"]
    parameter: Annotated[str, Field(min_length=1, max_length=128)]
    value: Annotated[str, Field(max_length=1024)]

    def what(self) -> str:
        return f"enterprise parameter “{self.parameter}” := {self.value}"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).set_parameter(self.parameter, self.value)


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
            return lab.cluster(self.cluster).tftp_addresses
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
