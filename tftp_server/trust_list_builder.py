"""Build and sign what a node's TFTP service hands out: CTL, ITL and signed files.

Sources: facts 6.1 and 6.2 (who signs), 6.3 (which records), 3 (format), 7.3 (the rollback ITL), 8 (digest parameter).
Certificates come from the node's database, the signer's private key from the node's `security` folder. Contents and
signing are apart: contents are compared to find out whether a list must be signed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Protocol

from cucm.database import NodeDatabase, ProcessNode, StoredCertificate
from cucm.errors import EnvironmentProblem, LabError, UsageError
from cucm.events.trust_lists import FileSigned, TrustListSigned
from cucm.identity import Identity, describe
from cucm.roles import FUNCTION_TEXTS, CertificateUnit, TrustRole
from cucm.trust import verify_signature
from cucm.versions import RecoveryScope, VersionProfile
from cucm.wire.signed_file import build_signed_file, decode_signed_file
from cucm.wire.trust_list import (
    CTL_FILE_NAME,
    ITL_FILE_NAME,
    DigestAlgorithm,
    Record,
    SignerId,
    blank_record,
    build_trust_list,
    decode_trust_list,
    signed_bytes,
)
from tftp_server.cluster_view import (
    CALLMANAGER_SERVICE,
    CAPF_SERVICE,
    TFTP_SERVICE,
    TVS_SERVICE,
    digest_of,
    is_mixed_mode,
    node_named,
    nodes_of,
    nodes_running,
    prepares_rollback,
    runs,
)

MAX_KEY_FILE: Final = 64 * 1024
"""Ours; a PKCS#8 RSA-4096 key has 2.4 KB."""


class SigningKeys(Protocol):
    def private_key_der(self, unit: CertificateUnit) -> bytes:
        """The unit's private key, PKCS#8 DER without a password. Raises LabError when there is none."""
        ...


class KeyFolder:
    """The keys of one node: `<unit>.key` in its `security` folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def private_key_der(self, unit: CertificateUnit) -> bytes:
        path = self._directory / f"{unit}.key"
        try:
            with path.open("rb") as file:
                return file.read(MAX_KEY_FILE)
        except OSError as error:
            raise EnvironmentProblem(
                f"the private key of {unit} cannot be read: {error.strerror}",
                where=str(path),
                mend=f"regenerate the {unit} certificate of this node",
            ) from error


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose key signs, and with which digest. `certificate` is DER."""

    unit: CertificateUnit
    certificate: bytes = field(repr=False)
    digest: DigestAlgorithm

    @property
    def name(self) -> SignerId:
        """As a header names it: subject, serial, issuer."""
        known = describe(self.certificate)
        return SignerId(known.subject, known.serial, known.issuer)

    def identity(self, keys: SigningKeys) -> Identity:
        """Certificate and key together. Raises LabError when the key is missing or belongs to another certificate."""
        return Identity.load(self.certificate, keys.private_key_der(self.unit), ours=True)


@dataclass(frozen=True, slots=True)
class TrustListContents:
    """What a CTL or ITL says, before anybody signs it. `signer_version` is tag 28."""

    file_name: str
    signer: Signer
    records: tuple[Record, ...]
    signer_version: tuple[int, int] | None = None

    def is_said_by(self, data: bytes) -> bool:
        """Whether a file says just this, whenever it was signed, and its signature holds."""
        try:
            known = decode_trust_list(data)
            said = TrustListContents(known.file_name, self.signer, known.records, known.signer_version)
            if said != self or known.trailing or (known.signer, known.digest) != (self.signer.name, self.signer.digest):
                return False
            key = describe(self.signer.certificate).public_key_record
            verify_signature(signed_bytes(data), key, known.digest, known.signature)
        except LabError:
            return False
        return True


def build_ctl(database: NodeDatabase, keys: SigningKeys, profile: VersionProfile, now: float) -> bytes:
    """The cluster's CTL, signed with the publisher's key that the release prescribes; `now` in Unix seconds.

    Raises LabError when the signer's certificate or key is missing, UsageError when the release has no tokenless CTL.
    """
    return sign_trust_list(ctl_contents(database, profile), keys, now)


def build_itl(database: NodeDatabase, node_name: str, keys: SigningKeys, profile: VersionProfile, now: float) -> bytes:
    """The ITL of TFTP node `node_name`, signed by it; `now` in Unix seconds. Raises LabError like `build_ctl`."""
    return sign_trust_list(itl_contents(database, node_name, profile), keys, now)


