"""What differs between CUCM releases in the signing of trust lists, as data with provenance.

Sources: facts 6.1 (CTL signer, SAST records), 6.2 (ITL signer, scope of ITLRecovery), 3.1 and 12 (tag 28), 8 (digest).
Only the tokenless CTL (`utils ctl ...`) is described: the lab has no USB tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cucm.errors import UsageError
from cucm.roles import CertificateUnit
from cucm.wire.trust_list import DigestAlgorithm


class Confidence(StrEnum):
    """How well a datum is known; the marks of the facts page."""

    STATED = "stated"
    CALCULATED = "calc"
    INFERRED = "inferred"
    RECALL = "recall"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a datum comes from (`facts 6.1`) and how well it is known."""

    source: str
    confidence: Confidence
    remark: str = ""


class RecoveryScope(StrEnum):
    """Whose ITLRecovery pair a node's lists carry (facts 6.2)."""

    ABSENT = "absent"
    NODE = "node"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class VersionProfile:
    """How one CUCM release makes trust lists.

    `version` is the prefix of the release's number. `ctl_sast_units` are the units whose certificates the tokenless
    CTL lists as SAST, the signer first; empty where there is no tokenless CTL. `signer_version` is tag 28 of the ITL
    header as (major, minor), None where it is not written. `provenance` has an entry for each of the other fields.
    """

    version: str
    ctl_sast_units: tuple[CertificateUnit, ...]
    itl_signer: CertificateUnit
    recovery_scope: RecoveryScope
    ctl_takes_phone_sast_trust: bool = False
    signer_version: tuple[int, int] | None = None
    default_digest: DigestAlgorithm = DigestAlgorithm.SHA1
    configuration_signer: CertificateUnit = CertificateUnit.CALLMANAGER
    provenance: Mapping[str, Provenance] = field(default_factory=dict, compare=False, repr=False)

    @property
    def ctl_signer(self) -> CertificateUnit | None:
        """The unit whose key signs the CTL; None where only USB tokens sign it."""
        return self.ctl_sast_units[0] if self.ctl_sast_units else None

    @property
    def has_itlrecovery(self) -> bool:
        return self.recovery_scope is not RecoveryScope.ABSENT

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version prefix as numbers, for comparing releases."""
        return tuple(int(part) for part in self.version.split("."))


_CALLMANAGER_SIGNS: Final = (CertificateUnit.CALLMANAGER,)
_CALLMANAGER_SIGNS_RECOVERY_TOO: Final = (CertificateUnit.CALLMANAGER, CertificateUnit.ITLRECOVERY)
_RECOVERY_SIGNS: Final = (CertificateUnit.ITLRECOVERY, CertificateUnit.CALLMANAGER)
_TAG_28_OF_NEWER_ITLS: Final = (1, 1)
"""UNKNOWN beyond "1.1 or more: the server has the advanced algorithms" (facts 3.1); the smallest such value."""

_STATED: Final = Confidence.STATED
_INFERRED: Final = Confidence.INFERRED

_COMMON: Final = {
    "ctl_sast_units": Provenance("facts 6.1", _STATED),
    "itl_signer": Provenance("facts 6.2", _STATED),
    "recovery_scope": Provenance("facts 6.2", _STATED, "one pair per node before 12.5"),
    "ctl_takes_phone_sast_trust": Provenance(
        "facts 6.3", _INFERRED, "the procedure that relies on it is for 12.x and later"
    ),
    "signer_version": Provenance(
        "facts 3.1", Confidence.CALCULATED, "header sums of the 10.x samples leave no room for tag 28"
    ),
    "default_digest": Provenance("facts 8", _STATED, '"TFTP File Signature Algorithm" is SHA-1 unless changed'),
    "configuration_signer": Provenance(
        "facts 3.3", _INFERRED, "the signer must hold the TFTP function, ITLRecovery does not"
    ),
}


_NO_TOKENLESS_CTL: Final = Provenance("facts 6.1, 12", _STATED, "the tokenless CTL came with 10.0")
_NO_RECOVERY: Final = Provenance("facts 6.2, 12", _STATED, "ITLRecovery came with 10.0")
_NO_TAG_28: Final = Provenance("facts 12", _INFERRED, "tag 28 is taken to come with advanced TFTP in 12.5")
_TAG_28: Final = Provenance("facts 3.1, 12", _INFERRED, "release inferred; value UNKNOWN beyond 1.1 or more")
_NOT_IN_TABLE: Final = Provenance("facts 6.1", _INFERRED, "11.0 is not in Cisco's table; the seed shows the signer")
_LATER_THAN_TABLE: Final = Provenance("facts 6.1", _STATED, 'the row of the table is "12.0(1)+"')
_ONE_PAIR: Final = Provenance("facts 6.2", _STATED, "one pair, made by the publisher and distributed")


def _known(**different: Provenance) -> Mapping[str, Provenance]:
    return MappingProxyType(_COMMON | different)


PROFILES: Final = (
    *(
        VersionProfile(
            version,
            ctl_sast_units=(),
            itl_signer=CertificateUnit.CALLMANAGER,
            recovery_scope=RecoveryScope.ABSENT,
            provenance=_known(ctl_sast_units=_NO_TOKENLESS_CTL, recovery_scope=_NO_RECOVERY),
        )
        for version in ("8", "9")
    ),
    *(
        VersionProfile(
            version,
            ctl_sast_units=_CALLMANAGER_SIGNS,
            itl_signer=CertificateUnit.CALLMANAGER,
            recovery_scope=RecoveryScope.NODE,
            provenance=_known(),
        )
        for version in ("10.0", "10.5.1")
    ),
    *(
        VersionProfile(
            version,
            ctl_sast_units=_CALLMANAGER_SIGNS_RECOVERY_TOO,
            itl_signer=CertificateUnit.CALLMANAGER,
            recovery_scope=RecoveryScope.NODE,
            provenance=provenance,
        )
        for version, provenance in (
            ("10.5.2", _known()),
            ("11.0", _known(ctl_sast_units=_NOT_IN_TABLE, signer_version=_NO_TAG_28)),
            ("11.5", _known(signer_version=_NO_TAG_28)),
        )
    ),
    VersionProfile(
        "12.0",
        ctl_sast_units=_RECOVERY_SIGNS,
        itl_signer=CertificateUnit.ITLRECOVERY,
        recovery_scope=RecoveryScope.NODE,
        ctl_takes_phone_sast_trust=True,
        provenance=_known(signer_version=_NO_TAG_28),
    ),
    *(
        VersionProfile(
            version,
            ctl_sast_units=_RECOVERY_SIGNS,
            itl_signer=CertificateUnit.ITLRECOVERY,
            recovery_scope=RecoveryScope.CLUSTER,
            ctl_takes_phone_sast_trust=True,
            signer_version=_TAG_28_OF_NEWER_ITLS,
            provenance=_known(ctl_sast_units=_LATER_THAN_TABLE, recovery_scope=_ONE_PAIR, signer_version=_TAG_28),
        )
        for version in ("12.5", "14", "15")
    ),
)
"""Every release the lab knows, oldest first."""

_VERSION_NUMBERS: Final = re.compile(r"\d{1,4}(?:[.(]\d{1,5}\)?)*")


def profile_of(version: str) -> VersionProfile:
    """The profile of a release written as `10.5.2.11900-3`, `10.5(2)` or `12.5(1)SU3`.

    Raises UsageError with the list of known releases when no profile's version is a prefix of it.
    """
    match = _VERSION_NUMBERS.match(version.strip())
    numbers = tuple(int(part) for part in re.findall(r"\d+", match.group())) if match else ()
    fitting = [profile for profile in PROFILES if numbers[: len(profile.numbers)] == profile.numbers]
    if not fitting:
        known = ", ".join(profile.version for profile in PROFILES)
        raise UsageError(f"unknown CUCM version {version!r}", mend=f"use a version that begins with one of: {known}")
    return max(fitting, key=lambda profile: len(profile.numbers))
