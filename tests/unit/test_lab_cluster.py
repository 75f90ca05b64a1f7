from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from lab_on_sockets import PHONE, make_lab, network_of, topology_of
from own_block import FOR_ANOTHER_LAB

from cucm.broken_certificates import expired
from cucm.errors import CertificateRefused, LabError, UsageError
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
    await destination.certificates.regenerate(CALLMANAGER)
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
    await source.certificates.regenerate(CALLMANAGER)
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


# --- several nodes


def three_nodes(version: str = "11.5"):
    return topology_of(
        {
            "name": "here",
            "version": version,
            "nodes": ["pub", "sub1", "sub2"],
            "callmanager_groups": {"Default": ["sub1", "pub"], "east": ["sub2"]},
            "device_pools": {"east": "east"},
        },
        phones=(
            {"mac": "B000B4BA0AEE", "serial_number": "X", "host": 100, "lsc_from": "here", "provisioned_in": ["here"]},
            {"mac": "B000B4BA0AEF", "serial_number": "Y", "host": 101, "provisioned_in": ["here"], "pool": "east"},
        ),
    )


@pytest.fixture
async def wide(tmp_path, loopback):
    async with make_lab(tmp_path / "lab", network_of(loopback), three_nodes()) as lab:
        yield lab


async def test_groups_and_pools_decide_where_a_phone_registers(wide):
    for phone in wide.phones.values():
        await phone.boot()
    assert wide.node("sub1").registered_devices == {PHONE}
    assert wide.node("sub2").registered_devices == {"SEPB000B4BA0AEF"}  # its MIC is enough
    with pytest.raises(UsageError, match="no device pool 'west'"):
        wide.cluster("here").callmanager_group_of_pool("west")


async def test_capf_is_on_the_publisher_unless_said_otherwise(wide):
    assert [node.name for node in wide.cluster("here").nodes_running("CAPF")] == ["pub"]
    assert wide.capf("here").certificate == wide.node("pub").certificate(CertificateUnit.CAPF)
    await wide.node("pub").stop_service("CAPF")
    with pytest.raises(LabError, match="no CAPF runs in here"):
        wide.capf("here")


async def test_from_14_on_capf_is_activated_on_the_publisher_only(tmp_path, loopback):
    async with make_lab(tmp_path / "lab", network_of(loopback), three_nodes("14")) as lab:
        with pytest.raises(LabError, match="14 has CAPF on the publisher only"):
            await lab.cluster("here").activate("sub1", "CAPF")
        assert "CAPF" not in lab.node("sub1").services
        await lab.cluster("here").deactivate("pub", "CAPF")
        await lab.cluster("here").activate("pub", "CAPF")
        assert lab.node("pub").runs("CAPF")


async def test_a_device_that_registers_at_another_node_leaves_the_first(wide):
    phone = wide.phone(PHONE)
    await phone.boot()
    await wide.node("sub1").crash_service("CallManager")
    await phone.reset()
    assert wide.node("pub").registered_devices == {PHONE}
    await wide.node("sub1").start_service("CallManager")
    await phone.reset()
    assert (wide.node("pub").registered_devices, wide.node("sub1").registered_devices) == (frozenset(), {PHONE})


async def test_a_node_that_was_down_catches_up(wide):
    cluster = wide.cluster("here")
    await cluster.crash_node("sub1")
    assert not any(cluster.node("sub1").runs(service) for service in cluster.node("sub1").services)
    assert {str(cluster.node("sub1").state_of(service)) for service in cluster.node("sub1").services} == {"crashed"}
    with pytest.raises(LabError, match="sub1 is down"):
        await cluster.node("sub1").start_service("TVS")
    cluster.set_parameter("x", "1")
    await wide.settle()
    assert cluster.node("sub1").database.parameter("x") is None
    assert cluster.node("sub2").database.parameter("x") == "1"
    await cluster.start_node("sub1")
    await wide.settle()
    assert cluster.node("sub1").database.parameter("x") == "1"
    assert cluster.node("sub1").runs("TVS")


async def test_without_the_publisher_nothing_replicates_and_phones_still_register(wide):
    cluster = wide.cluster("here")
    await cluster.crash_node("pub")
    with pytest.raises(LabError, match="publisher pub is down"):
        cluster.remove_device(PHONE)
    wide.set_option_150((cluster.node("sub1").address,))
    await wide.phone(PHONE).boot()
    assert cluster.node("sub1").registered_devices == {PHONE}
    with pytest.raises(UsageError, match="no node 'x' in here"):
        await cluster.crash_node("x")


