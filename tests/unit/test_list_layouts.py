"""Every documented layout of CTL and ITL (facts 6.1 to 6.3, 7.3), release by release and mode by mode, decoded from
what the TFTP nodes serve. What is expected stands here in words of its own, not in those of `cucm.versions`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_on_disk import ADDRESSES, PHONE, PUBLISHER, SUBSCRIBER
from served_cluster import LAYOUTS, Mode, ServedCluster, serving

from cucm.roles import CertificateUnit
from cucm.trust import anchors_of, verify_trust_list
from cucm.wire.trust_list import DigestAlgorithm, Record, TrustList, decode_trust_list

Row = tuple[str | None, str, str]
"""DNSNAME, FUNCTION and whose certificate: a unit, `token 1`, `blank`."""

FUNCTIONS = {0: "SAST", 2: "CCM+TFTP", 3: "TFTP", 4: "CAPF", 21: "TVS"}
BEFORE_10 = ("8.6", "9.1")
CALLMANAGER_FIRST = ("10.5.2", "11.0", "11.5")
ONE_RECOVERY = ("12.5", "14", "15")
RECOVERY_SIGNS = ("12.0", *ONE_RECOVERY)


@pytest.mark.parametrize(("version", "mode"), LAYOUTS, ids=[f"{version} {mode.value}" for version, mode in LAYOUTS])
async def test_the_lists_of_a_release_and_mode(
    tmp_path: Path, loopback: Callable[[], str], version: str, mode: Mode
) -> None:
    async with serving(tmp_path / "cluster", loopback, version, mode) as served:
        await check_ctl(served)
        for node in (PUBLISHER, SUBSCRIBER):
            await check_itl(served, node)


def owner_of(served: ServedCluster, record: Record) -> str:
    owners = {identity.certificate_der: unit.value for (unit, _), identity in served.cluster.identities.items()}
    owners |= {token.certificate_der: f"token {number}" for number, token in enumerate(served.tokens, start=1)}
    return "blank" if record.is_blank else owners[record.certificate or b""]


def rows(served: ServedCluster, trust_list: TrustList) -> list[Row]:
    return [(r.dns_name, FUNCTIONS[r.function], owner_of(served, r)) for r in trust_list.records]


def sast_rows_of_ctl(version: str, mode: Mode) -> list[Row]:
    """Facts 6.1: the two columns of Cisco's table."""
    if mode.has_tokens:
        # the second token signs in these tests
        address = ADDRESSES[PUBLISHER]
        more = version in ("11.5", "12.0", "12.5", "14")
        behind = [(address, "SAST", "ITLRecovery"), (address, "SAST", "CallManager")] if more else []
        return [("", "SAST", "token 2"), ("", "SAST", "token 1"), *behind]
    if version in RECOVERY_SIGNS:
        return [(PUBLISHER, "SAST", "ITLRecovery"), (PUBLISHER, "SAST", "CallManager")]
    if version in CALLMANAGER_FIRST:
        return [(PUBLISHER, "SAST", "CallManager"), (PUBLISHER, "SAST", "ITLRecovery")]
    return [(PUBLISHER, "SAST", "CallManager")]


async def check_ctl(served: ServedCluster) -> None:
    mode = served.mode
    fetched = {node: await served.get(node, f"CTL{PHONE}.tlv") for node in (PUBLISHER, SUBSCRIBER)}
    data = fetched[PUBLISHER]
    assert fetched[SUBSCRIBER] == data, "the same file on all nodes"
    if mode is Mode.NON_SECURE:
        assert data is None
        return
    assert data is not None
    trust_list, signer = verify_trust_list(data, anchors_of(decode_trust_list(data), "CTL"))
    names = {node: ADDRESSES[node] if mode.has_tokens else node for node in ADDRESSES}
    callmanager = "CallManager" if mode.is_mixed else "blank"
    assert rows(served, trust_list) == [
        *sast_rows_of_ctl(served.cluster.profile.version, mode),
        (names[PUBLISHER], "CCM+TFTP", callmanager),
        (names[PUBLISHER], "CAPF", "CAPF"),
        (names[SUBSCRIBER], "CCM+TFTP", callmanager),
    ]
    assert signer.origin == "CTL record 1"
    assert (trust_list.file_name, trust_list.digest) == ("CTLFile.tlv", DigestAlgorithm.SHA1)
    assert trust_list.signer_version is None
    check_parts(trust_list, data)
    if mode.has_tokens:
        check_form_of_tokens(trust_list, mode)


