"""Serviceability, and what befalls machines and networks."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from cucm.errors import LabError, UsageError
from cucm.net.reachability import Reachability
from lab.operations.base import ClusterOperation, NodeOperation, ServiceOperation, require_some
from lab.topology import FeatureService, NodeName, Service

if TYPE_CHECKING:
    from lab.node import Node
    from lab.runtime import Lab


_NAMES_SHOWN: Final = 4


class StartService(ServiceOperation):
    do: Literal["start-service"]

    def what(self) -> str:
        return f"start {self.service}"

    async def perform(self, lab: Lab) -> None:
        for node in require_some(self.targets(lab), self.service, lab.cluster(self.cluster)):
            if not await node.start_service(self.service):
                node.tell_unchanged(self.service, "runs already")


class StopService(ServiceOperation):
    """In order: connections are ended; afterwards the port is closed."""

    do: Literal["stop-service"]

    def what(self) -> str:
        return f"stop {self.service}"

    async def perform(self, lab: Lab) -> None:
        for node in require_some(self.targets(lab), self.service, lab.cluster(self.cluster)):
            if not await node.stop_service(self.service):
                node.tell_unchanged(self.service, "does not run")


class RestartService(ServiceOperation):
    do: Literal["restart-service"]

    def what(self) -> str:
        return f"restart {self.service}"

    async def perform(self, lab: Lab) -> None:
        for node in require_some(self.targets(lab), self.service, lab.cluster(self.cluster)):
            await node.restart_service(self.service)


class ServiceActivation(ClusterOperation, ABC):
    """Serviceability > Service Activation: whether a node has the service at all; lists and groups follow from it."""

    service: FeatureService
    nodes: Annotated[tuple[NodeName, ...], Field(min_length=1, max_length=64)]

    def says(self, lab: Lab) -> str:
        names = [lab.cluster(self.cluster).node(node).name for node in self.nodes]
        shown = ", ".join(names) if len(names) <= _NAMES_SHOWN else f"{len(names)} nodes"
        return f"{lab.cluster(self.cluster).name}: {self.what()} on {shown}"


class ActivateService(ServiceActivation):
    do: Literal["activate-service"]

    def what(self) -> str:
        return f"activate {self.service}"

    async def perform(self, lab: Lab) -> None:
        cluster = lab.cluster(self.cluster)
        for name in self.nodes:
            if not await cluster.activate(name, self.service):
                node = cluster.node(name)
                runs = "and runs" if node.runs(self.service) else "but does not run (start-service starts it)"
                node.tell_unchanged(self.service, f"is activated already {runs}")


class DeactivateService(ServiceActivation):
    do: Literal["deactivate-service"]

    def what(self) -> str:
        return f"deactivate {self.service}"

    async def perform(self, lab: Lab) -> None:
        """On all of these nodes, or on none if one of them has it not."""
        cluster = lab.cluster(self.cluster)
        for node in self.nodes:
            cluster.node(node).require_service(self.service)
        for node in self.nodes:
            await cluster.deactivate(node, self.service)


class CrashService(ServiceOperation):
    """The process dies: connections are reset, nothing is said."""

    do: Literal["crash-service"]

    def what(self) -> str:
        return f"{self.service} crashes"

    async def perform(self, lab: Lab) -> None:
        targets = require_some(self.targets(lab), self.service, lab.cluster(self.cluster))
        running = [node for node in targets if node.runs(self.service)]
        if not running:
            raise LabError(f"{self.service} does not run on {', '.join(node.name for node in targets)}")
        for node in running:
            await node.crash_service(self.service)


class SetReachability(ClusterOperation):
    """What becomes of packets to a service: `open`, `refuse` (a firewall answers no) or `unreachable` (they vanish).

    Without `service`, all services; without `node`, on all nodes.
    """

    do: Literal["set-reachability"]
    reachability: Reachability
    service: Service | None = None
    node: NodeName | None = None

    def targets(self, lab: Lab) -> list[tuple[Node, Service]]:
        cluster = lab.cluster(self.cluster)
        nodes = [cluster.node(self.node)] if self.node else list(cluster.nodes.values())
        found = [(node, service) for node in nodes for service in node.services if self.service in (None, service)]
        if not found:
            raise UsageError(
                f"{self.service} is not activated on {self.node or 'any node'}", where=self.do, mend="activate it first"
            )
        return found

    def what(self) -> str:
        return f"the network makes {self.service or 'everything'} {self.reachability}"

    def says(self, lab: Lab) -> str:
        cluster = lab.cluster(self.cluster)
        where = cluster.node(self.node).name if self.node else f"all nodes of {cluster.name}"
        self.targets(lab)
        return f"{where}: {self.what()}"

    async def perform(self, lab: Lab) -> None:
        for node, service in self.targets(lab):
            node.set_reachability(service, self.reachability)


class CrashNode(NodeOperation):
    """The machine dies with all its services."""

    do: Literal["crash-node"]

    def what(self) -> str:
        return "the machine crashes"

    async def perform(self, lab: Lab) -> None:
        self.target(lab).require_up()
        await lab.cluster(self.cluster).crash_node(self.target(lab).name)


class StartNode(NodeOperation):
    do: Literal["start-node"]

    def what(self) -> str:
        return "start the machine"

    async def perform(self, lab: Lab) -> None:
        if self.target(lab).is_up:
            raise LabError(f"{self.target(lab).name} is up", mend="start its services one by one")
        await lab.cluster(self.cluster).start_node(self.target(lab).name)


class ReplaceTvsByImpostor(NodeOperation):
    """A TVS with a key of its own, of the same name, takes the node's port 2445; starting the real TVS ends it."""

    do: Literal["replace-tvs-by-impostor"]

    def what(self) -> str:
        return "an impostor with another certificate answers on TVS's port"

    async def perform(self, lab: Lab) -> None:
        await self.target(lab).replace_tvs_by_impostor()
