"""What all verbs of a story have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cucm.errors import LabError
from lab.topology import ClusterName, NodeName, Service, Table

if TYPE_CHECKING:
    from lab.cluster import Cluster
    from lab.node import Node
    from lab.runtime import Lab


class Operation(Table, ABC):
    """Base: `note` is a remark for the reader of the timeline, for example which step of the technote this is.

    `refused` is a part of the refusal that the emulated system should answer with: being done would then be the error.
    """

    do: str
    note: Annotated[str, Field(max_length=1000)] = ""
    refused: Annotated[str, Field(max_length=1000)] = ""

    @abstractmethod
    def says(self, lab: Lab) -> str:
        """One line in an administrator's words. Raises UsageError when it names what the lab does not have."""

    @abstractmethod
    async def perform(self, lab: Lab) -> None:
        """Do it. Raises LabError when the emulated system refuses."""


class ClusterOperation(Operation, ABC):
    """One that concerns a whole cluster."""

    cluster: ClusterName

    @abstractmethod
    def what(self) -> str:
        """What is done, without the cluster's name."""

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: {self.what()}"


class NodeOperation(ClusterOperation, ABC):
    """One on a node of a cluster; without `node`, on the publisher."""

    node: NodeName | None = None

    def target(self, lab: Lab) -> Node:
        cluster = lab.cluster(self.cluster)
        return cluster.publisher if self.node is None else cluster.node(self.node)

    def says(self, lab: Lab) -> str:
        return f"{self.target(lab).name}: {self.what()}"


class ServiceOperation(ClusterOperation, ABC):
    """One on a service; without `node`, on every node that is up and has it activated.

    `targets` raises UsageError for a node that has not, LabError for one that is down.
    """

    service: Service
    node: NodeName | None = None

    def targets(self, lab: Lab) -> list[Node]:
        cluster = lab.cluster(self.cluster)
        if self.node is not None:
            node = cluster.node(self.node)
            node.require_service(self.service)
            node.require_up()
            return [node]
        return [node for node in cluster.nodes_running(self.service) if node.is_up]

    def says(self, lab: Lab) -> str:
        cluster = lab.cluster(self.cluster)
        if self.node is not None:
            return f"{cluster.node(self.node).name}: {self.what()}"
        return f"{cluster.name}: {self.what()} on all nodes"


def require_some(nodes: list[Node], service: str, cluster: Cluster) -> list[Node]:
    """Raises LabError when no node is there to do it on."""
    if not nodes:
        raise LabError(f"no node of {cluster.name} that is up runs {service}", mend="start a node first")
    return nodes
