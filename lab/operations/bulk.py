"""OS Administration > Security > Bulk Certificate Management (facts 9.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lab.bulk_certificates import SftpSettings
from lab.operations.base import ClusterOperation

if TYPE_CHECKING:
    from lab.runtime import Lab

BulkType = Literal["TFTP", "CAPF", "TVS", "tomcat", "ITLRecovery", "All"]
BulkTypes = Annotated[tuple[BulkType, ...], Field(min_length=1, max_length=6)]


class SetBulkSftp(ClusterOperation):
    """Tell the cluster of the SFTP server; what is not given is the lab's own server's."""

    do: Literal["set-bulk-sftp"]
    address: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    user: str | None = None
    password: str | None = None
    directory: str | None = None

    def what(self) -> str:
        given = {"directory": self.directory, "user": self.user, "address": self.address}
        words = ", ".join(f"{name} {value}" for name, value in given.items() if value) or "the lab's server"
        return f"bulk certificate management: SFTP server := {words}"

    async def perform(self, lab: Lab) -> None:
        table = lab.topology.sftp
        await lab.cluster(self.cluster).bulk.set_sftp(
            SftpSettings(
                address=self.address or lab.address(table.host),
                port=self.port or lab.ports.sftp,
                user=self.user or table.user,
                password=self.password or table.password,
                directory=self.directory or table.directory,
            )
        )


class BulkExport(ClusterOperation):
    do: Literal["bulk-export"]
    types: BulkTypes = ("All",)

    def what(self) -> str:
        return f"bulk export of {', '.join(self.types)}"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).bulk.export(self.types)


class BulkConsolidate(ClusterOperation):
    do: Literal["bulk-consolidate"]
    types: BulkTypes = ("All",)

    def what(self) -> str:
        return f"bulk consolidation of {', '.join(self.types)}"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).bulk.consolidate(self.types)


class BulkImport(ClusterOperation):
    do: Literal["bulk-import"]
    types: BulkTypes = ("All",)

    def what(self) -> str:
        return f"bulk import of {', '.join(self.types)}"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).bulk.import_certificates(self.types)
