"""The files that bulk certificate management leaves in the SFTP directory, and what they mean.

Names, layout and password of CUCM's files are UNKNOWN (facts 9.1, 14.7: they stand in screenshots only); these are
ours. A name holds at most one `@`, which neither clusters nor nodes may have in theirs, so no two files collide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from cucm.certificate_bundle import MAX_BUNDLE, BundledCertificate, decode_bundle
from cucm.errors import DecodeError, LabError, LimitExceeded
from cucm.roles import CertificateUnit
from cucm.versions import BulkType, bulk_file_is_readable

if TYPE_CHECKING:
    from lab.sftp_client import RemoteDirectory

BULK_PASSWORD: Final = b"cucm-lab-bulk"
"""UNKNOWN on CUCM: ours. Both clusters must know it without being told, so it protects nothing."""
_CONSOLIDATED: Final = "consolidated"

EXPORTED_UNITS: Final = {
    BulkType.TFTP: CertificateUnit.CALLMANAGER,
    BulkType.CAPF: CertificateUnit.CAPF,
    BulkType.TVS: CertificateUnit.TVS,
    BulkType.TOMCAT: CertificateUnit.TOMCAT,
    BulkType.ITLRECOVERY: CertificateUnit.ITLRECOVERY,
}
IMPORT_STORES: Final = {
    BulkType.TFTP: (CertificateUnit.PHONE_SAST_TRUST, CertificateUnit.CALLMANAGER_TRUST),
    BulkType.CAPF: (CertificateUnit.CALLMANAGER_TRUST,),
    # no text says where it goes [inferred]
    BulkType.TVS: (CertificateUnit.TVS_TRUST,),
    BulkType.TOMCAT: (CertificateUnit.TOMCAT_TRUST,),
    BulkType.ITLRECOVERY: (CertificateUnit.PHONE_SAST_TRUST, CertificateUnit.CALLMANAGER_TRUST),
}
"""Into which stores an import puts what others exported (facts 9.1)."""


def node_file_name(bulk_type: BulkType, cluster: str, node: str) -> str:
    """One file per node and type [inferred]."""
    return f"{node}@{cluster}.{bulk_type.lower()}.p12"


def consolidated_name(bulk_type: BulkType) -> str:
    return f"{_CONSOLIDATED}.{bulk_type.lower()}.p12"


def is_export(name: str, bulk_type: BulkType) -> bool:
    """Whether a file of the directory is some node's export of that type."""
    return "@" in name and name.endswith(f".{bulk_type.lower()}.p12")


async def read_bulk_file(directory: RemoteDirectory, name: str, bulk_type: BulkType) -> tuple[BundledCertificate, ...]:
    """LabError for a file that is no bulk file of that type."""
    try:
        found = decode_bundle(await directory.read(name, MAX_BUNDLE), BULK_PASSWORD)
    except (DecodeError, LimitExceeded) as error:
        raise LabError(
            f"cannot be read as a bulk file: {error.what}", where=name, mend="remove it from the server, export again"
        ) from error
    stranger = next((item for item in found if item.unit is not EXPORTED_UNITS[bulk_type]), None)
    if stranger is not None:
        raise LabError(
            f"holds a certificate of {stranger.unit}, which is none of {bulk_type}",
            where=name,
            mend="remove it from the server, export again",
        )
    return found


async def read_exports(
    directory: RemoteDirectory, names: Sequence[str], bulk_type: BulkType
) -> list[BundledCertificate]:
    """All that lies there of the type, every certificate once: a pair of the whole cluster comes from each node."""
    found: dict[tuple[str, bytes], BundledCertificate] = {}
    for name in names:
        if is_export(name, bulk_type):
            for item in await read_bulk_file(directory, name, bulk_type):
                found.setdefault((item.cluster, item.der), item)
    return list(found.values())


def require_readable(version: str, certificates: Iterable[BundledCertificate], where: str) -> None:
    """CSCuy43181 (facts 9.1): LabError when one of them was exported by a release whose files `version` cannot read."""
    for item in certificates:
        if not bulk_file_is_readable(version, item.version):
            raise LabError(
                f"{item.version} ({item.cluster}) exported it, and {version} cannot import that (CSCuy43181)",
                where=where,
                mend="download the certificates of the other cluster and upload them by hand (facts 11: F10)",
            )