def check_form_of_tokens(trust_list: TrustList, mode: Mode) -> None:
    """As the CTL client writes a list (facts 3.2, 3.4)."""
    assert {record.signature for record in trust_list.records} == {None}
    assert trust_list.signer.subject == 'cn="SAST-LAB00000002        ";ou=IPCBU;o="cucm-migration-lab'
    assert trust_list.signer.issuer == "cn=Emulated Manufacturing CA (lab toy);o=cucm-migration-lab"
    assert trust_list.records[0].subject == trust_list.signer.subject
    assert trust_list.records[0].elements[1].value == b"\0", "DNSNAME is the NUL alone"
    assert len(trust_list.signature) == 128
    blank = [record.length for record in trust_list.records if record.is_blank]
    assert blank == ([] if mode is Mode.TOKENS else [34, 34])  # 33 with an address one character shorter


async def check_itl(served: ServedCluster, node: str) -> None:
    version, is_rollback = served.cluster.profile.version, served.mode is Mode.ROLLBACK
    data = await served.get(node, f"ITL{PHONE}.tlv")
    assert data is not None
    assert data == await served.get(node, "ITLFile.tlv")
    trust_list, signer = verify_trust_list(data, anchors_of(decode_trust_list(data), "ITL"))
    recovery_node = PUBLISHER if version in ONE_RECOVERY else node
    recovery = [] if version in BEFORE_10 else [(recovery_node, "SAST", "ITLRecovery")]
    assert rows(served, trust_list) == [
        *recovery,
        (node, "SAST", "CallManager"),
        (node, "CCM+TFTP" if served.mode.is_mixed else "TFTP", "blank" if is_rollback else "CallManager"),
        (PUBLISHER, "TVS", "blank" if is_rollback else "TVS"),
        (SUBSCRIBER, "TVS", "blank" if is_rollback else "TVS"),
        (PUBLISHER, "CAPF", "CAPF"),
    ]
    if version in RECOVERY_SIGNS:
        expected = served.cluster.identities[CertificateUnit.ITLRECOVERY, recovery_node]
    else:
        expected = served.cluster.identities[CertificateUnit.CALLMANAGER, node]
    assert (signer.serial, signer.certificate) == (expected.serial, expected.certificate_der)
    assert trust_list.signer.serial == expected.serial
    assert (trust_list.file_name, trust_list.digest) == ("ITLFile.tlv", DigestAlgorithm.SHA1)
    assert trust_list.signer_version == ((1, 1) if version in ONE_RECOVERY else None)
    check_parts(trust_list, data)
    is_small = version in (*BEFORE_10, "10.0", "10.5.1")
    assert len(trust_list.signature) == (128 if is_small else 256)
    assert {len(r.public_key) for r in trust_list.records if r.public_key} == {140 if is_small else 270}


def check_parts(trust_list: TrustList, data: bytes) -> None:
    """Records have the published parts and no others, and nothing follows them."""
    for record in trust_list.records:
        dns_name = len(record.dns_name or "") + 1
        expected = 5 + 5 + 7 + 3 + dns_name if record.is_blank else published_length(record, dns_name)
        assert record.length == expected
    assert trust_list.header_length % 4 == 0
    assert trust_list.header_length + sum(record.length for record in trust_list.records) == len(data)


def published_length(record: Record, dns_name: int) -> int:
    """Facts 3.2: 5 bytes of RECORDLENGTH, 5 of FUNCTION, 7 of IPADDRESS, and heads of 3."""
    assert record.subject is not None
    assert record.issuer is not None
    values = [record.serial, record.public_key, record.certificate, record.signature]
    parts = [len(value) + 3 for value in values if value is not None]
    return 5 + 5 + 7 + (3 + dns_name) + (3 + len(record.subject) + 1) + (3 + len(record.issuer) + 1) + sum(parts)