async def test_a_service_is_deactivated_and_activated(wide):
    cluster, node = wide.cluster("here"), wide.node("sub2")

    def tvs_records() -> int:
        itl = wide.node("pub").file_store.read("ITLFile.tlv")
        return sum(record.function == TrustRole.TVS for record in decode_trust_list(itl).records)

    assert tvs_records() == 3
    await cluster.deactivate("sub2", "TVS")
    assert "TVS" not in node.services
    assert not node.runs("TVS")
    assert tvs_records() == 2
    with pytest.raises(UsageError, match="TVS is not activated on sub2"):
        await node.start_service("TVS")
    await cluster.activate("sub2", "CAPF")
    assert node.has_identity(CertificateUnit.CAPF)
    assert node.runs("CAPF")
    assert set(wide.node("pub").database.services_of("sub2")) == {"CallManager", "TFTP", "CAPF"}


# --- a folder that is opened again


async def test_a_lab_goes_on_from_its_folder(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        cluster = lab.cluster("here")
        await lab.phone(PHONE).boot()
        await cluster.certificates.regenerate(CALLMANAGER, "sub1")
        await cluster.deactivate("sub2", "TVS")
        cluster.remove_device("SEPB000B4BA0AEF")
        cluster.replication.pause("sub2")
        cluster.set_parameter("x", "1")
        lab.set_option_150((cluster.node("sub1").address,))
        await lab.phone(PHONE).reset()
        kept = {
            "pairs": cluster.certificates.own(CALLMANAGER),
            "ctl": cluster.publisher.ctl_file.read_bytes(),
            "flash": lab.phone(PHONE).flash.contents,
        }
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        cluster = lab.cluster("here")
        assert cluster.certificates.own(CALLMANAGER) == kept["pairs"]
        assert cluster.publisher.ctl_file.read_bytes() == kept["ctl"]
        assert lab.phone(PHONE).flash.contents == kept["flash"]
        assert "TVS" not in cluster.node("sub2").services
        assert cluster.publisher.database.device("SEPB000B4BA0AEF") is None
        assert cluster.node("sub2").database.parameter("x") is None
        cluster.replication.resume("sub2")
        await lab.settle()
        assert cluster.node("sub2").database.parameter("x") == "1"
        await lab.phone(PHONE).boot()
        assert lab.phone(PHONE).flash.contents.tftp_servers == (cluster.node("sub1").address,)
        await cluster.certificates.regenerate(CALLMANAGER, "sub1")
        assert dict(cluster.certificates.own(CALLMANAGER))["sub1"] != dict(kept["pairs"])["sub1"]


async def test_an_installation_that_was_cut_short_is_done_again(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        state = lab.cluster("here").directory / "cluster.json"
    state.unlink()
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        await lab.phone(PHONE).boot()
        assert lab.node("sub1").registered_devices == {PHONE}


@pytest.mark.parametrize("broken", [b"", b"[]", b"{", b'{"generations": 1}'])
async def test_a_cluster_whose_state_cannot_be_read_is_told(tmp_path, loopback, broken):
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        state = lab.cluster("here").directory / "cluster.json"
    state.write_bytes(broken)
    with pytest.raises(UsageError, match="state") as refused:
        async with make_lab(tmp_path / "lab", network, three_nodes()):
            pass
    assert refused.value.mend == "delete the lab's folder"


async def test_a_folder_of_another_lab_is_left_alone(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, three_nodes()):
        pass
    for other in (make_lab(tmp_path / "lab", network), make_lab(tmp_path / "lab", network, three_nodes(), seed=1)):
        with pytest.raises(UsageError, match=r"is the folder of a lab with another (topology|seed)"):
            await other.start()
    (tmp_path / "lab" / "lab.json").write_bytes(b"{")
    with pytest.raises(UsageError, match="cannot be read"):
        await make_lab(tmp_path / "lab", network, three_nodes()).start()


async def test_another_network_is_another_lab(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, three_nodes()):
        pass
    with pytest.raises(UsageError, match="another network"):
        await make_lab(tmp_path / "lab", FOR_ANOTHER_LAB, three_nodes()).start()


async def test_replication_and_tvs_cache_stay_as_they_were_set(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        cluster = lab.cluster("here")
        await cluster.node("sub1").stop_service("TVS")
        await cluster.set_tvs_cache(FreshnessMode.STALE_UNTIL_RESTART)
        assert [node.runs("TVS") for node in cluster.nodes.values()] == [True, False, True]
        cluster.replication.break_link("sub1", "cut")
        cluster.replication.set_lag("sub2", 60)
        lsc = lab.phone(PHONE).flash.contents.lsc
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        cluster = lab.cluster("here")
        assert {node.tvs_cache for node in cluster.nodes.values()} == {FreshnessMode.STALE_UNTIL_RESTART}
        assert [(link.problem, link.lag_s) for link in cluster.replication.status()] == [("cut", 0.0), (None, 60.0)]
        assert lab.phone(PHONE).flash.contents.lsc == lsc is not None


async def test_the_publisher_comes_back_and_replicates(wide):
    cluster = wide.cluster("here")
    await cluster.crash_node("sub2")
    cluster.set_parameter("x", "1")
    await wide.settle()
    await cluster.crash_node("pub")
    await cluster.start_node("sub2")  # nobody replicates to it yet
    await wide.settle()
    assert [cluster.node(node).database.parameter("x") for node in ("sub1", "sub2")] == ["1", None]
    assert {link.problem for link in cluster.replication.status()} == {"the publisher does not run"}
    await cluster.start_node("pub")
    await wide.settle()
    assert cluster.node("sub2").database.parameter("x") == "1"
    kinds = [record.event.kind for record in wide.events if record.event.kind.startswith("node.")]
    assert kinds == ["node.crashed", "node.crashed", "node.started", "node.started"]


async def test_services_are_not_activated_on_what_is_down_nor_without_the_publisher(wide):
    cluster, sub = wide.cluster("here"), wide.node("sub1")
    before = sub.services
    await cluster.crash_node("sub1")
    for change in (cluster.activate("sub1", "CAPF"), cluster.deactivate("sub1", "TVS")):
        with pytest.raises(LabError, match="sub1 is down"):
            await change
    await cluster.start_node("sub1")
    await cluster.crash_node("pub")
    for change in (cluster.activate("sub1", "CAPF"), cluster.deactivate("sub1", "TVS")):
        with pytest.raises(LabError, match="publisher pub is down"):
            await change
    assert sub.services == before
    assert sub.runs("TVS")
    assert set(cluster.publisher.database.services_of("sub1")) == {"CallManager", "TVS", "TFTP"}


async def test_a_service_activated_again_has_the_certificate_it_had(wide):
    cluster, sub = wide.cluster("here"), wide.node("sub1")
    before = sub.certificate(CertificateUnit.TVS)
    await cluster.deactivate("sub1", "TVS")
    await cluster.activate("sub1", "TVS")
    await cluster.activate("sub1", "TVS")
    assert (sub.certificate(CertificateUnit.TVS), sub.runs("TVS"), sub.services.count("TVS")) == (before, True, 1)


async def test_a_lab_that_cannot_be_built_leaves_no_database_open(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        state = lab.cluster("here").directory / "cluster.json"
    state.write_bytes(b"{")
    with pytest.raises(UsageError, match="state"):
        await make_lab(tmp_path / "lab", network, three_nodes()).start()
    held = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    assert not {path for path in held if path.startswith(str(tmp_path / "lab"))}


async def test_one_part_of_a_kill_after_another_is_finished(tmp_path, loopback):
    """Killed when a service was activated in the database and its certificate not made; files half-written."""
    network = network_of(loopback)
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        cluster = lab.cluster("here")
        cluster.publisher.database.add_node(
            "sub1", cluster.node("sub1").address, services=("CallManager", "TVS", "TFTP", "CAPF")
        )
        left = [cluster.node("sub1").security / ".new-half.key", cluster.directory / ".new-half.json"]
        for path in left:
            path.write_bytes(b"half")
    async with make_lab(tmp_path / "lab", network, three_nodes()) as lab:
        sub = lab.node("sub1")
        assert sub.runs("CAPF")
        assert sub.certificate(CertificateUnit.CAPF) in [
            item.der for item in lab.node("sub2").database.certificates(CertificateUnit.CAPF)
        ]
        assert not any(path.exists() for path in left)


async def test_what_change_notification_cannot_do_is_tried_again(wide, caplog, monkeypatch):
    """A database that cannot be used for a while does not end the service."""
    cluster, rounds = wide.cluster("here"), asyncio.Event()

    def fails() -> None:
        if fails.calls:
            rounds.set()
        fails.calls += 1
        raise LabError("the disk is full")

    fails.calls = 0
    monkeypatch.setattr("lab.cluster.CHANGE_NOTIFICATION_S", 0)
    monkeypatch.setattr(cluster.certificates, "synchronise", fails)
    cluster._synchronising.cancel()
    cluster._synchronising = asyncio.create_task(cluster._synchronise_again_and_again())
    async with asyncio.timeout(10):
        await rounds.wait()
    assert "the disk is full" in caplog.text
