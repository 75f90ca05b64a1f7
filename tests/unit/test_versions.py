from __future__ import annotations

from dataclasses import fields

import pytest

from cucm.errors import UsageError
from cucm.net.tls import TlsProfile
from cucm.roles import CertificateUnit
from cucm.versions import (
    PROFILES,
    BulkType,
    Confidence,
    RecoveryScope,
    TraceDialect,
    VersionProfile,
    bulk_file_is_readable,
    profile_of,
    release_numbers,
)
from cucm.wire.trust_list import DigestAlgorithm
from tvs_server.certificate_cache import FreshnessMode

CALLMANAGER = CertificateUnit.CALLMANAGER
ITLRECOVERY = CertificateUnit.ITLRECOVERY


@pytest.mark.parametrize(
    ("written", "version"),
    [
        ("10.5.2.11900-3", "10.5.2"),
        ("10.5(2)", "10.5.2"),
        ("10.5.1.10000-7", "10.5.1"),
        ("10.0.1.10000-24", "10.0"),
        ("11.0.1.10000-10", "11.0"),
        (" 11.5(1)SU3 ", "11.5"),
        ("12.0.1", "12.0"),
        ("12.5(1)SU3", "12.5"),
        ("14SU2", "14"),
        ("15.0.1.10000-32", "15"),
        ("8.6.2", "8.6"),
        ("8.6(2a)SU3", "8.6"),
        ("9.1(2)", "9.1"),
    ],
)
def test_a_release_is_found_by_the_longest_prefix_of_its_number(written: str, version: str) -> None:
    assert profile_of(written).version == version


@pytest.mark.parametrize(
    "written",
    ["", "x", "7.1.5", "8", "8.5.1", "9", "9.0.1", "10", "10.5", "10.50.2", "100.5.2", "16", "1", "-10.5.2", "1" * 500],
)
def test_an_unknown_release_is_refused_with_the_list_of_known_ones(written: str) -> None:
    with pytest.raises(UsageError) as caught:
        profile_of(written)
    assert caught.value.mend is not None
    assert all(profile.version in caught.value.mend for profile in PROFILES)


# facts 6.1, column "tokenless CTL", and facts 6.2
@pytest.mark.parametrize(
    ("version", "ctl_sast", "itl_signer", "scope"),
    [
        ("8.6", (), CALLMANAGER, RecoveryScope.ABSENT),
        ("9.1", (), CALLMANAGER, RecoveryScope.ABSENT),
        ("10.0", (CALLMANAGER,), CALLMANAGER, RecoveryScope.NODE),
        ("10.5.1", (CALLMANAGER,), CALLMANAGER, RecoveryScope.NODE),
        ("10.5.2", (CALLMANAGER, ITLRECOVERY), CALLMANAGER, RecoveryScope.NODE),
        ("11.0", (CALLMANAGER, ITLRECOVERY), CALLMANAGER, RecoveryScope.NODE),
        ("11.5", (CALLMANAGER, ITLRECOVERY), CALLMANAGER, RecoveryScope.NODE),
        ("12.0", (ITLRECOVERY, CALLMANAGER), ITLRECOVERY, RecoveryScope.NODE),
        ("12.5", (ITLRECOVERY, CALLMANAGER), ITLRECOVERY, RecoveryScope.CLUSTER),
        ("14", (ITLRECOVERY, CALLMANAGER), ITLRECOVERY, RecoveryScope.CLUSTER),
        ("15", (ITLRECOVERY, CALLMANAGER), ITLRECOVERY, RecoveryScope.CLUSTER),
    ],
)
def test_signers_of_each_release(
    version: str, ctl_sast: tuple[CertificateUnit, ...], itl_signer: CertificateUnit, scope: RecoveryScope
) -> None:
    profile = next(profile for profile in PROFILES if profile.version == version)
    assert profile.ctl_sast_units == ctl_sast
    assert profile.ctl_signer == (ctl_sast[0] if ctl_sast else None)
    assert profile.itl_signer is itl_signer
    assert profile.recovery_scope is scope
    assert profile.has_itlrecovery == (scope is not RecoveryScope.ABSENT)


def test_lists_are_signed_with_sha1_unless_told_otherwise_and_old_ones_carry_no_tag_28() -> None:
    assert {profile.default_digest for profile in PROFILES} == {DigestAlgorithm.SHA1}
    assert [profile.version for profile in PROFILES if profile.signer_version is not None] == ["12.5", "14", "15"]
    assert [profile.version for profile in PROFILES if profile.ctl_takes_phone_sast_trust] == [
        "12.0",
        "12.5",
        "14",
        "15",
    ]


def test_releases_stand_in_order_and_none_hides_another() -> None:
    numbers = [profile.numbers for profile in PROFILES]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.version)
