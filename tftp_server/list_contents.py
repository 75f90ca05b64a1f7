"""What a cluster's CTL and ITL say, and who is to sign them, before anybody does.

Sources: facts 6.1 and 6.2 (who signs), 6.3 (which records), 4.3 (reset lists), 8 (digest parameter). Contents are
compared to find out whether a list must be signed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import lru_cache
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import rsa

from cucm.database import NodeDatabase, ProcessNode
from cucm.errors import LabError, UsageError
from cucm.identity import Identity, describe, load_certificate
from cucm.records import dataclass
from cucm.roles import CertificateUnit, TrustRole
from cucm.trust import verify_signature
from cucm.versions import RecoveryScope, VersionProfile
from cucm.wire.trust_list import (
    CTL_FILE_NAME,
    ITL_FILE_NAME,
    DigestAlgorithm,
    Record,
    SignerId,
    decode_trust_list,
    signed_bytes,
)
from tftp_server.cluster_view import digest_of, node_named, nodes_of
from tftp_server.list_records import (
    Maker,
    capf_records,
    ctl_callmanager_records,
    foreign_sast_records,
    itl_service_records,
    required_certificate,
    sast_records,
    token_record,
)

SIGNING_UNITS: Final = (CertificateUnit.CALLMANAGER, CertificateUnit.ITLRECOVERY)
"""Units whose keys can sign a list without tokens (facts 6.1, 6.2)."""
MIN_TOKENS: Final = 2
"""A CTL of the CTL client lists two tokens, one of which signs (facts 6.1)."""


class SigningKeys(Protocol):
    def private_key_der(self, unit: CertificateUnit) -> bytes:
        """The unit's private key, PKCS#8 DER without a password. Raises LabError when there is none."""
        ...


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
        return _identity(self.certificate, keys.private_key_der(self.unit))


@lru_cache(maxsize=32)
def _identity(certificate: bytes, private_key: bytes) -> Identity:
    """One object for a key, for its first signature costs as much again as every other."""
    return Identity.load(certificate, private_key, ours=True)


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


def ctl_contents(
    database: NodeDatabase, profile: VersionProfile, signer_unit: CertificateUnit | None = None
) -> TrustListContents:
    """What the cluster's tokenless CTL must say now: facts 6.1 and 6.3. Raises UsageError, LabError.

    SAST records come first, as in Cisco's sample with two of them; where the second one stands in a tokenless CTL is
    [inferred]. Then the publisher's CCM+TFTP, CAPF, and the subscribers' CCM+TFTP, as in the sample of 10.5(1).
    `signer_unit` signs in the place of the release's signer (`utils ctl reset localkey`); if the release does not list
    it, it is listed behind the others, since nobody could believe the next list otherwise [inferred].
    """
    if profile.ctl_signer is None:
        raise UsageError(
            f"CUCM {profile.version} has no tokenless CTL",
            mend="sign it with USB tokens, or take a release from 10.0 on",
        )
    publisher = nodes_of(database)[0]
    unit = signer_unit or profile.ctl_signer
    signer = _signer(database, profile, unit, publisher)
    units = profile.ctl_sast_units if unit in profile.ctl_sast_units else (*profile.ctl_sast_units, unit)
    records = sast_records(database, units, publisher, Maker.CLUSTER)
    if profile.ctl_takes_phone_sast_trust:
        records += foreign_sast_records(database, {record.certificate or b"" for record in records})
    records += _ctl_service_records(database, Maker.CLUSTER)
    return TrustListContents(CTL_FILE_NAME, signer, tuple(records))


def token_ctl_records(
    database: NodeDatabase, profile: VersionProfile, tokens: Sequence[bytes], signing: bytes
) -> tuple[Record, ...]:
    """Records of a CTL made with USB tokens, whose certificates are DER: the signing one first (facts 6.1).

    Certificates of Phone-SAST-trust are left out: only the CLI is said to copy them [inferred]. Raises UsageError for
    a release without tokens, fewer than two of them or a signing one that is not among them.
    """
    if not profile.supports_tokens:
        raise UsageError(f"CUCM {profile.version} takes no security tokens", mend="use the tokenless CTL")
    if signing not in tokens or len(set(tokens)) < MIN_TOKENS:
        raise UsageError(
            f"{len(set(tokens))} security tokens, the signing one {'' if signing in tokens else 'not '}among them",
            mend=f"give at least {MIN_TOKENS} different tokens, one of which signs",
        )
    publisher = nodes_of(database)[0]
    return (
        *map(token_record, dict.fromkeys((signing, *tokens))),
        *sast_records(database, profile.ctl_token_sast_units, publisher, Maker.CTL_CLIENT),
        *_ctl_service_records(database, Maker.CTL_CLIENT),
    )


