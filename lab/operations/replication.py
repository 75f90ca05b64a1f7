"""`utils dbreplication ...`, and what disturbs it."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lab.operations.base import ClusterOperation
from lab.topology import NodeName

if TYPE_CHECKING:
    from lab.runtime import Lab


class ReplicationOperation(ClusterOperation, ABC):
    """One on the replication to a subscriber."""

    node: NodeName

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).node(self.node).name}: {self.what()}"


class SetReplicationLag(ReplicationOperation):
    do: Literal["set-replication-lag"]
    seconds: Annotated[float, Field(ge=0, le=86_400)]

    def what(self) -> str:
        return f"replication lags {self.seconds:g} s behind"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).replication.set_lag(self.node, self.seconds)


class PauseReplication(ReplicationOperation):
    do: Literal["pause-replication"]

    def what(self) -> str:
        return "replication hangs"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).replication.pause(self.node)


class ResumeReplication(ReplicationOperation):
    do: Literal["resume-replication"]

    def what(self) -> str:
        return "replication goes on"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).replication.resume(self.node)


class BreakReplication(ReplicationOperation):
    """Nothing replicates to this node until `repair-replication`."""

    do: Literal["break-replication"]

    def what(self) -> str:
        return "replication is broken"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).replication.break_link(self.node)


class RepairReplication(ReplicationOperation):
    """`utils dbreplication reset`: a full copy of the publisher's data."""

    do: Literal["repair-replication"]

    def what(self) -> str:
        return "utils dbreplication reset"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).replication.repair(self.node)


class WaitForReplication(ReplicationOperation):
    do: Literal["wait-for-replication"]
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0

    def what(self) -> str:
        return "wait until replication has caught up"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).replication.catch_up(self.node, self.timeout_s)
