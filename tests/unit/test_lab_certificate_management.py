from __future__ import annotations

import asyncio

import pytest
from lab_on_sockets import make_lab, network_of, topology_of

from cucm.broken_certificates import expired
from cucm.clock import MovableClock
from cucm.database import PutOutcome
from cucm.errors import CertificateRefused, LabError, UsageError
from cucm.identity import describe
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit, TrustRole
from cucm.wire.trust_list import decode_trust_list
from lab.certificate_management import CACHED_GENERATIONS
from lab.runtime import Lab, LabOptions

SAST = CertificateUnit.PHONE_SAST_TRUST
CALLMANAGER = CertificateUnit.CALLMANAGER
TOMCAT = CertificateUnit.TOMCAT
CAPF_TRUST = CertificateUnit.CAPF_TRUST
CA = "CN=a company's CA"


def clusters(version: str, **more):
    return topology_of(
        {"name": "here", "version": version, "nodes": ["pub", "sub1", "sub2"], "security_mode": "non-secure", **more},
        {"name": "there", "version": "11.5", "nodes": ["other"], "security_mode": "non-secure"},
    )


async def lab_of(tmp_path, loopback, version):
    return make_lab(tmp_path / "lab", network_of(loopback), clusters(version), seed=7)


@pytest.fixture
async def lab(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "12.5") as lab:
        yield lab


@pytest.fixture
async def old_lab(tmp_path, loopback):
    async with await lab_of(tmp_path, loopback, "10.5.2") as lab:
        yield lab


def held(lab, node: str, unit: CertificateUnit) -> list[bytes]:
    return [item.der for item in lab.node(f"here/{node}").database.certificates(unit)]


def foreign(lab) -> bytes:
    return lab.cluster("there").publisher.certificate(CALLMANAGER)


async def test_every_node_has_its_own_and_from_12_5_they_share_itlrecovery(lab):
    pages = lab.cluster("here").certificates
    assert [node for node, _ in pages.own(CALLMANAGER)] == ["pub", "sub1", "sub2"]
    assert [node for node, _ in pages.own(CertificateUnit.CAPF)] == ["pub"]
    assert [node for node, _ in pages.own(CertificateUnit.ITLRECOVERY)] == ["pub"]
    shared = {lab.node(node).certificate(CertificateUnit.ITLRECOVERY) for node in ("pub", "sub1", "sub2")}
    assert len(shared) == 1


async def test_before_12_5_every_node_has_an_itlrecovery_of_its_own(old_lab):
    own = old_lab.cluster("here").certificates.own(CertificateUnit.ITLRECOVERY)
    assert [node for node, _ in own] == ["pub", "sub1", "sub2"]
    assert len({der for _, der in own}) == 3


async def test_an_upload_reaches_every_node_and_gives_roles(lab):
    pages = lab.cluster("here").certificates
    assert pages.upload(foreign(lab), SAST) is PutOutcome.ADDED
    assert pages.upload(foreign(lab), SAST, "sub1") is PutOutcome.UNCHANGED
    await lab.settle()
    for node in ("pub", "sub1", "sub2"):
        (item,) = lab.node(node).database.certificates(SAST)
        assert item.der == foreign(lab)
        assert item.roles == (TrustRole.SAST, TrustRole.TFTP)


async def test_capf_trust_is_each_nodes_own(lab):
    capf = lab.cluster("there").publisher.certificate(CertificateUnit.CAPF)
    lab.cluster("here").certificates.upload(capf, CAPF_TRUST, "sub1")
    await lab.settle()
    assert [held(lab, node, CAPF_TRUST) for node in ("pub", "sub1", "sub2")] == [[], [capf], []]


@pytest.mark.parametrize("store", [CALLMANAGER, CertificateUnit.IPSEC_TRUST])
async def test_a_store_that_takes_no_uploads(lab, store):
    with pytest.raises(UsageError, match="nothing can be uploaded"):
        lab.cluster("here").certificates.upload(foreign(lab), store)


