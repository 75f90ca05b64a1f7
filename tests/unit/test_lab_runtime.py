from __future__ import annotations

import socket

import pytest
from lab_on_sockets import PHONE, make_lab, network_of
from own_block import FOR_ANOTHER_LAB

from cucm.errors import AddressBusy, DatabaseError, UsageError
from cucm.events.administration import ServiceStarted
from lab.topology import load_topology

SERVICES = ("CallManager", "TVS", "TFTP", "CAPF")


def can_bind(address: str, port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError:
            return False
        return True


async def test_everything_answers_on_the_nodes_own_addresses_and_ends(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path, network) as lab:
        nodes = [cluster.publisher for cluster in lab.clusters.values()]
        assert [node.address for node in nodes] == [str(network[32]), str(network[51])]
        assert all(node.runs(service) for node in nodes for service in SERVICES)
        taken = [(node.address, port) for node in nodes for port in (2445, 5060, 5061, 6970)]
        assert not any(can_bind(*place) for place in taken)
        assert not any(cluster.registered_devices for cluster in lab.clusters.values())
    assert all(can_bind(*place) for place in taken)


async def test_a_busy_address_is_named_and_nothing_of_the_lab_stays(tmp_path, loopback):
    network = network_of(loopback)
    lab = make_lab(tmp_path, network)
    with socket.socket() as taken:
        taken.bind((str(network[51]), 2445))
        taken.listen()
        with pytest.raises(AddressBusy) as refused:
            await lab.start()
    assert f"{network[51]}" in str(refused.value)
    assert "2445" in str(refused.value)
    assert refused.value.mend
    started = [record.event.node for record in lab.events if isinstance(record.event, ServiceStarted)]
    assert "ucm105pub" in started
    assert all(can_bind(str(network[host]), port) for host in (32, 51) for port in (2445, 5060, 5061, 6970))


class _CannotStop:
    async def start(self) -> None: ...

    async def stop(self) -> None:
        raise OSError("cannot stop")


async def test_when_one_part_cannot_stop_the_others_do(tmp_path, loopback):
    lab = make_lab(tmp_path, network_of(loopback))
    await lab.start()
    nodes = [node for cluster in lab.clusters.values() for node in cluster.nodes.values()]
    services = nodes[0]._running
    nodes[0]._running = {"cannot stop": _CannotStop(), **services}
    with pytest.raises(OSError, match="cannot stop"):
        await lab.stop()
    assert all(can_bind(node.address, port) for node in nodes for port in (2445, 5060, 5061, 6970))
    for node in nodes:
        with pytest.raises(DatabaseError, match="not open"):
            node.database.devices()


async def test_labs_run_side_by_side_in_other_networks_only(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path / "one", network):
        with pytest.raises(AddressBusy):
            await make_lab(tmp_path / "two", network).start()
        async with make_lab(tmp_path / "three", FOR_ANOTHER_LAB) as third:
            assert third.cluster("source").publisher.runs("TVS")


async def test_dhcp_names_the_tftp_nodes_of_a_cluster(tmp_path, loopback):
    network = network_of(loopback)
    async with make_lab(tmp_path, network) as lab:
        phone = lab.phone(PHONE)
        await phone.boot()
        assert phone.flash.contents.tftp_servers == (str(network[32]),)
        lab.set_option_150(lab.cluster("destination").tftp_addresses)
        await phone.reset()
        assert phone.flash.contents.tftp_servers == (str(network[51]),)


async def test_parts_that_are_not_there(tmp_path, loopback):
    async with make_lab(tmp_path, network_of(loopback)) as lab:
        for ask, what, mend in (
            (lab.cluster, "no cluster 'x'", "one of: source, destination"),
            (lab.phone, "no phone 'x'", f"one of: {PHONE}"),
            (lab.node, "no node 'x'", "one of: ucm105pub, ucm11pub"),
            (lambda name: lab.node(f"source/{name}"), "no node 'x' in source", "one of: ucm105pub"),
            (lab.phones_named, "no phone or group of phones 'x'", f"one of: all, Default, {PHONE}"),
            (lambda name: lab.provision(name, "source"), "no phone 'x'", f"one of: {PHONE}"),
            (lambda name: lab.provision(PHONE, name), "no cluster 'x'", "one of: source, destination"),
        ):
            with pytest.raises(UsageError, match=what) as refused:
                ask("x")
            assert refused.value.mend == mend
        assert lab.cluster_of_node("ucm11pub") == "destination"
        assert lab.cluster_of_node("x") is None


async def test_private_keys_are_for_the_owner_only(tmp_path, loopback):
    async with make_lab(tmp_path, network_of(loopback)):
        keys = [*tmp_path.rglob("*.key"), *tmp_path.rglob("node.db")]
        assert len(keys) == 12
        assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
        assert {path.parent.stat().st_mode & 0o777 for path in tmp_path.rglob("*.key")} == {0o700}


async def test_a_service_that_is_not_activated_is_not_started(tmp_path, loopback):
    topology = load_topology("two-clusters")
    source = topology.clusters["source"]
    node = source.nodes[0].model_copy(update={"services": ("CallManager", "TFTP", "CAPF")})
    clusters = topology.clusters | {"source": source.model_copy(update={"nodes": (node,)})}
    network = network_of(loopback)
    async with make_lab(tmp_path, network, topology.model_copy(update={"clusters": clusters})) as lab:
        assert lab.cluster("source").nodes_running("TVS") == []
        assert can_bind(str(network[32]), 2445)
        assert not can_bind(str(network[51]), 2445)


@pytest.mark.parametrize("seed", [0, -1, 2**70])
async def test_another_seed_makes_other_serial_numbers_of_the_same_keys(tmp_path, loopback, seed):
    made = []
    for number, value in enumerate((seed, seed, seed + 1)):
        async with make_lab(tmp_path / str(number), network_of(loopback), seed=value) as lab:
            made.append(lab.cluster("source").publisher.certificate("CallManager"))
        generated = lab.keys.generated
    assert made[0] == made[1] != made[2]
    assert generated == 0
