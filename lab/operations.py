"""The verbs of a story: what an administrator, a phone's user or an attacker does to a running lab.

Each operation is a checked table of a story (`do = "upload-certificate"`, ...) that changes a store, a service, a
file or a phone and nothing else; what comes of it is for the protocols to show. None may know which story it is in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from cucm.roles import CertificateUnit
from lab.runtime import Lab
from lab.topology import Name, Service, Table
from tvs_server.certificate_cache import FreshnessMode


class Operation(Table, ABC):
    """Base: `note` is a remark for the reader of the timeline, for example which step of the technote this is."""

    note: str = ""

    @abstractmethod
    def says(self, lab: Lab) -> str:
        """One line in an administrator's words. Raises UsageError when it names what the lab does not have."""

    @abstractmethod
    async def perform(self, lab: Lab) -> None:
        """Do it. Raises LabError when the emulated system refuses."""


class BootPhone(Operation):
    do: Literal["boot-phone"]
    phone: Name

    def says(self, lab: Lab) -> str:
        return f"power on {lab.phone(self.phone).model.name}"

    async def perform(self, lab: Lab) -> None:
        await lab.phone(self.phone).boot()


class ResetPhone(Operation):
    do: Literal["reset-phone"]
    phone: Name

    def says(self, lab: Lab) -> str:
        return f"reset {lab.phone(self.phone).model.name}"

    async def perform(self, lab: Lab) -> None:
        await lab.phone(self.phone).reset()


class PowerOffPhone(Operation):
    do: Literal["power-off-phone"]
    phone: Name

    def says(self, lab: Lab) -> str:
        return f"power off {lab.phone(self.phone).model.name}"

    async def perform(self, lab: Lab) -> None:
        await lab.phone(self.phone).power_off()


class EraseSecuritySettings(Operation):
    do: Literal["erase-security-settings"]
    phone: Name

    def says(self, lab: Lab) -> str:
        return f"on {lab.phone(self.phone).model.name}: erase security settings (CTL and ITL)"

    async def perform(self, lab: Lab) -> None:
        lab.phone(self.phone).erase_security_settings()


class SetOption150(Operation):
    do: Literal["set-option-150"]
    cluster: Name

    def says(self, lab: Lab) -> str:
        return f"DHCP: option 150 := {', '.join(lab.cluster(self.cluster).tftp_addresses)} ({self.cluster})"

    async def perform(self, lab: Lab) -> None:
        lab.set_option_150(self.cluster)


class UploadCertificate(Operation):
    """Download a node's own certificate in one cluster and upload it to trust stores of another."""

    do: Literal["upload-certificate"]
    certificate: CertificateUnit
    source: Annotated[Name, Field(alias="from")]
    to: Name
    stores: Annotated[tuple[CertificateUnit, ...], Field(min_length=1)]

    def says(self, lab: Lab) -> str:
        node = lab.cluster(self.source).publisher.name
        return f"{lab.cluster(self.to).name}: upload {self.certificate}.pem of {node} as {' and '.join(self.stores)}"

    async def perform(self, lab: Lab) -> None:
        for node in lab.cluster(self.source).nodes.values():
            for store in self.stores:
                lab.cluster(self.to).upload_certificate(node.certificate(self.certificate), store)


class RegenerateCertificate(Operation):
    do: Literal["regenerate-certificate"]
    cluster: Name
    certificate: CertificateUnit

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: regenerate {self.certificate}"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).regenerate_certificate(self.certificate)


class UpdateCtlFile(Operation):
    do: Literal["update-ctl-file"]
    cluster: Name

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: utils ctl update CTLFile"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).update_ctl_file()


class SetEnterpriseParameter(Operation):
    do: Literal["set-enterprise-parameter"]
    cluster: Name
    parameter: str
    value: str

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: enterprise parameter “{self.parameter}” := {self.value}"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).set_parameter(self.parameter, self.value)


class SetTvsCache(Operation):
    do: Literal["set-tvs-cache"]
    cluster: Name
    mode: FreshnessMode

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: TVS certificate cache is {self.mode}"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).set_tvs_cache(self.mode)


class StartService(Operation):
    do: Literal["start-service"]
    cluster: Name
    service: Service

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: start {self.service} on all nodes"

    async def perform(self, lab: Lab) -> None:
        for node in lab.cluster(self.cluster).nodes_running(self.service):
            await node.start_service(self.service)


class StopService(Operation):
    do: Literal["stop-service"]
    cluster: Name
    service: Service

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: stop {self.service} on all nodes"

    async def perform(self, lab: Lab) -> None:
        for node in lab.cluster(self.cluster).nodes_running(self.service):
            await node.stop_service(self.service)


class RestartService(Operation):
    do: Literal["restart-service"]
    cluster: Name
    service: Service

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: restart {self.service} on all nodes"

    async def perform(self, lab: Lab) -> None:
        for node in lab.cluster(self.cluster).nodes_running(self.service):
            await node.restart_service(self.service)


class AddDevice(Operation):
    do: Literal["add-device"]
    cluster: Name
    phone: Name

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: add device {lab.phone(self.phone).model.name}"

    async def perform(self, lab: Lab) -> None:
        lab.provision(self.phone, self.cluster)


class RemoveDevice(Operation):
    do: Literal["remove-device"]
    cluster: Name
    phone: Name

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).name}: delete device {lab.phone(self.phone).model.name}"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).remove_device(lab.phone(self.phone).model.name)


class AlterCtlFile(Operation):
    """Somebody changes one byte of the CTL file on the TFTP node's disk, behind the cluster's back."""

    do: Literal["alter-ctl-file"]
    cluster: Name
    from_end: Annotated[int, Field(ge=1)] = 100

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).publisher.name}: one byte of CTLFile.tlv changes on the disk"

    async def perform(self, lab: Lab) -> None:
        lab.cluster(self.cluster).publisher.alter_ctl_file(self.from_end)


class ReplaceTvsByImpostor(Operation):
    """A TVS with a key of its own, of the same name, takes the node's port 2445; starting the real TVS ends it."""

    do: Literal["replace-tvs-by-impostor"]
    cluster: Name

    def says(self, lab: Lab) -> str:
        return f"{lab.cluster(self.cluster).publisher.name}: an impostor with another certificate answers on TVS's port"

    async def perform(self, lab: Lab) -> None:
        await lab.cluster(self.cluster).publisher.replace_tvs_by_impostor()


AnyOperation = Annotated[
    AddDevice
    | AlterCtlFile
    | BootPhone
    | EraseSecuritySettings
    | PowerOffPhone
    | RegenerateCertificate
    | RemoveDevice
    | ReplaceTvsByImpostor
    | ResetPhone
    | RestartService
    | SetEnterpriseParameter
    | SetOption150
    | SetTvsCache
    | StartService
    | StopService
    | UpdateCtlFile
    | UploadCertificate,
    Field(discriminator="do"),
]