async def test_an_expired_certificate_is_refused_and_nothing_is_lost(lab):
    pages = lab.cluster("here").certificates
    pages.upload(foreign(lab), SAST)
    late = expired(lab.cluster("there").publisher.identity(CALLMANAGER), lab.clock.now())
    with pytest.raises(CertificateRefused, match="expired"):
        pages.upload(late.certificate_der, SAST)
    assert held(lab, "pub", SAST) == [foreign(lab)]


async def test_from_11_0_on_a_deletion_is_everywhere(lab):
    pages, name = lab.cluster("here").certificates, describe(foreign(lab)).common_name
    pages.upload(foreign(lab), SAST)
    capf = lab.cluster("there").publisher.certificate(CertificateUnit.CAPF)
    for node in ("pub", "sub2"):
        pages.upload(capf, CAPF_TRUST, node)
    await lab.settle()
    pages.delete(SAST, name, "sub1")
    pages.delete(CAPF_TRUST, describe(capf).common_name, "sub1")
    await lab.settle()
    assert [held(lab, node, SAST) for node in ("pub", "sub1", "sub2")] == [[], [], []]
    assert [held(lab, node, CAPF_TRUST) for node in ("pub", "sub1", "sub2")] == [[], [], []]
    with pytest.raises(CertificateRefused, match="there is no certificate"):
        pages.delete(SAST, name)


@pytest.mark.parametrize("node", ["pub", "sub1"])
async def test_before_11_0_a_deleted_certificate_comes_back_from_the_others(old_lab, node):
    lab, cluster = old_lab, old_lab.cluster("here")
    cluster.certificates.upload(foreign(lab), SAST)
    await lab.settle()
    cluster.certificates.delete(SAST, describe(foreign(lab)).common_name, node)
    await lab.settle()
    assert held(lab, node, SAST) == []
    assert held(lab, "sub2", SAST) == [foreign(lab)]
    cluster.certificates.synchronise()
    await lab.settle()
    assert held(lab, node, SAST) == [foreign(lab)]


async def test_before_11_0_it_stays_deleted_when_change_notification_is_stopped_and_all_delete_it(old_lab):
    lab, cluster = old_lab, old_lab.cluster("here")
    cluster.certificates.upload(foreign(lab), SAST)
    await lab.settle()
    for node in cluster.nodes.values():
        await node.stop_service("CertificateChangeNotification")
    for node in cluster.nodes:
        cluster.certificates.delete(SAST, describe(foreign(lab)).common_name, node)
    cluster.certificates.synchronise()
    for node in cluster.nodes.values():
        await node.start_service("CertificateChangeNotification")
    cluster.certificates.synchronise()
    await lab.settle()
    assert [held(lab, node, SAST) for node in cluster.nodes] == [[], [], []]


async def test_an_own_certificate_is_not_deleted(lab):
    with pytest.raises(UsageError, match="node's own"):
        lab.cluster("here").certificates.delete(CALLMANAGER, "pub")


async def test_regenerating_one_node_leaves_the_others(lab):
    pages = lab.cluster("here").certificates
    before = dict(pages.own(CALLMANAGER))
    await pages.regenerate(CALLMANAGER, "sub1", key_bits=3072)
    after = dict(pages.own(CALLMANAGER))
    assert [node for node in after if after[node] != before[node]] == ["sub1"]
    assert lab.node("sub1").identity(CALLMANAGER).private_key.key_size == 3072
    await lab.settle()
    assert after["sub1"] in held(lab, "sub2", CALLMANAGER)
    assert before["sub1"] not in held(lab, "sub2", CALLMANAGER)