def test_every_datum_says_where_it_comes_from(profile: VersionProfile) -> None:
    assert set(profile.provenance) == {field.name for field in fields(VersionProfile)} - {"version", "provenance"}
    assert all(known.source.startswith("facts ") for known in profile.provenance.values())


def test_what_cisco_does_not_say_is_marked() -> None:
    by_version = {profile.version: profile.provenance for profile in PROFILES}
    assert by_version["11.0"]["ctl_sast_units"].confidence is Confidence.INFERRED
    assert by_version["10.5.2"]["ctl_sast_units"].confidence is Confidence.STATED
    assert by_version["12.5"]["signer_version"].confidence is Confidence.INFERRED
    assert by_version["14"]["supports_tokens"].remark


def versions_with(of_field: str, value: object) -> list[str]:
    return [profile.version for profile in PROFILES if getattr(profile, of_field) == value]


NEWEST = ["12.5", "14", "15"]
FROM_12_0 = ["12.0", *NEWEST]
FROM_10_0 = ["10.0", "10.5.1", "10.5.2", "11.0", "11.5"]


def test_what_stands_behind_the_tokens_of_a_ctl() -> None:
    assert versions_with("supports_tokens", False) == ["15"]
    assert versions_with("ctl_token_sast_units", (ITLRECOVERY, CALLMANAGER)) == ["11.5", "12.0", "12.5", "14"]


def test_who_signs_a_reset_list() -> None:
    for of_field in ("itl_reset_signer", "ctl_reset_signer"):
        assert versions_with(of_field, None) == ["8.6", "9.1"]
        assert versions_with(of_field, ITLRECOVERY) == FROM_10_0
        assert versions_with(of_field, CALLMANAGER) == FROM_12_0


def test_keys_traces_and_defects_by_release() -> None:
    assert versions_with("rsa_bits", 1024) == ["8.6", "9.1", "10.0", "10.5.1"]
    assert versions_with("rsa_bits", 2048) == ["10.5.2", "11.0", "11.5", *FROM_12_0]
    assert versions_with("trace_dialect", TraceDialect.BRACKETED) == ["8.6", "9.1"]
    assert versions_with("default_configuration_lists_tvs", False) == ["8.6"]
    assert versions_with("deletes_cluster_wide", True) == ["11.0", "11.5", *FROM_12_0]
    assert versions_with("capf_on_publisher_only", True) == ["14", "15"]


def test_only_newer_releases_export_itlrecovery() -> None:
    assert [profile.version for profile in PROFILES if BulkType.ITLRECOVERY in profile.bulk_types] == NEWEST
    assert all({"TFTP", "CAPF", "TVS", "tomcat"} <= set(profile.bulk_types) for profile in PROFILES)


def test_defaults_are_words_that_the_servers_know() -> None:
    assert [p.version for p in PROFILES if TlsProfile(p.tls_profile) is TlsProfile.MODERN] == FROM_12_0
    stale = [p.version for p in PROFILES if FreshnessMode(p.tvs_cache) is FreshnessMode.STALE_UNTIL_RESTART]
    assert stale == ["8.6", "9.1"]


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("10.5.2.13900-12", (10, 5, 2, 13900, 12)),
        ("10.5(2)SU3", (10, 5, 2)),
        ("8.6(2a)SU3", (8, 6, 2)),
        ("14SU2", (14,)),
        (" 12.5.1 ", (12, 5, 1)),
        ("15-1.2", (15,)),
    ],
)
def test_a_release_as_numbers(written: str, numbers: tuple[int, ...]) -> None:
    assert release_numbers(written) == numbers


def test_what_is_no_version_has_no_numbers() -> None:
    with pytest.raises(UsageError, match="no CUCM version"):
        release_numbers("SU3")


# CSCuy43181: facts 9.1
@pytest.mark.parametrize(
    ("importing", "exporting", "is_readable"),
    [
        ("9.1.2.10000-28", "10.5.2.13900-12", False),
        ("9.1.2", "10.5.2.13900", False),
        ("8.6.2", "12.5.1", False),
        ("10.5.2.12901-1", "10.5.2.13900-2", False),
        ("10.0.1", "12.5.1", False),
        ("10.5.2.11900-3", "11.0.1.20000-2", False),
        ("9.1.2", "11.0.1.10000-10", False),
        ("10.5.2", "11.0", True),
        ("10.5.2", "11.0.1.10000-10", True),
        ("10.5.2.13900-2", "10.5.2.13900-12", True),
        ("11.5.1", "12.5.1", True),
        ("10.5.2.11900-3", "11.0.1.10000-10", True),
        ("12.5.1", "8.6.2", True),
        ("9.1.2", "10.5.2.12901-1", True),
    ],
)
def test_older_releases_cannot_import_bulk_files_of_newer_ones(
    importing: str, exporting: str, is_readable: bool
) -> None:
    assert bulk_file_is_readable(importing, exporting) is is_readable
