from __future__ import annotations

import pytest
from lab_on_sockets import make_lab, network_of

from cucm.broken_certificates import expired
from cucm.errors import CertificateRefused
from cucm.events.administration import CertificateIgnored, CertificateStored, ParameterSet
from cucm.events.trust_lists import TrustListSigned
from cucm.roles import CertificateUnit, TrustRole
from cucm.trust import anchors_of, verify_trust_list
from cucm.wire.trust_list import decode_trust_list
from lab.topology import load_topology
from tvs_server.certificate_cache import FreshnessMode

CALLMANAGER = CertificateUnit.CALLMANAGER


@pytest.fixture
async def lab(tmp_path, loopback):
    async with make_lab(tmp_path, network_of(loopback)) as lab:
        yield lab


def told(lab, kind: type, since: int) -> list:
    return [record.event for record in lab.events.since(since) if isinstance(record.event, kind)]


async def test_a_new_cluster_has_a_ctl_that_its_own_signer_made(lab):
    for cluster in lab.clusters.values():
        data = cluster.publisher.ctl_file.read_bytes()
        trust_list, anchor = verify_trust_list(data, anchors_of(decode_trust_list(data), "CTL"))
        assert anchor.certificate == cluster.publisher.certificate(CALLMANAGER)
        functions = {record.function for record in trust_list.records}
        assert TrustRole.SAST in functions


async def test_the_store_decides_the_roles(lab):
    source, der = lab.cluster("source"), lab.cluster("destination").publisher.certificate(CALLMANAGER)
    since = len(lab.events)
    source.certificates.upload(der, CertificateUnit.CALLMANAGER_TRUST)
    source.certificates.upload(der, CertificateUnit.PHONE_SAST_TRUST)
    assert [event.roles for event in told(lab, CertificateStored, since)] == [(), (0, 3)]
    assert {event.subject for event in told(lab, CertificateStored, since)} == {
        "CN=ucm11pub.stormin.local;OU=IST;O=Stormin;L=Brisbane;ST=QLD;C=AU"
    }


async def test_an_older_certificate_of_the_same_name_is_ignored_and_that_is_told(lab):
    source, destination = lab.clusters.values()
    old = destination.publisher.certificate(CALLMANAGER)
    destination.certificates.regenerate(CALLMANAGER)
    new = destination.publisher.certificate(CALLMANAGER)
    source.certificates.upload(new, CertificateUnit.PHONE_SAST_TRUST)
    since = len(lab.events)
    source.certificates.upload(old, CertificateUnit.PHONE_SAST_TRUST)
    assert told(lab, CertificateStored, since) == []
    assert [event.store for event in told(lab, CertificateIgnored, since)] == ["Phone-SAST-trust"]
    held = [item.der for item in source.publisher.database.certificates(CertificateUnit.PHONE_SAST_TRUST)]
    assert new in held
    assert old not in held


async def test_an_expired_certificate_is_refused(lab):
    source = lab.cluster("source").publisher
    late = expired(source.identity(CALLMANAGER), lab.clock.now())
    with pytest.raises(CertificateRefused, match="expired at"):
        lab.cluster("destination").certificates.upload(late.certificate_der, CertificateUnit.PHONE_SAST_TRUST)


async def test_regenerating_makes_a_new_key_and_leaves_the_ctl_as_it_was(lab):
    source = lab.cluster("source")
    node = source.publisher
    before, ctl = node.identity(CALLMANAGER), node.ctl_file.read_bytes()
    source.certificates.regenerate(CALLMANAGER)
    after = node.identity(CALLMANAGER)
    assert after.public_key_record != before.public_key_record
    assert after.serial != before.serial
    assert [item.der for item in node.database.certificates(CALLMANAGER)] == [after.certificate_der]
    assert node.ctl_file.read_bytes() == ctl
    since = len(lab.events)
    source.trust_lists.update_ctl_file()
    signed = verify_trust_list(
        node.ctl_file.read_bytes(), anchors_of(decode_trust_list(node.ctl_file.read_bytes()), "CTL")
    )
    assert signed[1].certificate == after.certificate_der
    assert [event.file_name for event in told(lab, TrustListSigned, since)] == ["CTLFile.tlv"]


async def test_a_parameter_is_set_and_told(lab):
    since = len(lab.events)
    lab.cluster("source").set_parameter("TFTP File Signature Algorithm", "SHA-512")
    assert lab.cluster("source").publisher.database.parameter("TFTP File Signature Algorithm") == "SHA-512"
    assert told(lab, ParameterSet, since) == [ParameterSet("source", "TFTP File Signature Algorithm", "SHA-512")]


async def test_the_tvs_cache_mode_restarts_tvs(lab):
    source = lab.cluster("source")
    since = len(lab.events)
    await source.set_tvs_cache(FreshnessMode.STALE_UNTIL_RESTART)
    assert source.publisher.tvs_cache is FreshnessMode.STALE_UNTIL_RESTART
    assert source.publisher.runs("TVS")
    assert [record.event.kind for record in lab.events.since(since) if record.source == "node:ucm105pub"] == [
        "service.stopped",
        "service.started",
    ]


async def test_a_non_secure_cluster_has_no_ctl(tmp_path, loopback):
    topology = load_topology("two-clusters")
    clusters = {
        name: table.model_copy(update={"security_mode": "non-secure"}) for name, table in topology.clusters.items()
    }
    changed = topology.model_copy(update={"clusters": clusters})
    async with make_lab(tmp_path, network_of(loopback), changed) as lab:
        assert not lab.cluster("source").publisher.ctl_file.exists()