async def test_pairs_made_anew_again_and_again_leave_no_keys_in_the_cache(tmp_path, loopback):
    topology = topology_of({"name": "one", "version": "8.6", "nodes": ["pub"], "security_mode": "non-secure"})
    keys = KeyStore(tmp_path / "keys")
    async with Lab(topology, LabOptions(tmp_path / "lab", network_of(loopback)), keys=keys) as lab:
        pages, counts, owns = lab.cluster("one").certificates, [], set()
        for _ in range(CACHED_GENERATIONS + 2):
            await pages.regenerate(CertificateUnit.TVS)
            await pages.make_signing_request(CertificateUnit.TVS)
            owns.add(lab.node("pub").identity(CertificateUnit.TVS).private_key_der)
            counts.append(sum(1 for _ in (tmp_path / "keys").glob("*.key")))
    assert len(owns) == CACHED_GENERATIONS + 2
    assert counts[1] > counts[0]
    assert counts[-1] == counts[-2] == counts[-3]


async def test_what_a_node_does_not_have_cannot_be_regenerated(lab):
    pages = lab.cluster("here").certificates
    with pytest.raises(UsageError, match="has no CAPF certificate of its own"):
        await pages.regenerate(CertificateUnit.CAPF, "sub1")
    with pytest.raises(UsageError, match="no node 'nobody'"):
        await pages.regenerate(CALLMANAGER, "nobody")


async def test_a_ca_signs_a_certificate_and_it_is_imported(lab):
    pages, node = lab.cluster("here").certificates, lab.node("sub1")
    before = node.certificate(CALLMANAGER)
    request = await pages.make_signing_request(CALLMANAGER, "sub1")
    assert node.certificate(CALLMANAGER) == before
    signed, authority = await pages.sign_request(request, CA)
    with pytest.raises(CertificateRefused, match="is not in CallManager-trust"):
        await pages.import_signed(signed, CALLMANAGER, "sub1")
    pages.upload(authority, CertificateUnit.CALLMANAGER_TRUST)
    await pages.import_signed(signed, CALLMANAGER, "sub1")
    assert node.certificate(CALLMANAGER) == signed
    assert describe(signed).issuer == CA
    assert describe(signed).subject == describe(before).subject
    with pytest.raises(CertificateRefused, match="has no CSR"):
        await pages.import_signed(signed, CALLMANAGER, "sub1")


async def test_a_certificate_for_another_csr_is_refused(lab):
    pages = lab.cluster("here").certificates
    signed, authority = await pages.sign_request(await pages.make_signing_request(CALLMANAGER), CA)
    pages.upload(authority, CertificateUnit.CALLMANAGER_TRUST)
    await pages.make_signing_request(CALLMANAGER)
    with pytest.raises(CertificateRefused, match="not for the key of the CSR"):
        await pages.import_signed(signed, CALLMANAGER)


async def test_bad_requests_for_a_signature(lab):
    pages = lab.cluster("here").certificates
    with pytest.raises(UsageError, match="not a certificate signing request"):
        await pages.sign_request(b"nonsense", CA)
    with pytest.raises(UsageError, match="makes no CSR for CAPF"):
        await pages.make_signing_request(CertificateUnit.CAPF)


async def test_nobody_writes_while_the_publisher_is_down(lab):
    cluster = lab.cluster("here")
    await cluster.crash_node("pub")
    with pytest.raises(LabError, match="the publisher pub is down"):
        await cluster.certificates.regenerate(CALLMANAGER, "sub1")
    for do in (
        lambda: cluster.certificates.upload(foreign(lab), SAST, "sub1"),
        lambda: cluster.certificates.delete(SAST, "x", "sub1"),
        lambda: cluster.set_parameter("a", "b"),
    ):
        with pytest.raises(LabError, match="the publisher pub is down"):
            do()


async def test_a_pair_half_written_by_a_kill_is_finished_when_the_lab_is_opened_again(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, clusters("11.5")) as lab:
        kept = lab.node("sub1").certificate(CALLMANAGER)
        other = lab.node("sub2").identity(CALLMANAGER)
        security = lab.node("pub").security
        # the key of a pair was replaced, the certificate not yet; and on sub1 both were, the database not yet
        (security / "CallManager.key").write_bytes(other.private_key_der)
        lab.node("sub1").write_identity(CALLMANAGER, other)
    async with make_lab(tmp_path / "lab", network, clusters("11.5")) as lab:
        node = lab.node("pub")
        assert node.identity(CALLMANAGER).certificate_der in held(lab, "sub2", CALLMANAGER)
        assert lab.node("sub1").certificate(CALLMANAGER) != kept
        own = dict(lab.cluster("here").certificates.own(CALLMANAGER))
        assert set(held(lab, "pub", CALLMANAGER)) == set(own.values())


