"""`utils ctl`, `utils itl`, the CTL client, and who tampers with what they made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lab.operations.base import ClusterOperation, NodeOperation
from lab.topology import NodeName

if TYPE_CHECKING:
    from lab.runtime import Lab


class UpdateCtlFile(ClusterOperation):
    do: Literal["update-ctl-file"]

    def what(self) -> str:
        return "utils ctl update CTLFile"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).trust_lists.update_ctl_file()


class SetClusterMixedMode(ClusterOperation):
    do: Literal["set-cluster-mixed-mode"]

    def what(self) -> str:
        return "utils ctl set-cluster mixed-mode"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).trust_lists.set_mixed_mode()


class SetClusterNonSecureMode(ClusterOperation):
    do: Literal["set-cluster-non-secure-mode"]

    def what(self) -> str:
        return "utils ctl set-cluster non-secure-mode"

    async def perform(self, lab: Lab) -> None:
        commands = lab.cluster(self.cluster).trust_lists
        await commands.prepare_tokens()
        commands.set_non_secure_mode()


class ResetCtlLocalkey(ClusterOperation):
    do: Literal["reset-ctl-localkey"]

    def what(self) -> str:
        return "utils ctl reset localkey"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).trust_lists.reset_ctl_localkey()


class ResetItl(ClusterOperation):
    do: Literal["reset-itl"]
    key: Literal["localkey", "remotekey"] = "localkey"

    def what(self) -> str:
        return f"utils itl reset {self.key}"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).trust_lists.reset_itl(self.key)


class ExportRecoveryPair(ClusterOperation):
    do: Literal["export-recovery-pair"]

    def what(self) -> str:
        return "file get tftp ITLRecovery.p12"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).trust_lists.export_recovery_pair()


class RunCtlClient(ClusterOperation):
    """The CTL client with two USB tokens, the first of which signs."""

    do: Literal["run-ctl-client"]
    tokens: Annotated[tuple[int, ...], Field(min_length=2, max_length=2)] = (1, 2)

    def what(self) -> str:
        return f"CTL client with tokens {' and '.join(map(str, self.tokens))}"

    async def perform(self, lab: Lab) -> None:
        commands = lab.cluster(self.cluster).trust_lists
        await commands.prepare_tokens(self.tokens)
        commands.run_ctl_client(self.tokens)


class DeleteCtlFile(ClusterOperation):
    """`file delete tftp CTLFile.tlv`, on one node or on all."""

    do: Literal["delete-ctl-file"]
    node: NodeName | None = None

    def what(self) -> str:
        return f"file delete tftp CTLFile.tlv on {self.node or 'all nodes'}"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).trust_lists.delete_ctl_file(self.node)


class AlterCtlFile(NodeOperation):
    """Somebody changes one byte of the CTL file on the TFTP node's disk, behind the cluster's back."""

    do: Literal["alter-ctl-file"]
    from_end: Annotated[int, Field(ge=1)] = 100

    def what(self) -> str:
        return "one byte of CTLFile.tlv changes on the disk"

    async def perform(self, lab: Lab) -> None:
        self.target(lab).alter_ctl_file(self.from_end)