def _ctl_service_records(database: NodeDatabase, maker: Maker) -> list[Record]:
    publisher, *subscribers = nodes_of(database)
    return [
        *ctl_callmanager_records(database, publisher, maker),
        *capf_records(database, maker),
        *(record for node in subscribers for record in ctl_callmanager_records(database, node, maker)),
    ]


def itl_contents(
    database: NodeDatabase, node_name: str, profile: VersionProfile, signer_unit: CertificateUnit | None = None
) -> TrustListContents:
    """What the ITL of TFTP node `node_name` must say now: facts 6.2 and 6.3. Raises UsageError, LabError.

    ITLRecovery and CallManager as SAST, CallManager as (CCM+)TFTP, TVS of every node, CAPF. The order is that of the
    facts; no full sample of the real file was at hand [inferred]. `signer_unit` signs in the place of the release's
    signer (`utils itl reset localkey`), with this node's certificate of that unit. Which node's list a reset hands to
    the other TFTP nodes is the caller's business.
    """
    node = node_named(database, node_name)
    signer = _signer(database, profile, signer_unit or profile.itl_signer, node)
    callmanager = required_certificate(database, CertificateUnit.CALLMANAGER, node.name)
    recovery_node = _holder_of(database, profile, CertificateUnit.ITLRECOVERY, node)
    recovery = (CertificateUnit.ITLRECOVERY,) if profile.has_itlrecovery else ()
    records = [
        *sast_records(database, recovery, recovery_node, Maker.CLUSTER),
        Maker.CLUSTER.record(callmanager, TrustRole.SAST, node),
        *itl_service_records(database, callmanager, node),
        *capf_records(database, Maker.CLUSTER),
    ]
    return TrustListContents(ITL_FILE_NAME, signer, tuple(records), profile.signer_version)


def _signer(database: NodeDatabase, profile: VersionProfile, unit: CertificateUnit, node: ProcessNode) -> Signer:
    if unit not in SIGNING_UNITS or (unit is CertificateUnit.ITLRECOVERY and not profile.has_itlrecovery):
        raise UsageError(
            f"{unit} signs no list of CUCM {profile.version}",
            mend=f"one of: {', '.join(SIGNING_UNITS if profile.has_itlrecovery else SIGNING_UNITS[:1])}",
        )
    holder = _holder_of(database, profile, unit, node)
    return Signer(unit, required_certificate(database, unit, holder.name).der, digest_of(database, profile))


def _holder_of(
    database: NodeDatabase, profile: VersionProfile, unit: CertificateUnit, node: ProcessNode
) -> ProcessNode:
    """Under whose name a node's certificate lies: the publisher's, where the cluster has one ITLRecovery for all."""
    is_clusters = unit is CertificateUnit.ITLRECOVERY and profile.recovery_scope is RecoveryScope.CLUSTER
    return nodes_of(database)[0] if is_clusters else node


def require_recovery_key(database: NodeDatabase, profile: VersionProfile, node_name: str) -> None:
    """Before `utils itl reset localkey`: the node's ITLRecovery key must not be smaller than its CallManager's (F20).

    Raises LabError if it is, or if a certificate is missing; UsageError for a release without the command.
    """
    if not profile.has_itlrecovery:
        raise UsageError(f"CUCM {profile.version} has no utils itl reset", mend="take a release from 10.0 on")
    node = node_named(database, node_name)
    bits = {}
    for unit in SIGNING_UNITS:
        holder = _holder_of(database, profile, unit, node)
        bits[unit] = _rsa_bits(required_certificate(database, unit, holder.name).der)
    recovery, callmanager = bits[CertificateUnit.ITLRECOVERY], bits[CertificateUnit.CALLMANAGER]
    if recovery and callmanager and recovery < callmanager:
        raise LabError(
            f"the ITLRecovery key has {recovery} bits, the CallManager's {callmanager}",
            where=node_name,
            mend="regenerate ITLRecovery (set cert regen ITLRecovery)",
        )


def _rsa_bits(der: bytes) -> int | None:
    key = load_certificate(der).public_key()
    return key.key_size if isinstance(key, rsa.RSAPublicKey) else None