async def test_certificates_end_when_their_time_is_over(tmp_path, loopback):
    topology = clusters("11.5", installed_days_ago=400, certificate_days=365)
    clock = MovableClock()
    async with Lab(topology, LabOptions(tmp_path / "lab", network_of(loopback)), clock=clock) as lab:
        der = lab.node("pub").certificate(CALLMANAGER)
        assert describe(der).not_after < clock.now()
        with pytest.raises(CertificateRefused, match="expired"):
            lab.cluster("there").certificates.upload(der, SAST)


async def test_a_certificate_that_all_deleted_stays_away_while_another_comes_back(old_lab):
    lab, cluster = old_lab, old_lab.cluster("here")
    other = lab.cluster("there").publisher.certificate(CertificateUnit.TVS)
    cluster.certificates.upload(foreign(lab), SAST)
    cluster.certificates.upload(other, CertificateUnit.CALLMANAGER_TRUST)
    await lab.settle()
    for node in cluster.nodes:
        cluster.certificates.delete(SAST, describe(foreign(lab)).common_name, node)
    cluster.certificates.delete(CertificateUnit.CALLMANAGER_TRUST, describe(other).common_name, "sub1")
    cluster.replication.pause("sub1")
    cluster.certificates.synchronise()
    await lab.settle()
    assert [held(lab, node, SAST) for node in cluster.nodes] == [[], [], []]
    assert other in held(lab, "sub1", CertificateUnit.CALLMANAGER_TRUST)
    assert [link.paused for link in cluster.replication.status() if link.node == "sub1"] == [True]


async def test_units_of_one_node_signed_in_the_same_second_have_serials_of_their_own(tmp_path, loopback):
    clock = MovableClock(1_800_000_000.0, frozen=True)
    async with Lab(clusters("12.5"), LabOptions(tmp_path / "lab", network_of(loopback)), clock=clock) as lab:
        pages, serials = lab.cluster("here").certificates, set()
        for unit in (CALLMANAGER, CertificateUnit.TVS, CertificateUnit.TOMCAT):
            signed, authority = await pages.sign_request(await pages.make_signing_request(unit), CA)
            pages.upload(authority, CertificateUnit(f"{unit}-trust"))
            await pages.import_signed(signed, unit)
            serials.add(describe(signed).serial)
        assert len(serials) == 3


async def test_a_ca_is_the_same_in_every_year_and_an_old_signature_is_not_imported(tmp_path, loopback):
    clock = MovableClock(1_800_000_000.0)
    async with Lab(clusters("12.5"), LabOptions(tmp_path / "lab", network_of(loopback)), clock=clock) as lab:
        pages = lab.cluster("here").certificates
        request = await pages.make_signing_request(CALLMANAGER)
        signed, authority = await pages.sign_request(request, CA)
        assert pages.upload(authority, CertificateUnit.CALLMANAGER_TRUST) is PutOutcome.ADDED
        clock.move(6 * 365 * 86_400)
        with pytest.raises(CertificateRefused, match="has expired"):
            await pages.import_signed(signed, CALLMANAGER)
        again, same = await pages.sign_request(request, CA)
        assert same == authority
        assert pages.upload(same, CertificateUnit.CALLMANAGER_TRUST) is PutOutcome.UNCHANGED
        await pages.import_signed(again, CALLMANAGER)
        assert lab.node("pub").certificate(CALLMANAGER) == again


