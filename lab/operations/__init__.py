"""The verbs of a story: what an administrator, a phone's user or an attacker does to a running lab.

Each operation is a checked table of a story (`do = "upload-certificate"`, ...) that changes a store, a service, a
file or a phone and nothing else; what comes of it is for the protocols to show. None may know which story it is in.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lab.operations.base import Operation
from lab.operations.bulk import (
    BulkConsolidate,
    BulkExport,
    BulkImport,
    SetBulkSftp,
)
from lab.operations.certificates import (
    DeleteCertificate,
    GenerateSigningRequest,
    ImportSignedCertificate,
    RegenerateCertificate,
    SignCertificate,
    SynchroniseCertificates,
    UploadCertificate,
    UploadCertificateFile,
    UploadTokenCertificate,
)
from lab.operations.phones import (
    BootPhone,
    DeleteLsc,
    EraseSecuritySettings,
    InstallLsc,
    PowerOffPhone,
    ResetPhone,
    WaitForRegistration,
)
from lab.operations.replication import (
    BreakReplication,
    PauseReplication,
    RepairReplication,
    ResumeReplication,
    SetReplicationLag,
    WaitForReplication,
)
from lab.operations.services import (
    ActivateService,
    CrashNode,
    CrashService,
    DeactivateService,
    ReplaceTvsByImpostor,
    RestartService,
    SetReachability,
    StartNode,
    StartService,
    StopService,
)
from lab.operations.settings import (
    AddDevice,
    AdvanceClock,
    RemoveDevice,
    SetEnterpriseParameter,
    SetOption150,
    SetTvsCache,
)
from lab.operations.trust_lists import (
    AlterCtlFile,
    DeleteCtlFile,
    ExportRecoveryPair,
    ResetCtlLocalkey,
    ResetItl,
    RunCtlClient,
    SetClusterMixedMode,
    SetClusterNonSecureMode,
    UpdateCtlFile,
)

__all__ = [
    "ActivateService",
    "AddDevice",
    "AdvanceClock",
    "AlterCtlFile",
    "AnyOperation",
    "BootPhone",
    "BreakReplication",
    "BulkConsolidate",
    "BulkExport",
    "BulkImport",
    "CrashNode",
    "CrashService",
    "DeactivateService",
    "DeleteCertificate",
    "DeleteCtlFile",
    "DeleteLsc",
    "EraseSecuritySettings",
    "ExportRecoveryPair",
    "GenerateSigningRequest",
    "ImportSignedCertificate",
    "InstallLsc",
    "Operation",
    "PauseReplication",
    "PowerOffPhone",
    "RegenerateCertificate",
    "RemoveDevice",
    "RepairReplication",
    "ReplaceTvsByImpostor",
    "ResetCtlLocalkey",
    "ResetItl",
    "ResetPhone",
    "RestartService",
    "ResumeReplication",
    "RunCtlClient",
    "SetBulkSftp",
    "SetClusterMixedMode",
    "SetClusterNonSecureMode",
    "SetEnterpriseParameter",
    "SetOption150",
    "SetReachability",
    "SetReplicationLag",
    "SetTvsCache",
    "SignCertificate",
    "StartNode",
    "StartService",
    "StopService",
    "SynchroniseCertificates",
    "UpdateCtlFile",
    "UploadCertificate",
    "UploadCertificateFile",
    "UploadTokenCertificate",
    "WaitForRegistration",
    "WaitForReplication",
]

AnyOperation = Annotated[
    ActivateService
    | AddDevice
    | DeactivateService
    | AdvanceClock
    | AlterCtlFile
    | BootPhone
    | BreakReplication
    | BulkConsolidate
    | BulkExport
    | BulkImport
    | CrashNode
    | CrashService
    | DeleteCertificate
    | DeleteCtlFile
    | DeleteLsc
    | EraseSecuritySettings
    | ExportRecoveryPair
    | GenerateSigningRequest
    | ImportSignedCertificate
    | InstallLsc
    | PauseReplication
    | PowerOffPhone
    | RegenerateCertificate
    | RemoveDevice
    | RepairReplication
    | ReplaceTvsByImpostor
    | ResetCtlLocalkey
    | ResetItl
    | ResetPhone
    | RestartService
    | ResumeReplication
    | RunCtlClient
    | SetBulkSftp
    | SetClusterMixedMode
    | SetClusterNonSecureMode
    | SetEnterpriseParameter
    | SetOption150
    | SetReachability
    | SetReplicationLag
    | SetTvsCache
    | SignCertificate
    | StartNode
    | StartService
    | StopService
    | SynchroniseCertificates
    | UpdateCtlFile
    | UploadCertificate
    | UploadCertificateFile
    | UploadTokenCertificate
    | WaitForRegistration
    | WaitForReplication,
    Field(discriminator="do"),
]