def sign_trust_list(contents: TrustListContents, keys: SigningKeys, now: float) -> bytes:
    """Raises LabError when the key is missing or does not belong to the signer's certificate."""
    identity = contents.signer.identity(keys)
    return build_trust_list(
        signer=identity.signer_id,
        records=contents.records,
        digest=contents.signer.digest,
        sign=identity.sign,
        signature_length=identity.signature_length,
        file_name=contents.file_name,
        timestamp=int(now),
        signer_version=contents.signer_version,
    )


def file_signer(database: NodeDatabase, node_name: str, profile: VersionProfile) -> Signer:
    """Who signs files of TFTP node `node_name`: its CallManager, which phones know by the TFTP function (facts 3.3).

    That it stays so from 12.0 on, where ITLRecovery signs the lists, is [inferred]: ITLRecovery is listed as SAST only.
    """
    unit = profile.configuration_signer
    return Signer(unit, _required(database, unit, node_name).der, digest_of(database, profile))


def sign_file(content: bytes, file_name: str, signer: Signer, keys: SigningKeys, now: float) -> bytes:
    """`content` as the signed file `file_name` (a .sgn name); `now` in Unix seconds. Raises LabError.

    That the header's FILENAME ends in `.sgn` is [recall].
    """
    identity = signer.identity(keys)
    return build_signed_file(
        content,
        signer=identity.signer_id,
        file_name=file_name,
        digest=signer.digest,
        sign=identity.sign,
        signature_length=identity.signature_length,
        timestamp=int(now),
    )


def ctl_contents(database: NodeDatabase, profile: VersionProfile) -> TrustListContents:
    """What the cluster's CTL must say now: facts 6.1 and 6.3. Raises UsageError, LabError.

    SAST records come first, as in Cisco's sample with two of them; where the second one stands in a tokenless CTL is
    [inferred]. Then the publisher's CCM+TFTP, CAPF, and the subscribers' CCM+TFTP, as in the sample of 10.5(1).
    """
    if profile.ctl_signer is None:
        raise UsageError(
            f"CUCM {profile.version} has no tokenless CTL, and the lab has no USB tokens",
            mend="take a release from 10.0 on, or a non-secure cluster",
        )
    publisher, *subscribers = nodes_of(database)
    signer = _required(database, profile.ctl_signer, publisher.name)
    records = [
        *_ctl_sast_records(database, profile, publisher),
        *_ctl_callmanager_records(database, publisher),
        *_capf_records(database),
        *(record for node in subscribers for record in _ctl_callmanager_records(database, node)),
    ]
    return TrustListContents(
        CTL_FILE_NAME, Signer(profile.ctl_signer, signer.der, digest_of(database, profile)), tuple(records)
    )


def itl_contents(database: NodeDatabase, node_name: str, profile: VersionProfile) -> TrustListContents:
    """What the ITL of TFTP node `node_name` must say now: facts 6.2 and 6.3. Raises UsageError, LabError.

    ITLRecovery and CallManager as SAST, CallManager as (CCM+)TFTP, TVS of every node, CAPF. The order is that of the
    facts; no full sample of the real file was at hand [inferred].
    """
    node = node_named(database, node_name)
    recovery_node = nodes_of(database)[0] if profile.recovery_scope is RecoveryScope.CLUSTER else node
    signer_node = recovery_node if profile.itl_signer is CertificateUnit.ITLRECOVERY else node
    signer = _required(database, profile.itl_signer, signer_node.name)
    callmanager = _required(database, CertificateUnit.CALLMANAGER, node.name)
    recovery = _own(database, CertificateUnit.ITLRECOVERY, recovery_node.name) if profile.has_itlrecovery else ()
    records = [
        *(_record(stored, TrustRole.SAST, recovery_node) for stored in recovery),
        _record(callmanager, TrustRole.SAST, node),
        *_itl_service_records(database, callmanager, node),
        *_capf_records(database),
    ]
    return TrustListContents(
        ITL_FILE_NAME,
        Signer(profile.itl_signer, signer.der, digest_of(database, profile)),
        tuple(records),
        profile.signer_version,
    )


def trust_list_signed(data: bytes) -> TrustListSigned:
    """The event that tells of a list just built. Raises DecodeError if it is none."""
    known = decode_trust_list(data)
    return TrustListSigned(
        file_name=known.file_name,
        signer=known.signer.subject,
        signer_serial=known.signer.serial,
        digest=known.digest.name,
        records=tuple(f"{_function_text(record.function)} {record.dns_name or ''}" for record in known.records),
        timestamp=known.timestamp,
        sha1=hashlib.sha1(data).digest(),
    )