async def test_a_later_start_replaces_and_an_earlier_one_is_ignored(lab):
    pages, other = lab.cluster("here").certificates, lab.cluster("there")
    old = foreign(lab)
    await other.certificates.regenerate(CALLMANAGER)
    new = foreign(lab)
    assert describe(old).common_name == describe(new).common_name
    for store in (SAST, CertificateUnit.CALLMANAGER_TRUST):
        assert pages.upload(old, store) is PutOutcome.ADDED
        assert pages.upload(new, store) is PutOutcome.REPLACED
        assert pages.upload(old, store) is PutOutcome.IGNORED
    await lab.settle()
    assert held(lab, "sub2", SAST) == [new]


async def test_listing(lab):
    pages = lab.cluster("here").certificates
    assert {item.der for item in pages.listed(None, CALLMANAGER)} == {der for _, der in pages.own(CALLMANAGER)}
    assert pages.listed("sub1", SAST) == ()
    with pytest.raises(UsageError, match="no node 'nobody' in here"):
        pages.listed("nobody")


async def test_regenerating_everywhere_is_refused_whole_while_a_node_is_down(lab):
    cluster = lab.cluster("here")
    before = cluster.certificates.own(CALLMANAGER)
    await cluster.crash_node("sub2")
    with pytest.raises(LabError, match="sub2 is down"):
        await cluster.certificates.regenerate(CALLMANAGER)
    assert cluster.certificates.own(CALLMANAGER) == before


async def test_a_capf_trust_that_cannot_be_reached_keeps_what_it_has(lab):
    cluster = lab.cluster("here")
    capf = lab.cluster("there").publisher.certificate(CertificateUnit.CAPF)
    for node in ("sub1", "sub2"):
        cluster.certificates.upload(capf, CAPF_TRUST, node)
    await cluster.crash_node("sub2")
    cluster.certificates.delete(CAPF_TRUST, describe(capf).common_name)
    assert [held(lab, node, CAPF_TRUST) for node in ("sub1", "sub2")] == [[], [capf]]
    with pytest.raises(CertificateRefused, match="there is no certificate"):
        cluster.certificates.delete(CAPF_TRUST, describe(capf).common_name)


async def test_before_11_0_capf_trust_is_deleted_on_one_node_and_stays_away(old_lab):
    cluster = old_lab.cluster("here")
    capf = old_lab.cluster("there").publisher.certificate(CertificateUnit.CAPF)
    for node in ("sub1", "sub2"):
        cluster.certificates.upload(capf, CAPF_TRUST, node)
    cluster.certificates.delete(CAPF_TRUST, describe(capf).common_name, "sub1")
    cluster.certificates.synchronise()
    assert [held(old_lab, node, CAPF_TRUST) for node in ("sub1", "sub2")] == [[], [capf]]


async def test_a_node_whose_change_notification_is_stopped_neither_gives_nor_takes(old_lab):
    lab, cluster = old_lab, old_lab.cluster("here")
    cluster.certificates.upload(foreign(lab), SAST)
    await lab.settle()
    name = describe(foreign(lab)).common_name
    for node in ("pub", "sub1"):
        cluster.certificates.delete(SAST, name, node)
    await cluster.node("sub2").stop_service("CertificateChangeNotification")
    cluster.certificates.synchronise()  # the only one that has it does not give
    assert [held(lab, node, SAST) for node in cluster.nodes] == [[], [], [foreign(lab)]]
    await cluster.node("sub2").start_service("CertificateChangeNotification")
    await cluster.node("sub1").stop_service("CertificateChangeNotification")
    cluster.certificates.synchronise()  # and sub1 does not take
    assert [held(lab, node, SAST) for node in cluster.nodes] == [[foreign(lab)], [], [foreign(lab)]]


@pytest.mark.parametrize("unit", [CertificateUnit.CAPF, CertificateUnit.ITLRECOVERY])
async def test_what_cannot_be_signed_or_imported(lab, unit):
    pages = lab.cluster("here").certificates
    with pytest.raises(UsageError, match=f"makes no CSR for {unit}"):
        await pages.make_signing_request(unit)
    with pytest.raises(CertificateRefused, match=f"has no CSR for {unit}"):
        await pages.import_signed(foreign(lab), unit)


