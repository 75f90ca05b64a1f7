from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_on_disk import ADDRESSES, NOW, PUBLISHER, SUBSCRIBER, ClusterOnDisk

from cucm.certificates import node_certificate, security_token
from cucm.errors import EnvironmentProblem, LabError, TrustError, TrustReason, UsageError
from cucm.events import EventLog
from cucm.identity import Identity
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit, TrustRole
from cucm.trust import anchors_of, verify_signed_file, verify_trust_list
from cucm.versions import profile_of
from cucm.wire.signed_file import decode_signed_file
from cucm.wire.trust_list import DigestAlgorithm, TrustList, decode_trust_list
from tftp_server.trust_list_builder import (
    KeyFolder,
    build_ctl,
    build_itl,
    build_token_ctl,
    ctl_contents,
    file_signed,
    file_signer,
    itl_contents,
    require_recovery_key,
    sign_file,
    sign_trust_list,
    trust_list_signed,
)

SAST, CCM_TFTP, TFTP, CAPF, TVS = (
    TrustRole.SAST,
    TrustRole.CALLMANAGER_TFTP,
    TrustRole.TFTP,
    TrustRole.CAPF,
    TrustRole.TVS,
)
U = CertificateUnit
Make = Callable[..., ClusterOnDisk]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[ClusterOnDisk] = []

    def make_cluster(version: str = "10.5.2.11900-3", **options: object) -> ClusterOnDisk:
        made.append(ClusterOnDisk(tmp_path / f"node-{len(made)}", version, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make_cluster
    for cluster in made:
        cluster.database.close()


def keys_of(cluster: ClusterOnDisk, node: str = PUBLISHER) -> KeyFolder:
    return KeyFolder(cluster.keys_of[node])


def ctl_of(cluster: ClusterOnDisk, now: float = NOW) -> bytes:
    return build_ctl(cluster.database, keys_of(cluster), cluster.profile, now)


def itl_of(cluster: ClusterOnDisk, node: str = PUBLISHER, now: float = NOW) -> bytes:
    return build_itl(cluster.database, keys_of(cluster, node), cluster.profile, node, now)


def rows(cluster: ClusterOnDisk, trust_list: TrustList) -> list[tuple[str | None, int, str]]:
    """DNSNAME, FUNCTION and the unit whose certificate the record carries ("blank" for none)."""
    units = {identity.certificate_der: unit.value for (unit, _), identity in cluster.identities.items()}
    return [
        (record.dns_name, record.function, units[record.certificate] if record.certificate else "blank")
        for record in trust_list.records
    ]


def signer_of(trust_list: TrustList) -> tuple[str, bytes, str]:
    return trust_list.signer.subject, trust_list.signer.serial, trust_list.signer.issuer


def names_of(identity: Identity) -> tuple[str, bytes, str]:
    return identity.subject, identity.serial, identity.issuer


BOTH = (PUBLISHER, SUBSCRIBER)


# the table of facts 6.1 and the sample of facts 6.3
@pytest.mark.parametrize(
    ("version", "sast_units"),
    [
        ("10.5.1", (U.CALLMANAGER,)),
        ("10.5.2.11900-3", (U.CALLMANAGER, U.ITLRECOVERY)),
        ("11.0.1.10000-10", (U.CALLMANAGER, U.ITLRECOVERY)),
        ("12.0.1", (U.ITLRECOVERY, U.CALLMANAGER)),
        ("14.0.1", (U.ITLRECOVERY, U.CALLMANAGER)),
    ],
)
def test_ctl_of_a_mixed_cluster(make: Make, version: str, sast_units: tuple[CertificateUnit, ...]) -> None:
    cluster = make(version, nodes=BOTH)
    trust_list, anchor = verify_trust_list(ctl_of(cluster), anchors_of(decode_trust_list(ctl_of(cluster)), "CTL"))
    assert rows(cluster, trust_list) == [
        *((PUBLISHER, SAST, unit.value) for unit in sast_units),
        (PUBLISHER, CCM_TFTP, "CallManager"),
        (PUBLISHER, CAPF, "CAPF"),
        (SUBSCRIBER, CCM_TFTP, "CallManager"),
    ]
    assert signer_of(trust_list) == names_of(cluster.identities[sast_units[0], PUBLISHER])
    assert anchor.origin == "CTL record 1"
    assert trust_list.version == (1, 2)
    assert trust_list.digest is DigestAlgorithm.SHA1
    assert trust_list.file_name == "CTLFile.tlv"
    assert trust_list.timestamp == int(NOW)
    assert trust_list.signer_version is None


def test_every_record_says_all_about_its_certificate(make: Make) -> None:
    cluster = make(nodes=BOTH)
    for data in (ctl_of(cluster), itl_of(cluster)):
        for record in decode_trust_list(data).records:
            identity = next(i for i in cluster.identities.values() if i.certificate_der == record.certificate)
            assert (record.subject, record.serial, record.issuer) == names_of(identity)
            assert record.public_key == identity.public_key_record
            assert record.signature == identity.certificate_signature
            assert record.dns_name is not None
            assert record.ip_address == ADDRESSES[record.dns_name]


def test_ctl_of_a_cluster_put_back_to_non_secure_mode_has_blank_callmanagers(make: Make) -> None:
    cluster = make(mixed=False, nodes=BOTH)
    trust_list = decode_trust_list(ctl_of(cluster))
    assert rows(cluster, trust_list) == [
        (PUBLISHER, SAST, "CallManager"),
        (PUBLISHER, SAST, "ITLRecovery"),
        (PUBLISHER, CCM_TFTP, "blank"),
        (PUBLISHER, CAPF, "CAPF"),
        (SUBSCRIBER, CCM_TFTP, "blank"),
    ]


def test_a_node_that_neither_processes_calls_nor_serves_files_is_not_in_the_ctl(make: Make) -> None:
    cluster = make(nodes=BOTH)
    cluster.database.add_node(SUBSCRIBER, ADDRESSES[SUBSCRIBER], services=["TVS"])
    assert SUBSCRIBER not in {record.dns_name for record in decode_trust_list(ctl_of(cluster)).records}


@pytest.mark.parametrize("version", ["10.5.2.11900-3", "11.0.1.10000-10"])
@pytest.mark.parametrize(("mixed", "function"), [(True, CCM_TFTP), (False, TFTP)])
@pytest.mark.parametrize("node", BOTH)
def test_itl_of_a_tftp_node(make: Make, version: str, mixed: bool, function: TrustRole, node: str) -> None:
    cluster = make(version, mixed=mixed, nodes=BOTH)
    data = itl_of(cluster, node)
    trust_list, anchor = verify_trust_list(data, anchors_of(decode_trust_list(data), "ITL"))
    assert rows(cluster, trust_list) == [
        (node, SAST, "ITLRecovery"),
        (node, SAST, "CallManager"),
        (node, function, "CallManager"),
        (PUBLISHER, TVS, "TVS"),
        (SUBSCRIBER, TVS, "TVS"),
        (PUBLISHER, CAPF, "CAPF"),
    ]
    assert signer_of(trust_list) == names_of(cluster.identities[U.CALLMANAGER, node])
    assert anchor.origin == "ITL record 2"
    assert trust_list.file_name == "ITLFile.tlv"
    assert trust_list.signer_version is None


def test_each_tftp_node_signs_its_itl_with_a_key_of_its_own(make: Make) -> None:
    cluster = make(nodes=BOTH)
    publisher = anchors_of(decode_trust_list(itl_of(cluster, PUBLISHER)), "ITL")
    with pytest.raises(TrustError) as caught:
        verify_trust_list(itl_of(cluster, SUBSCRIBER), publisher)
    assert caught.value.reason is TrustReason.SIGNER_UNKNOWN


def test_from_12_0_on_itlrecovery_signs_the_itl(make: Make) -> None:
    cluster = make("12.0.1", nodes=BOTH)
    trust_list = decode_trust_list(itl_of(cluster, SUBSCRIBER))
    assert signer_of(trust_list) == names_of(cluster.identities[U.ITLRECOVERY, SUBSCRIBER])


def test_from_12_5_on_all_nodes_carry_the_publishers_itlrecovery_and_tag_28(make: Make) -> None:
    cluster = make("12.5.1", nodes=BOTH)
    recovery = cluster.identities[U.ITLRECOVERY, PUBLISHER]
    trust_list = decode_trust_list(itl_of(cluster, SUBSCRIBER))
    assert signer_of(trust_list) == names_of(recovery)
    assert rows(cluster, trust_list)[0] == (PUBLISHER, SAST, "ITLRecovery")
    assert trust_list.signer_version == (1, 1)
    assert decode_trust_list(ctl_of(cluster)).signer_version is None


def test_services_that_are_not_activated_leave_no_record_in_the_itl(make: Make) -> None:
    cluster = make(nodes=BOTH)
    cluster.database.add_node(SUBSCRIBER, ADDRESSES[SUBSCRIBER], services=["TFTP"])
    cluster.database.add_node(PUBLISHER, ADDRESSES[PUBLISHER], services=["CallManager", "TFTP", "TVS"])
    assert rows(cluster, decode_trust_list(itl_of(cluster)))[3:] == [(PUBLISHER, TVS, "TVS")]


@pytest.mark.parametrize(("mixed", "function"), [(True, CCM_TFTP), (False, TFTP)])
def test_the_itl_of_a_cluster_preparing_a_rollback_is_signed_and_has_empty_tftp_and_tvs_sections(
    make: Make, mixed: bool, function: TrustRole
) -> None:
    cluster = make(mixed=mixed, nodes=BOTH)
    before = anchors_of(decode_trust_list(itl_of(cluster)), "ITL")
    cluster.database.set_parameter("Prepare Cluster for Rollback to pre 8.0", "True")
    trust_list, _ = verify_trust_list(itl_of(cluster), before)
    assert rows(cluster, trust_list) == [
        (PUBLISHER, SAST, "ITLRecovery"),
        (PUBLISHER, SAST, "CallManager"),
        (PUBLISHER, function, "blank"),
        (PUBLISHER, TVS, "blank"),
        (SUBSCRIBER, TVS, "blank"),
        (PUBLISHER, CAPF, "CAPF"),
    ]
    assert [record.length for record in trust_list.records[2:5]] == [30, 30, 30]
    cluster.database.set_parameter("Prepare Cluster for Rollback to pre 8.0", "False")
    assert "blank" not in {unit for _, _, unit in rows(cluster, decode_trust_list(itl_of(cluster)))}


def test_the_ctl_is_not_blanked_for_a_rollback(make: Make) -> None:
    cluster = make()
    before = ctl_of(cluster)
    cluster.database.set_parameter("Prepare Cluster for Rollback to pre 8.0", "True")
    assert ctl_of(cluster) == before


@pytest.mark.parametrize(("value", "digest"), [("SHA-1", DigestAlgorithm.SHA1), ("SHA-512", DigestAlgorithm.SHA512)])
def test_the_signature_algorithm_parameter_governs_lists_and_files(
    make: Make, value: str, digest: DigestAlgorithm
) -> None:
    cluster = make()
    cluster.database.set_parameter("TFTP File Signature Algorithm", value)
    data = ctl_of(cluster)
    anchors = anchors_of(decode_trust_list(data), "CTL")
    assert verify_trust_list(data, anchors)[0].digest is digest
    assert verify_trust_list(itl_of(cluster), anchors)[0].digest is digest
    signer = file_signer(cluster.database, PUBLISHER, cluster.profile)
    signed = sign_file(b"x", "a.sgn", signer, keys_of(cluster), NOW)
    assert verify_signed_file(signed, anchors)[0].digest is digest


def test_another_signature_algorithm_is_refused_with_the_choice(make: Make) -> None:
    cluster = make()
    cluster.database.set_parameter("TFTP File Signature Algorithm", "MD5")
    with pytest.raises(UsageError) as caught:
        ctl_of(cluster)
    assert caught.value.mend is not None
    assert "SHA-512" in caught.value.mend


@pytest.mark.parametrize("content", [b"", b"<device/>", bytes(range(256)) * 40])
@pytest.mark.parametrize("version", ["10.5.2", "12.5.1"])
def test_a_signed_file_verifies_by_the_tftp_function_of_the_nodes_callmanager(
    make: Make, content: bytes, version: str
) -> None:
    cluster = make(version)
    signer = file_signer(cluster.database, PUBLISHER, cluster.profile)
    data = sign_file(content, "SEPB000B4BA0AEE.cnf.xml.sgn", signer, keys_of(cluster), NOW)
    signed, anchor = verify_signed_file(data, anchors_of(decode_trust_list(itl_of(cluster)), "ITL"))
    assert signed.content == content
    assert signed.version == (1, 0)
    assert signed.file_name == "SEPB000B4BA0AEE.cnf.xml.sgn"
    assert signed.timestamp == int(NOW)
    assert anchor.role == CCM_TFTP
    assert signed.signer.serial == cluster.identities[U.CALLMANAGER, PUBLISHER].serial


def test_utils_ctl_update_of_12_x_lists_phone_sast_trust_too(make: Make) -> None:
    foreign = node_certificate(KeyStore(), U.CALLMANAGER, "ucm11pub", seed="foreign", not_before=NOW - 9)
    listed = {}
    for version in ("11.5.1", "12.0.1"):
        cluster = make(version)
        store = cluster.database.put_certificate
        store(foreign.certificate_der, U.PHONE_SAST_TRUST, "ucm11pub", "192.168.11.51", moment=NOW)
        own = cluster.identities[U.CALLMANAGER, PUBLISHER]
        store(own.certificate_der, U.PHONE_SAST_TRUST, PUBLISHER, ADDRESSES[PUBLISHER], moment=NOW)
        records = decode_trust_list(ctl_of(cluster)).records
        listed[version] = [(r.dns_name, r.ip_address, r.function) for r in records if r.function == SAST]
    assert ("ucm11pub", "192.168.11.51", SAST) in listed["12.0.1"]
    assert len(listed["12.0.1"]) == 3, "the own CallManager is listed once"
    assert len(listed["11.5.1"]) == 2


def test_the_same_contents_at_the_same_moment_are_the_same_bytes(make: Make) -> None:
    cluster = make()
    assert ctl_of(cluster) == ctl_of(cluster)
    assert itl_of(cluster) == itl_of(cluster)
    later = decode_trust_list(itl_of(cluster, now=NOW + 1))
    assert later.records == decode_trust_list(itl_of(cluster)).records
    assert later.timestamp == int(NOW) + 1


def test_a_file_says_the_contents_only_if_every_part_and_the_signature_are_right(make: Make) -> None:
    cluster = make()
    contents = itl_contents(cluster.database, PUBLISHER, cluster.profile)
    data = sign_trust_list(contents, keys_of(cluster), NOW + 77)
    assert contents.is_said_by(data)
    assert not contents.is_said_by(data[:-1] + bytes([data[-1] ^ 1]))
    assert not contents.is_said_by(data[:-9])
    assert not contents.is_said_by(data + b"\0")
    assert not contents.is_said_by(b"")
    assert not contents.is_said_by(ctl_of(cluster))
    signature = decode_trust_list(data).signature
    assert not contents.is_said_by(data.replace(signature, bytes([signature[0] ^ 1]) + signature[1:]))
    cluster.database.set_parameter("TFTP File Signature Algorithm", "SHA-512")
    assert not itl_contents(cluster.database, PUBLISHER, cluster.profile).is_said_by(data)


def test_a_release_without_tokenless_ctl_says_so(make: Make) -> None:
    cluster = make()
    with pytest.raises(UsageError, match="tokenless"):
        build_ctl(cluster.database, keys_of(cluster), profile_of("9.1.2"), NOW)
    records = decode_trust_list(build_itl(cluster.database, keys_of(cluster), profile_of("9.1.2"), PUBLISHER, NOW))
    assert "ITLRecovery" not in {unit for _, _, unit in rows(cluster, records)}


def test_a_missing_key_certificate_or_node_is_a_clear_error(make: Make) -> None:
    cluster = make()
    (cluster.keys_of[PUBLISHER] / "CallManager.key").unlink()
    with pytest.raises(EnvironmentProblem) as caught:
        ctl_of(cluster)
    assert caught.value.mend is not None
    assert "CallManager" in caught.value.mend
    with pytest.raises(LabError, match="no node 'elsewhere'"):
        itl_contents(cluster.database, "elsewhere", cluster.profile)
    cluster.database.delete_certificate(U.CALLMANAGER, PUBLISHER)
    with pytest.raises(LabError, match="no CallManager certificate"):
        ctl_contents(cluster.database, cluster.profile)


def test_a_key_of_another_certificate_does_not_sign(make: Make) -> None:
    cluster = make()
    folder = cluster.keys_of[PUBLISHER]
    (folder / "CallManager.key").write_bytes((folder / "TVS.key").read_bytes())
    with pytest.raises(UsageError, match="does not belong"):
        ctl_of(cluster)
    (folder / "CallManager.key").write_bytes(b"no key")
    with pytest.raises(UsageError, match="private key"):
        ctl_of(cluster)


def test_events_tell_who_signed_what(make: Make) -> None:
    cluster = make()
    data = itl_of(cluster)
    log = EventLog()
    log.emit("tftp:x", trust_list_signed(data))
    told = next(iter(log)).as_json()
    assert told["signer"] == cluster.identities[U.CALLMANAGER, PUBLISHER].subject
    assert told["records"][0] == f"System Administrator Security Token {PUBLISHER}"
    assert told["records"][2:4] == [f"CCM+TFTP {PUBLISHER}", f"TVS {PUBLISHER}"]
    assert told["sha1"] == hashlib.sha1(data).hexdigest()
    assert told["digest"] == "SHA1"
    signer = file_signer(cluster.database, PUBLISHER, cluster.profile)
    signed = sign_file(b"x", "ringlist.xml.sgn", signer, keys_of(cluster), NOW)
    event, known = file_signed(signed, "ringlist.xml.sgn", signer, NOW), decode_signed_file(signed)
    assert (event.file_name, event.signer, event.signer_serial, event.digest, event.timestamp, event.sha1) == (
        known.file_name,
        known.signer.subject,
        known.signer.serial,
        known.digest.name,
        known.timestamp,
        hashlib.sha1(signed).digest(),
    )


# facts 4.3: the CallManager's signature where ITLRecovery's is the normal one, and the other way round before
@pytest.mark.parametrize(
    ("version", "unit"),
    [
        ("10.0.1", U.ITLRECOVERY),
        ("10.5.1", U.ITLRECOVERY),
        ("10.5.2", U.ITLRECOVERY),
        ("11.5.1", U.ITLRECOVERY),
        ("12.0.1", U.CALLMANAGER),
        ("14.0.1", U.CALLMANAGER),
    ],
)
def test_a_reset_ctl_is_signed_by_the_other_key_which_it_lists(make: Make, version: str, unit: CertificateUnit) -> None:
    cluster = make(version, nodes=BOTH)
    assert cluster.profile.ctl_reset_signer is unit
    data = build_ctl(cluster.database, keys_of(cluster), cluster.profile, NOW, signer_unit=unit)
    trust_list, _ = verify_trust_list(data, anchors_of(decode_trust_list(data), "CTL"))
    assert signer_of(trust_list) == names_of(cluster.identities[unit, PUBLISHER])
    normal = rows(cluster, decode_trust_list(ctl_of(cluster)))
    assert [row for row in rows(cluster, trust_list) if row in normal] == normal
    verify_trust_list(data, anchors_of(decode_trust_list(itl_of(cluster)), "ITL"))


@pytest.mark.parametrize("node", BOTH)
@pytest.mark.parametrize("version", ["10.5.2", "12.0.1", "12.5.1"])
def test_a_reset_itl_says_the_same_and_phones_of_the_node_believe_it(make: Make, version: str, node: str) -> None:
    cluster = make(version, nodes=BOTH)
    unit = cluster.profile.itl_reset_signer
    assert unit is not None
    before = decode_trust_list(itl_of(cluster, node))
    keys = keys_of(cluster, node)
    data = build_itl(cluster.database, keys, cluster.profile, node, NOW, signer_unit=unit)
    trust_list, _ = verify_trust_list(data, anchors_of(before, "ITL"))
    assert trust_list.records == before.records
    assert signer_of(trust_list) == names_of(
        cluster.identities[unit, node if (unit, node) in cluster.identities else PUBLISHER]
    )
    assert trust_list.signer != before.signer


def test_a_recovery_pair_kept_elsewhere_signs_and_is_believed_by_phones_that_knew_it(make: Make) -> None:
    cluster = make()
    installed = anchors_of(decode_trust_list(itl_of(cluster)), "ITL")
    kept = cluster.identities[U.ITLRECOVERY, PUBLISHER]
    for unit in (U.ITLRECOVERY, U.CALLMANAGER):
        cluster.install(unit, PUBLISHER, label="again", not_before=NOW - 60)
    with pytest.raises(TrustError):
        verify_trust_list(itl_of(cluster), installed)
    data = build_itl(cluster.database, keys_of(cluster), cluster.profile, PUBLISHER, NOW, remote_key=kept)
    trust_list, anchor = verify_trust_list(data, installed)
    assert anchor.serial == kept.serial
    assert kept.certificate_der not in [record.certificate for record in trust_list.records]


@pytest.mark.parametrize(
    ("version", "unit"), [("9.1.2", U.ITLRECOVERY), ("10.5.2", U.TVS), ("12.5.1", U.PHONE_SAST_TRUST)]
)
def test_no_other_unit_signs_lists(make: Make, version: str, unit: CertificateUnit) -> None:
    cluster = make(version)
    with pytest.raises(UsageError, match="signs no list") as caught:
        build_itl(cluster.database, keys_of(cluster), cluster.profile, PUBLISHER, NOW, signer_unit=unit)
    assert caught.value.mend is not None
    assert "CallManager" in caught.value.mend
    assert ("ITLRecovery" in caught.value.mend) == (version != "9.1.2")


# F20
@pytest.mark.parametrize("version", ["10.5.2", "12.5.1"])
def test_an_itlrecovery_key_smaller_than_the_callmanagers_recovers_nothing(make: Make, version: str) -> None:
    cluster = make(version, nodes=BOTH)
    require_recovery_key(cluster.database, cluster.profile, SUBSCRIBER)
    holder = PUBLISHER if version == "12.5.1" else SUBSCRIBER
    cluster.install(U.ITLRECOVERY, holder, label="small", not_before=NOW - 60, bits=1024)
    with pytest.raises(LabError, match="1024 bits, the CallManager's 2048") as caught:
        require_recovery_key(cluster.database, cluster.profile, SUBSCRIBER)
    assert caught.value.mend is not None
    assert "ITLRecovery" in caught.value.mend
    cluster.install(U.ITLRECOVERY, holder, label="mended", not_before=NOW - 30)
    require_recovery_key(cluster.database, cluster.profile, SUBSCRIBER)


def test_before_10_0_there_is_no_recovery_and_a_lost_certificate_is_told(make: Make) -> None:
    old = make("9.1.2")
    with pytest.raises(UsageError, match="no utils itl reset"):
        require_recovery_key(old.database, old.profile, PUBLISHER)
    cluster = make("11.5.1")
    cluster.database.delete_certificate(U.ITLRECOVERY, f"ITLRECOVERY_{PUBLISHER}")
    with pytest.raises(LabError, match="no ITLRecovery certificate"):
        require_recovery_key(cluster.database, cluster.profile, PUBLISHER)


def tokens_of(cluster: ClusterOnDisk, *numbers: int) -> list[Identity]:
    return [security_token(cluster.keys, number, seed=1, not_before=NOW - 9) for number in numbers]


def test_phones_believe_the_next_ctl_whichever_listed_token_signs_it(make: Make) -> None:
    cluster = make("9.1.2", nodes=BOTH)
    tokens = tokens_of(cluster, 1, 2)
    first, second = (build_token_ctl(cluster.database, cluster.profile, tokens, signing, NOW) for signing in tokens)
    verify_trust_list(second, anchors_of(decode_trust_list(first), "CTL"))
    strangers = tokens_of(cluster, 3, 4)
    foreign = build_token_ctl(cluster.database, cluster.profile, strangers, strangers[0], NOW)
    with pytest.raises(TrustError) as caught:
        verify_trust_list(foreign, anchors_of(decode_trust_list(first), "CTL"))
    assert caught.value.reason is TrustReason.SIGNER_UNKNOWN


def test_a_token_ctl_needs_two_tokens_the_signing_one_among_them_and_a_release_that_takes_them(make: Make) -> None:
    cluster = make("11.5.1")
    one, two, three = tokens_of(cluster, 1, 2, 3)
    for tokens, signing in (([one], one), ([one, one], one), ([one, two], three), ([], one)):
        with pytest.raises(UsageError, match="security tokens"):
            build_token_ctl(cluster.database, cluster.profile, tokens, signing, NOW)
    with pytest.raises(UsageError, match="takes no security tokens"):
        build_token_ctl(cluster.database, profile_of("15.0.1"), [one, two], one, NOW)


def test_the_digest_parameter_governs_token_ctls_too_and_foreign_sast_stays_out(make: Make) -> None:
    cluster = make("12.0.1")
    tokens = tokens_of(cluster, 1, 2)
    foreign = node_certificate(KeyStore(), U.CALLMANAGER, "ucm11pub", seed="foreign", not_before=NOW - 9)
    cluster.database.put_certificate(foreign.certificate_der, U.PHONE_SAST_TRUST, "ucm11pub", None, moment=NOW)
    cluster.database.set_parameter("TFTP File Signature Algorithm", "SHA-512")
    data = build_token_ctl(cluster.database, cluster.profile, tokens, tokens[0], NOW)
    trust_list, _ = verify_trust_list(data, anchors_of(decode_trust_list(data), "CTL"))
    assert trust_list.digest is DigestAlgorithm.SHA512
    assert foreign.certificate_der not in [record.certificate for record in trust_list.records]