def file_signed(data: bytes) -> FileSigned:
    """The event that tells of a .sgn file just built. Raises DecodeError if it is none."""
    known = decode_signed_file(data)
    return FileSigned(
        file_name=known.file_name,
        signer=known.signer.subject,
        signer_serial=known.signer.serial,
        digest=known.digest.name,
        timestamp=known.timestamp,
        sha1=hashlib.sha1(data).digest(),
    )


_TEXTS: Final[Mapping[int, str]] = {int(role): text for role, text in FUNCTION_TEXTS.items()}


def _function_text(function: int) -> str:
    return _TEXTS.get(function, str(function))


def _own(database: NodeDatabase, unit: CertificateUnit, node_name: str) -> Iterator[StoredCertificate]:
    """The node's own certificate of that unit: one, or none."""
    return (stored for stored in database.certificates(unit) if stored.server_name == node_name)


def _required(database: NodeDatabase, unit: CertificateUnit, node_name: str) -> StoredCertificate:
    for stored in _own(database, unit, node_name):
        return stored
    raise LabError(
        f"{node_name} has no {unit} certificate",
        where=str(database.path),
        mend=f"regenerate {unit} on {node_name}, or wait for replication",
    )


def _record(stored: StoredCertificate, function: TrustRole, node: ProcessNode) -> Record:
    return _certificate_record(stored.der, function, node.name, node.ip_address)


def _certificate_record(der: bytes, function: TrustRole, dns_name: str, ip_address: str | None) -> Record:
    known = describe(der)
    return Record.build(
        dns_name=dns_name,
        subject=known.subject,
        function=function,
        issuer=known.issuer,
        serial=known.serial,
        public_key=known.public_key_record,
        signature=known.signature,
        certificate=der,
        ip_address=ip_address,
    )


def _ctl_sast_records(database: NodeDatabase, profile: VersionProfile, publisher: ProcessNode) -> list[Record]:
    own = [stored for unit in profile.ctl_sast_units for stored in _own(database, unit, publisher.name)]
    return [
        *(_record(stored, TrustRole.SAST, publisher) for stored in own),
        *(
            _foreign_sast_records(database, {stored.der for stored in own})
            if profile.ctl_takes_phone_sast_trust
            else ()
        ),
    ]


def _foreign_sast_records(database: NodeDatabase, listed: set[bytes]) -> Iterator[Record]:
    """Certificates of Phone-SAST-trust, which `utils ctl update CTLFile` of 12.x copies (facts 6.3, [inferred])."""
    for stored in database.certificates(CertificateUnit.PHONE_SAST_TRUST):
        if stored.der not in listed:
            address = stored.ip_address if stored.ip_address and _is_ipv4(stored.ip_address) else None
            yield _certificate_record(stored.der, TrustRole.SAST, stored.server_name, address)


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _ctl_callmanager_records(database: NodeDatabase, node: ProcessNode) -> list[Record]:
    """One CCM+TFTP record for a CallManager or TFTP node; blank in a cluster put back to non-secure mode."""
    if not runs(database, node, CALLMANAGER_SERVICE, TFTP_SERVICE):
        return []
    if not is_mixed_mode(database):
        return [blank_record(TrustRole.CALLMANAGER_TFTP, dns_name=node.name, ip_address=node.ip_address)]
    own = _own(database, CertificateUnit.CALLMANAGER, node.name)
    return [_record(stored, TrustRole.CALLMANAGER_TFTP, node) for stored in own]


def _itl_service_records(database: NodeDatabase, callmanager: StoredCertificate, node: ProcessNode) -> list[Record]:
    """The TFTP section and the TVS section; both blank while the cluster prepares for a rollback (facts 7.3).

    The layout of the blank sections is UNKNOWN (facts 14): a blank record in the place of each real one, as the CTL of
    a cluster put back to non-secure mode has them.
    """
    function = TrustRole.CALLMANAGER_TFTP if is_mixed_mode(database) else TrustRole.TFTP
    sections = [(callmanager, function, node)]
    for tvs_node in nodes_running(database, TVS_SERVICE):
        own = _own(database, CertificateUnit.TVS, tvs_node.name)
        sections += [(stored, TrustRole.TVS, tvs_node) for stored in own]
    if prepares_rollback(database):
        return [blank_record(role, dns_name=each.name, ip_address=each.ip_address) for _, role, each in sections]
    return [_record(stored, role, each) for stored, role, each in sections]


def _capf_records(database: NodeDatabase) -> list[Record]:
    return [
        _record(stored, TrustRole.CAPF, node)
        for node in nodes_running(database, CAPF_SERVICE)
        for stored in _own(database, CertificateUnit.CAPF, node.name)
    ]