async def test_every_node_has_a_callmanager_certificate_whatever_is_activated_there(tmp_path, loopback):
    """A publisher without phones and files signs the CTL of 11.5 all the same (facts 6.1)."""
    topology = topology_of({"name": "here", "version": "11.5", "nodes": ["pub", "sub"]})
    table = topology.clusters["here"]
    nodes = (
        table.nodes[0].model_copy(update={"services": ("TVS",)}),
        table.nodes[1].model_copy(update={"services": ("CallManager", "TVS", "TFTP")}),
    )
    clusters = {"here": table.model_copy(update={"nodes": nodes})}
    dedicated = topology.model_copy(update={"clusters": clusters})
    async with make_lab(tmp_path / "lab", network_of(loopback), dedicated) as lab:
        pages = lab.cluster("here").certificates
        assert [node for node, _ in pages.own(CALLMANAGER)] == ["pub", "sub"]
        known = decode_trust_list(lab.node("sub").ctl_file.read_bytes())
        assert known.signer.serial == describe(lab.node("pub").certificate(CALLMANAGER)).serial
        assert [r.dns_name for r in known.records if r.function == TrustRole.CALLMANAGER_TFTP] == ["sub"]


async def test_a_shared_recovery_pair_that_reached_some_nodes_reaches_all_when_opened_again(tmp_path, loopback):
    network, recovery = network_of(loopback), CertificateUnit.ITLRECOVERY
    async with make_lab(tmp_path / "lab", network, clusters("12.5")) as lab:
        old = lab.node("pub").identity(recovery)
        await lab.cluster("here").certificates.regenerate(recovery)
        new = lab.node("pub").identity(recovery)
        # as if the kill had come when the publisher's pair and sub1's key were written, and nothing of sub2's
        (lab.node("sub1").security / f"{recovery}.pem").write_bytes(old.certificate_pem)
        lab.node("sub2").write_identity(recovery, old)
    async with make_lab(tmp_path / "lab", network, clusters("12.5")) as lab:
        assert {lab.node(node).certificate(recovery) for node in ("pub", "sub1", "sub2")} == {new.certificate_der}


@pytest.fixture
async def keyless_lab(tmp_path, loopback):
    """Every new key of this lab has to be made."""
    topology = topology_of({"name": "here", "version": "12.5", "nodes": ["pub", "sub"]})
    options = LabOptions(tmp_path / "lab", network_of(loopback))
    async with Lab(topology, options, keys=KeyStore(tmp_path / "keys")) as lab:
        yield lab


@pytest.mark.parametrize("work", ["regenerate", "make_signing_request"])
async def test_the_loop_goes_on_while_a_key_is_made_and_nothing_changes_until_it_is(keyless_lab, work):
    node, turns = keyless_lab.node("pub"), 0
    pages, made, before = keyless_lab.cluster("here").certificates, keyless_lab.keys.generated, node.certificate(TOMCAT)
    task = asyncio.create_task(getattr(pages, work)(TOMCAT, "pub"))
    while not task.done():
        assert node.certificate(TOMCAT) == before
        assert not (node.security / "tomcat.csr").exists()
        turns += 1
        await asyncio.sleep(0)
    await task
    assert turns > 1  # without a thread the first turn is the whole work
    assert keyless_lab.keys.generated == made + 1
    assert (node.certificate(TOMCAT) != before) is (work == "regenerate")
    assert (node.security / "tomcat.csr").exists() is (work == "make_signing_request")


async def test_a_machine_that_goes_down_while_its_key_is_made_keeps_its_certificate(keyless_lab):
    lab, cluster = keyless_lab, keyless_lab.cluster("here")
    before = cluster.certificates.own(CALLMANAGER)
    renewing = asyncio.create_task(cluster.certificates.regenerate(CALLMANAGER, "sub"))
    await asyncio.sleep(0)
    await cluster.crash_node("sub")
    with pytest.raises(LabError, match="sub is down"):
        await renewing
    assert cluster.certificates.own(CALLMANAGER) == before
    assert {item.der for item in lab.node("pub").database.certificates(CALLMANAGER)} == {der for _, der in before}
