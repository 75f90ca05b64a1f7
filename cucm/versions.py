"""What differs between CUCM releases, as data with provenance.

Sources: facts 6.1 (CTL signer, SAST records), 6.2 (ITL signer, scope of ITLRecovery), 3.1 and 12 (tag 28), 8 (digest),
4.3 (reset lists), 5.5 (deletions, freshness of TVS), 9.1 (bulk types), 10 (trace), 11 (defects), 12 (releases).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from cucm.errors import UsageError
from cucm.records import dataclass
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


class TraceDialect(StrEnum):
    """The two published forms of a TVS trace line (facts 10)."""

    PLAIN = "plain"
    """`HH:MM:SS.mmm | debug text`"""
    BRACKETED = "bracketed"
    """`HH:MM:SS.mmm |   debug text`, between `|-->debug` and `|<--debug`"""


class BulkType(StrEnum):
    """What bulk certificate management exports, consolidates and imports (facts 9.1)."""

    TFTP = "TFTP"
    CAPF = "CAPF"
    TVS = "TVS"
    TOMCAT = "tomcat"
    ITLRECOVERY = "ITLRecovery"


@dataclass(frozen=True, slots=True)
class VersionProfile:
    """How one CUCM release behaves, as far as its releases differ.

    `version` is the prefix of the release's number; `provenance` has an entry for each of the other fields. The tuples
    of units are SAST records in their order: `ctl_sast_units` of the tokenless CTL, the signer first, empty where there
    is no tokenless CTL; `ctl_token_sast_units` those after the two tokens. `itl_reset_signer` and `ctl_reset_signer`
    sign what `utils itl|ctl reset localkey` makes, None where there is no such command. `signer_version` is tag 28 of
    the ITL header as (major, minor), None where it is not written. `tls_profile` and `tvs_cache` are values of
    `cucm.net.tls.TlsProfile` and `tvs_server.certificate_cache.FreshnessMode`, the cluster's defaults. `rsa_bits` is
    the size of keys the release makes. `deletes_cluster_wide`: a trust certificate deleted on one node goes from all.
    `phone_interaction`: it resets phones when an own certificate changes, unless a parameter says otherwise.
    """

    version: str
    ctl_sast_units: tuple[CertificateUnit, ...]
    ctl_token_sast_units: tuple[CertificateUnit, ...]
    supports_tokens: bool
    itl_signer: CertificateUnit
    recovery_scope: RecoveryScope
    itl_reset_signer: CertificateUnit | None
    ctl_reset_signer: CertificateUnit | None
    rsa_bits: int
    tls_profile: str
    trace_dialect: TraceDialect
    tvs_cache: str
    deletes_cluster_wide: bool
    bulk_types: tuple[BulkType, ...]
    capf_on_publisher_only: bool
    default_configuration_lists_tvs: bool
    phone_interaction: bool = False
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
        return release_numbers(self.version)


_RELEASE: Final = re.compile(r"\d{1,4}(?:[.(]\d{1,5}\)?)*(?:-\d{1,5}(?![.\d]))?")


def release_numbers(version: str) -> tuple[int, ...]:
    """`10.5.2.13900-12` as (10, 5, 2, 13900, 12), `10.5(2)SU3` as (10, 5, 2): a service update has no place in it.

    Raises UsageError when it does not begin with a number.
    """
    match = _RELEASE.match(version.strip())
    if match is None:
        raise UsageError(f"{version!r} is no CUCM version", mend="write it like 10.5.2.11900-3 or 12.5(1)SU3")
    return tuple(int(part) for part in re.findall(r"\d+", match.group()))


_STATED: Final = Confidence.STATED
_CALCULATED: Final = Confidence.CALCULATED
_INFERRED: Final = Confidence.INFERRED
_RECALL: Final = Confidence.RECALL
_UNKNOWN: Final = Confidence.UNKNOWN

_CALLMANAGER: Final = CertificateUnit.CALLMANAGER
_ITLRECOVERY: Final = CertificateUnit.ITLRECOVERY
_TAG_28_OF_NEWER_ITLS: Final = (1, 1)
"""UNKNOWN beyond "1.1 or more: the server has the advanced algorithms" (facts 3.1); the smallest such value."""
_BULK_TYPES: Final = (BulkType.TFTP, BulkType.CAPF, BulkType.TVS, BulkType.TOMCAT)

_TOKENS_ALONE: Final = Provenance("facts 6.1", _STATED, "two tokens, nothing behind them")
_IN_TABLE: Final = Provenance("facts 6.1", _STATED)
_NOT_IN_TABLE: Final = Provenance("facts 6.1", _INFERRED, "11.0 is not in Cisco's table; the seed shows the signer")
_TOKENS_NOT_IN_TABLE: Final = Provenance("facts 6.1", _INFERRED, "11.0 is not in Cisco's table; as 10.5(2)")
_LATER_THAN_TABLE: Final = Provenance("facts 6.1", _STATED, 'the row of the table is "12.0(1)+"')
_RESET_BY_RECOVERY: Final = Provenance("facts 4.3", _RECALL, "in 10.x and 11.x the recovery key signs the reset list")
_RESET_BY_CALLMANAGER: Final = Provenance(
    "facts 4.3", _STATED, "localkey puts the CallManager's signature in the place of ITLRecovery's"
)


def _since(before: VersionProfile, version: str, known: Mapping[str, Provenance], **changes: Any) -> VersionProfile:
    """The next release: what changed with it, and what is known of it otherwise than of the one before."""
    provenance = MappingProxyType({**before.provenance, **known})
    return replace(before, version=version, provenance=provenance, **changes)


_V8_6: Final = VersionProfile(
    "8.6",
    ctl_sast_units=(),
    ctl_token_sast_units=(),
    supports_tokens=True,
    itl_signer=_CALLMANAGER,
    recovery_scope=RecoveryScope.ABSENT,
    itl_reset_signer=None,
    ctl_reset_signer=None,
    rsa_bits=1024,
    tls_profile="aes256-sha",
    trace_dialect=TraceDialect.BRACKETED,
    tvs_cache="stale-until-restart",
    deletes_cluster_wide=False,
    bulk_types=_BULK_TYPES,
    capf_on_publisher_only=False,
    default_configuration_lists_tvs=False,
    provenance=MappingProxyType(
        {
            "ctl_sast_units": Provenance("facts 6.1, 12", _STATED, "the tokenless CTL came with 10.0"),
            "ctl_token_sast_units": Provenance("facts 6.1", _INFERRED, "as 9.1(2), the first row of the table"),
            "supports_tokens": Provenance("facts 6.1, 12", _STATED),
            "itl_signer": Provenance("facts 6.2", _STATED),
            "recovery_scope": Provenance("facts 6.2, 12", _STATED, "ITLRecovery came with 10.0"),
            "itl_reset_signer": Provenance("facts 12", _STATED, "utils itl reset came with 10.0"),
            "ctl_reset_signer": Provenance("facts 12", _INFERRED, "utils ctl came with 10.0"),
            "rsa_bits": Provenance("facts 3.2", _INFERRED, "as the sample of 10.5(1)"),
            "tls_profile": Provenance("facts 2.9", _INFERRED, "as 10.5.2; TLS versions per release are UNKNOWN"),
            "trace_dialect": Provenance("facts 10", _UNKNOWN, "which releases write this form; ours: before 10.0"),
            "tvs_cache": Provenance(
                "facts 5.5, 9.2", _INFERRED, "the steps that restart TVS are those of a migration from 8.x and 9.x"
            ),
            "deletes_cluster_wide": Provenance("facts 5.5", _STATED, "before 11.0 it comes back from the others"),
            "bulk_types": Provenance("facts 9.1", _INFERRED, "TFTP is stated; the others from what an import does"),
            "capf_on_publisher_only": Provenance("facts 12", _INFERRED, "14 names it as new"),
            "default_configuration_lists_tvs": Provenance(
                "facts 11 F14", _INFERRED, "CSCti64589 names 8.6.2: taken as the release that has the defect"
            ),
            "phone_interaction": Provenance("facts 5.6, 12", _STATED, "the administrator resets the phones; new in 14"),
            "ctl_takes_phone_sast_trust": Provenance(
                "facts 6.3", _INFERRED, "the procedure that relies on it is for 12.x and later"
            ),
            "signer_version": Provenance(
                "facts 3.1", _CALCULATED, "header sums of the 10.x samples leave no room for tag 28"
            ),
            "default_digest": Provenance("facts 8", _STATED, '"TFTP File Signature Algorithm" is SHA-1 unless changed'),
            "configuration_signer": Provenance(
                "facts 3.3", _INFERRED, "the signer must hold the TFTP function, ITLRecovery does not"
            ),
        }
    ),
)

_V9_1: Final = _since(
    _V8_6,
    "9.1",
    {
        "ctl_token_sast_units": _TOKENS_ALONE,
        "default_configuration_lists_tvs": Provenance("facts 11 F14", _INFERRED, '"fixed versions"'),
    },
    default_configuration_lists_tvs=True,
)

_V10_0: Final = _since(
    _V9_1,
    "10.0",
    {
        "ctl_sast_units": _IN_TABLE,
        "recovery_scope": Provenance("facts 6.2", _STATED, "one pair per node before 12.5"),
        "itl_reset_signer": _RESET_BY_RECOVERY,
        "ctl_reset_signer": _RESET_BY_RECOVERY,
        "trace_dialect": Provenance("facts 10", _UNKNOWN, "a 10.5.2 writes this form; ours: from 10.0 on"),
        "tvs_cache": Provenance("facts 5.5", _INFERRED, "the security guide says that changes are reflected at once"),
    },
    ctl_sast_units=(_CALLMANAGER,),
    recovery_scope=RecoveryScope.NODE,
    itl_reset_signer=_ITLRECOVERY,
    ctl_reset_signer=_ITLRECOVERY,
    trace_dialect=TraceDialect.PLAIN,
    tvs_cache="change-notification",
)

_V10_5_1: Final = _since(
    _V10_0, "10.5.1", {"rsa_bits": Provenance("facts 3.2", _CALCULATED, "keys of the sample of 10.5(1)")}
)

_V10_5_2: Final = _since(
    _V10_5_1,
    "10.5.2",
    {
        "rsa_bits": Provenance("facts 3.2, 11 F20", _INFERRED, "both sizes are in the samples; the release is not"),
        "tls_profile": Provenance("facts 2.9", _STATED),
        "trace_dialect": Provenance("facts 10", _STATED),
    },
    ctl_sast_units=(_CALLMANAGER, _ITLRECOVERY),
    rsa_bits=2048,
)

_V11_0: Final = _since(
    _V10_5_2,
    "11.0",
    {
        "ctl_sast_units": _NOT_IN_TABLE,
        "ctl_token_sast_units": _TOKENS_NOT_IN_TABLE,
        "signer_version": Provenance("facts 12", _INFERRED, "tag 28 is taken to come with advanced TFTP in 12.5"),
        "tls_profile": Provenance("facts 2.9", _INFERRED, "as 10.5.2; TLS versions per release are UNKNOWN"),
        "trace_dialect": Provenance("facts 10", _UNKNOWN, "as 10.5.2"),
        "deletes_cluster_wide": Provenance("facts 5.5, 12", _STATED),
    },
    deletes_cluster_wide=True,
)

_V11_5: Final = _since(
    _V11_0,
    "11.5",
    {"ctl_sast_units": _IN_TABLE, "ctl_token_sast_units": _IN_TABLE},
    ctl_token_sast_units=(_ITLRECOVERY, _CALLMANAGER),
)

_V12_0: Final = _since(
    _V11_5,
    "12.0",
    {
        "itl_reset_signer": _RESET_BY_CALLMANAGER,
        "ctl_reset_signer": _RESET_BY_CALLMANAGER,
        "tls_profile": Provenance("facts 2.9", _UNKNOWN, "TLS versions per release are UNKNOWN; modern from here on"),
    },
    ctl_sast_units=(_ITLRECOVERY, _CALLMANAGER),
    itl_signer=_ITLRECOVERY,
    itl_reset_signer=_CALLMANAGER,
    ctl_reset_signer=_CALLMANAGER,
    tls_profile="modern",
    ctl_takes_phone_sast_trust=True,
)

_V12_5: Final = _since(
    _V12_0,
    "12.5",
    {
        "ctl_sast_units": _LATER_THAN_TABLE,
        "ctl_token_sast_units": _LATER_THAN_TABLE,
        "recovery_scope": Provenance("facts 6.2", _STATED, "one pair, made by the publisher and distributed"),
        "signer_version": Provenance("facts 3.1, 12", _INFERRED, "release inferred; value UNKNOWN beyond 1.1 or more"),
        "bulk_types": Provenance("facts 9.1, 12", _STATED, "ITLRecovery from 12.5SU3 on; SUs are not told apart"),
    },
    recovery_scope=RecoveryScope.CLUSTER,
    signer_version=_TAG_28_OF_NEWER_ITLS,
    bulk_types=(*_BULK_TYPES, BulkType.ITLRECOVERY),
)

_V14: Final = _since(
    _V12_5,
    "14",
    {
        "supports_tokens": Provenance("facts 6.1, 12", _STATED, "up to 14SU2; SUs are not told apart"),
        "capf_on_publisher_only": Provenance("facts 12", _STATED),
        "phone_interaction": Provenance("facts 5.6, 12", _STATED, "later 12.5 guides too; SUs are not told apart"),
    },
    capf_on_publisher_only=True,
    phone_interaction=True,
)

_V15: Final = _since(
    _V14,
    "15",
    {
        "supports_tokens": Provenance("facts 6.1, 12", _STATED, "gone since 14SU3"),
        "ctl_token_sast_units": Provenance("facts 6.1", _STATED, "no tokens"),
    },
    supports_tokens=False,
    ctl_token_sast_units=(),
)

PROFILES: Final = (_V8_6, _V9_1, _V10_0, _V10_5_1, _V10_5_2, _V11_0, _V11_5, _V12_0, _V12_5, _V14, _V15)
"""Every release the lab knows, oldest first."""


def profile_of(version: str) -> VersionProfile:
    """The profile of a release written as `10.5.2.11900-3`, `10.5(2)` or `12.5(1)SU3`.

    Raises UsageError with the list of known releases when no profile's version is a prefix of it.
    """
    known = ", ".join(profile.version for profile in PROFILES)
    unknown = UsageError(f"unknown CUCM version {version!r}", mend=f"use a version that begins with one of: {known}")
    try:
        numbers = release_numbers(version)
    except UsageError:
        raise unknown from None
    fitting = [profile for profile in PROFILES if numbers[: len(profile.numbers)] == profile.numbers]
    if not fitting:
        raise unknown
    return max(fitting, key=lambda profile: len(profile.numbers))


NEW_BULK_FILES: Final = (10, 5, 2, 13900)
"""The first build whose bulk files older releases cannot import (CSCuy43181; facts 9.1, F10)."""


_TECHNOTE_RELEASE: Final = (10, 0)
_TECHNOTE_FILES: Final = ((11, 0), (11, 0, 1, 10000))
"""From and to: see `bulk_file_is_readable`."""


def bulk_file_is_readable(importing_version: str, exporting_version: str) -> bool:
    """Whether a bulk file of one release can be imported by another: CSCuy43181 (facts 9.1), root cause UNKNOWN.

    Stated: not if "exported by 10.5.2.13900 or higher into a lower version", lower than that build. The technote names
    8.x and 9.x as importers, and its own clusters, 10.5.2.11900 and 11.0.1.10000, exchange in bulk: so releases from
    10.0 on take files of the first build of 11.0 [inferred]. A version without a build number is the release's first
    build. Raises UsageError for what is no version.
    """
    importing, exporting = release_numbers(importing_version), release_numbers(exporting_version)
    if exporting < NEW_BULK_FILES or importing >= NEW_BULK_FILES:
        return True
    first, last = _TECHNOTE_FILES
    return importing >= _TECHNOTE_RELEASE and first <= exporting[:4] <= last
