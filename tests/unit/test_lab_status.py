from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from lab_on_sockets import PHONE, make_lab, network_of

from cucm.net.reachability import Reachability
from lab.cli.status import endpoint_lines, status_lines
from lab.status import status_of
from lab.topology import load_topology


@pytest.fixture
async def lab(tmp_path, loopback):
    async with make_lab(tmp_path, network_of(loopback)) as lab:
        yield lab


def services_of(lab, cluster="source"):
    status = status_of(lab)
    found = next(one for one in status["clusters"] if one["name"] == cluster)
    return {service["name"]: service for service in found["nodes"][0]["services"]}


async def test_everything_is_json_and_text(lab):
    status = status_of(lab)
    assert json.loads(json.dumps(status)) == status
    text = "\n".join(status_lines(status))
    for name in ("source", "destination", "ucm105pub", "ucm11pub", PHONE, "10.5.2.11900-3"):
        assert name in text
    places = "\n".join(endpoint_lines(status))
    assert f"tls://{lab.cluster('source').publisher.address}:2445" in places
    assert f"sftp://{lab.sftp.user}@{lab.sftp.address}:{lab.sftp.port}" in places
    assert f"udp://{lab.dhcp.address}:{lab.dhcp.port}" in places


async def test_the_sftp_password_is_in_a_file_for_the_user_alone_and_nowhere_else(lab):
    status = status_of(lab)
    path = Path(status["sftp"]["password_file"])
    assert f"password in {path}" in "\n".join(status_lines(status))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    password = path.read_text().removesuffix("\n")
    assert lab.sftp.may_log_in(lab.sftp.user, password, "127.0.0.1")
    assert lab.sftp.directory not in path.parents
    assert password not in json.dumps(status)
    assert password not in json.dumps([record.as_json() for record in lab.events])


async def test_states_of_services(lab):
    node = lab.cluster("source").publisher
    assert (services_of(lab)["TVS"]["state"], services_of(lab)["TVS"]["reachability"]) == ("running", "open")
    await node.stop_service("TVS")
    await node.crash_service("TFTP")
    node.set_reachability("CallManager", Reachability.REFUSE)
    found = services_of(lab)
    assert (found["TVS"]["state"], found["TFTP"]["state"]) == ("stopped", "crashed")
    assert (found["CallManager"]["state"], found["CallManager"]["reachability"]) == ("running", "refuse")
    text = "\n".join(status_lines(status_of(lab)))
    assert "running, refuse" in text
    assert services_of(lab, "destination")["TVS"]["state"] == "running"


async def test_mode_dhcp_and_phones_are_what_they_are_now(lab):
    await lab.phone(PHONE).boot()
    lab.cluster("source").publisher.database.set_parameter("ClusterSecurityMode", "0")
    lab.set_option_150(("127.0.0.9",))
    status = status_of(lab)
    assert status["clusters"][0]["security_mode"] == "non-secure"
    assert status["dhcp"]["pools"][0]["option_150"] == ["127.0.0.9"]
    assert status["dhcp"]["leases"] == 1
    (phone,) = status["phones"]
    assert (phone["state"], phone["registered"], phone["on"], phone["model"]) == (
        "registered",
        ["source"],
        True,
        "CP-8861",
    )


async def test_a_machine_that_is_down(lab):
    await lab.cluster("source").crash_node("ucm105pub")
    text = "\n".join(status_lines(status_of(lab)))
    assert "(publisher, down)" in text


async def test_replication_is_shown_for_subscribers(tmp_path, loopback):
    topology = load_topology("campus")
    async with make_lab(tmp_path, network_of(loopback), topology) as lab:
        await lab.settle()
        cluster = next(iter(lab.clusters.values()))
        publisher, subscriber, *_ = cluster.nodes.values()
        cluster.replication.pause(subscriber.name)
        cluster.replication.set_lag(subscriber.name, 30)
        cluster.set_parameter("x", "y")
        nodes = {node["name"]: node for node in status_of(lab)["clusters"][0]["nodes"]}
        assert nodes[publisher.name]["replication"] is None
        link = nodes[subscriber.name]["replication"]
        assert (link["paused"], link["lag_s"], link["behind"]) == (True, 30.0, 1)
        lines = status_lines(status_of(lab))
        head = next(line for line in lines if "SERVER-NAME" in line)
        row = next(line for line in lines if line.split()[:1] == [subscriber.name] and "30 s" in line)
        assert row.index("(") == head.index("REPLICATION SETUP")
        assert "paused" in row
