"""Operations on services, machines, networks, phones and settings, as a phone or a socket meets what comes of them."""

from __future__ import annotations

import asyncio

import pytest
from lab_on_sockets import PHONE, make_lab, network_of, perform, two_nodes_and_another_cluster
from own_block import FOR_ANOTHER_LAB

from cucm.clock import MovableClock
from cucm.errors import LabError, TrustReason, UsageError
from cucm.events.administration import (
    OperationPerformed,
    OperationRefused,
    ServiceCrashed,
    ServiceStopped,
    ServiceUnchanged,
)
from cucm.events.sftp import SftpFileStored
from lab.operation_words import operation_of
from lab.runtime import Lab, LabOptions
from lab.topology import load_topology
from phone_agent.state import PhoneState

WEST = "SEPB000B4BA0AEF"


@pytest.fixture
async def lab(tmp_path, loopback):
    async with make_lab(tmp_path / "lab", network_of(loopback), two_nodes_and_another_cluster()) as lab:
        yield lab


async def refused(do: str, what: str, lab: Lab, kind: type[LabError] = LabError, **fields: object) -> None:
    with pytest.raises(kind, match=what):
        await perform(lab, do, **fields)


BLOCKED = [
    ("stop-service", {}, "start-service", {}),
    ("crash-service", {}, "start-service", {}),
    ("set-reachability", {"reachability": "refuse"}, "set-reachability", {"reachability": "open"}),
]


@pytest.mark.parametrize(("do", "more", "undo", "again"), BLOCKED)
async def test_a_phone_that_cannot_reach_tvs_stays_with_its_lists(lab, do, more, undo, again):
    await perform(lab, "boot-phone", phone=PHONE)
    before = lab.phone(PHONE).flash.contents
    stores = ["Phone-SAST-trust", "CallManager-trust"]
    await perform(lab, "upload-certificate", certificate="CallManager", to="here", stores=stores, **{"from": "there"})
    await perform(lab, "set-option-150", cluster="there")
    await perform(lab, do, cluster="here", service="TVS", **more)
    await perform(lab, "reset-phone", phone=PHONE)
    assert set(lab.phone(PHONE).last_outcome.reasons) == {TrustReason.TVS_UNREACHABLE}
    assert lab.phone(PHONE).flash.contents.ctl == before.ctl
    assert lab.cluster("there").registered_devices == frozenset()
    await perform(lab, undo, cluster="here", service="TVS", **again)
    await perform(lab, "reset-phone", phone=PHONE)
    assert lab.phone(PHONE).flash.contents.ctl == lab.node("other").ctl_file.read_bytes()


async def test_a_phone_meets_a_crashed_callmanager_and_a_machine_that_died(lab):
    await perform(lab, "boot-phone", phone=PHONE)
    assert lab.node("sub").registered_devices == {PHONE}
    await perform(lab, "crash-service", cluster="here", node="sub", service="CallManager")
    await perform(lab, "wait-for-registration", phone=PHONE)
    assert lab.node("pub").registered_devices == {PHONE}
    await perform(lab, "start-service", cluster="here", node="sub", service="CallManager")
    await perform(lab, "boot-phone", phone=WEST)
    assert lab.node("sub").registered_devices == {WEST}
    await perform(lab, "crash-node", cluster="here", node="sub")
    await perform(lab, "wait-for-registration", phone=WEST)
    assert lab.node("pub").registered_devices == {PHONE, WEST}
    await refused("start-service", "sub is down", lab, cluster="here", node="sub", service="TVS")
    await perform(lab, "power-off-phone", phones="all")
    await perform(lab, "crash-node", cluster="here")
    await refused("start-service", "no node of here that is up runs TVS", lab, cluster="here", service="TVS")
    for node in ("sub", "pub"):
        await perform(lab, "start-node", cluster="here", node=node)
    assert all(lab.node(node).runs("TVS") for node in ("pub", "sub"))


async def test_a_socket_meets_what_becomes_of_a_service(lab):
    """6970 answers, is refused when blocked, stopped or crashed, and answers again."""
    address = lab.node("sub").address

    async def answers() -> bool:
        try:
            reader, writer = await asyncio.open_connection(address, 6970)
        except ConnectionRefusedError:
            return False
        try:
            writer.write(b"GET /ITLFile.tlv HTTP/1.1\r\nHost:x\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/1.1 200")
        except ConnectionResetError:
            return False
        finally:
            writer.transport.abort()

    where = {"cluster": "here", "node": "sub"}
    for do, undo in (
        ("stop-service", "start-service"),
        ("crash-service", "restart-service"),
        ("crash-node", "start-node"),
    ):
        service = {} if do == "crash-node" else {"service": "TFTP"}
        await perform(lab, do, **where, **service)
        assert not await answers()
        await perform(lab, undo, **where, **service)
        assert await answers()
    await perform(lab, "set-reachability", reachability="refuse", **where)  # every service of the node
    assert not await answers()
    assert lab.node("sub").reachability_of("CallManager") == "refuse"
    assert lab.node("pub").reachability_of("TFTP") == "open"
    await perform(lab, "set-reachability", reachability="open", **where)
    assert await answers()


async def test_the_connection_of_a_client_ends_by_a_reset_in_a_crash_and_in_order_in_a_stop(lab):
    node = lab.node("sub")
    for do, ending in (("crash-service", ConnectionResetError), ("stop-service", None)):
        reader, writer = await asyncio.open_connection(node.address, 5060)
        writer.write(b"REGISTER ")  # never ended: CallManager waits for the rest
        await perform(lab, do, cluster="here", node="sub", service="CallManager")
        if ending is None:
            assert await reader.read() == b""
        else:
            with pytest.raises(ending):
                await reader.read()
        writer.close()
        await perform(lab, "start-service", cluster="here", node="sub", service="CallManager")


async def test_services_are_activated_and_deactivated(lab):
    await perform(lab, "activate-service", cluster="here", service="CAPF", nodes=["sub"])
    assert lab.node("sub").runs("CAPF")
    await perform(lab, "deactivate-service", cluster="here", service="CAPF", nodes=["sub", "pub"])
    assert [lab.node(node).runs("CAPF") for node in ("pub", "sub")] == [False, False]
    await perform(lab, "activate-service", cluster="here", service="CAPF", nodes=["pub"])
    await refused(
        "deactivate-service", "CAPF is not activated on sub", lab, UsageError,
        cluster="here", service="CAPF", nodes=["pub", "sub"],
    )  # fmt: skip
    assert lab.node("pub").runs("CAPF")  # on all of them, or on none
    await perform(lab, "deactivate-service", cluster="here", service="CAPF", nodes=["pub"])
    await refused("install-lsc", "no CAPF runs in here", lab, cluster="here", phone=PHONE)
    await refused(
        "set-reachability", "CAPF is not activated on any node", lab, UsageError,
        cluster="here", service="CAPF", reachability="refuse",
    )  # fmt: skip
    await refused(
        "set-reachability", "CAPF is not activated on sub", lab, UsageError,
        cluster="here", service="CAPF", node="sub", reachability="refuse",
    )  # fmt: skip


async def test_what_was_so_already_is_told(lab):
    def told():
        return [record.event for record in lab.events if isinstance(record.event, ServiceUnchanged)]

    capf = {"cluster": "here", "service": "CAPF"}
    for do in ("activate-service", "deactivate-service", "activate-service"):
        await perform(lab, do, **capf, nodes=["sub"])
    await perform(lab, "stop-service", **capf, node="sub")
    assert told() == []
    await perform(lab, "stop-service", **capf, node="sub")
    await perform(lab, "start-service", cluster="here", node="pub", service="CallManager")
    await perform(lab, "activate-service", **capf, nodes=["sub", "pub"])
    assert told() == [
        ServiceUnchanged("sub", "CAPF", "does not run"),
        ServiceUnchanged("pub", "CallManager", "runs already"),
        ServiceUnchanged("sub", "CAPF", "is activated already but does not run (start-service starts it)"),
        ServiceUnchanged("pub", "CAPF", "is activated already and runs"),
    ]
    assert not lab.node("sub").runs("CAPF")


async def test_a_service_that_crashed_is_stopped_once(lab):
    for do in ("crash-service", "stop-service", "stop-service"):
        await perform(lab, do, cluster="here", node="sub", service="TVS")
    kinds = (ServiceCrashed, ServiceStopped, ServiceUnchanged)
    told = [record.event for record in lab.events if isinstance(record.event, kinds)]
    assert told == [
        ServiceCrashed("sub", "TVS"),
        ServiceStopped("sub", "TVS"),
        ServiceUnchanged("sub", "TVS", "does not run"),
    ]
    assert lab.node("sub").state_of("TVS") == "stopped"


async def test_replication_is_disturbed_and_repaired(lab):
    where, databases = {"cluster": "here", "node": "sub"}, [lab.node(node).database for node in ("pub", "sub")]

    async def write(value: str) -> list[str | None]:
        await perform(lab, "set-enterprise-parameter", cluster="here", parameter="x", value=value)
        return [database.parameter("x") for database in databases]

    assert await write("1") == ["1", "1"]
    await perform(lab, "pause-replication", **where)
    assert await write("2") == ["2", "1"]
    await refused("wait-for-replication", "has not caught up within 0.05 s", lab, timeout_s=0.05, **where)
    await perform(lab, "resume-replication", **where)
    await perform(lab, "wait-for-replication", **where)
    assert [database.parameter("x") for database in databases] == ["2", "2"]
    await perform(lab, "break-replication", **where)
    assert await write("3") == ["3", "2"]
    await perform(lab, "repair-replication", **where)
    assert [database.parameter("x") for database in databases] == ["3", "3"]
    await perform(lab, "set-replication-lag", seconds=3600, **where)
    assert await write("4") == ["4", "3"]
    await refused("pause-replication", "'pub' is no subscriber", lab, UsageError, cluster="here", node="pub")


# --- phones


async def test_some_phones_are_named_together(lab):
    await perform(lab, "boot-phone", phones="all")
    assert lab.node("sub").registered_devices == {PHONE, WEST}
    await perform(lab, "power-off-phone", phones="west")
    assert (lab.phone(PHONE).state, lab.phone(WEST).state) == (PhoneState.REGISTERED, PhoneState.OFF)
    for fields, what in (
        ({}, "name either one"),
        ({"phone": PHONE, "phones": "all"}, "name either one"),
        ({"phones": "north"}, "no phone or group of phones 'north'"),
        ({"phone": "SEP0"}, "no phone 'SEP0' in this lab"),
    ):
        await refused("boot-phone", what, lab, UsageError, **fields)


async def test_when_one_phone_cannot_the_others_do(lab):
    """One is on already; the other boots all the same, and the first failure is told."""
    await perform(lab, "boot-phone", phone=WEST)
    with pytest.raises(LabError):
        await perform(lab, "boot-phone", phones="all")
    assert lab.node("sub").registered_devices == {PHONE, WEST}


async def test_an_lsc_is_deleted_and_installed(lab):
    flash = lab.phone(PHONE).flash
    before = flash.contents.lsc
    await perform(lab, "delete-lsc", phone=PHONE)
    assert flash.contents.lsc is None
    await perform(lab, "boot-phone", phone=PHONE)
    await perform(lab, "install-lsc", phone=PHONE, cluster="here")
    assert flash.contents.lsc not in (None, before)
    await refused("install-lsc", "got no LSC", lab, phone=PHONE, cluster="there")  # a CAPF that its lists do not name
    await refused("install-lsc", "no cluster 'x'", lab, UsageError, phone=PHONE, cluster="x")


async def test_a_phone_that_does_not_register_is_not_waited_for_for_ever(lab):
    await refused("wait-for-registration", f"{PHONE} did not register within 0.05 s", lab, phone=PHONE, timeout_s=0.05)


async def test_registered_with_another_make_is_registered(tmp_path, loopback):
    async with make_lab(tmp_path / "lab", network_of(loopback), load_topology("plain-server")) as lab:
        await perform(lab, "set-option-150", server="cme")
        await perform(lab, "boot-phone", phone=PHONE)
        await perform(lab, "wait-for-registration", phone=PHONE)
        assert lab.is_registered(PHONE)
        await perform(lab, "power-off-phone", phone=PHONE)
        await lab.plain_servers["cme"].call_processing.stop()
        assert not lab.is_registered(PHONE)


# --- settings


async def test_option_150_names_a_cluster_nodes_or_a_server(lab):
    phone, addresses = lab.phone(PHONE), {name: lab.node(name).address for name in ("pub", "sub", "other")}
    for fields, names in (
        ({"cluster": "there"}, ["other"]),
        ({"nodes": ["sub", "other"]}, ["sub", "other"]),
        ({"cluster": "here", "nodes": ["sub"]}, ["sub"]),
        ({"cluster": "here"}, ["pub", "sub"]),
    ):
        await perform(lab, "set-option-150", **fields)
        await phone.reset()
        assert phone.flash.contents.tftp_servers == tuple(addresses[name] for name in names)
    for fields, what in (
        ({}, "name a `cluster`, `nodes`, or a plain `server`"),
        ({"server": "x", "cluster": "here"}, "name a `cluster`"),
        ({"server": "x", "nodes": ["pub"]}, "name a `cluster`"),
        ({"server": "x"}, "no plain call server 'x'"),
        ({"cluster": "here", "nodes": ["other"]}, "no node 'other' in here"),
    ):
        await refused("set-option-150", what, lab, UsageError, **fields)


async def test_the_clock_is_moved_if_it_can_be(tmp_path, loopback, lab):
    await refused("advance-clock", "runs by the system's clock", lab, UsageError, days=1)
    clock = MovableClock(1_800_000_000.0, frozen=True)
    options = LabOptions(tmp_path / "other", FOR_ANOTHER_LAB)
    async with Lab(two_nodes_and_another_cluster(), options, clock=clock) as moved:
        await perform(moved, "advance-clock", days=1.5)
        assert clock.now() == 1_800_000_000.0 + 129_600


async def test_a_device_gets_another_pool(lab):
    await refused("add-device", "no device pool 'x'", lab, UsageError, cluster="here", phone=PHONE, pool="x")
    await perform(lab, "remove-device", cluster="here", phone=PHONE)
    await refused("remove-device", "there is no device", lab, UsageError, cluster="here", phone=PHONE)
    await perform(lab, "add-device", cluster="here", phone=PHONE, pool="Default")
    assert lab.node("sub").database.device(PHONE).device_pool == "Default"


async def test_what_should_be_refused_is_told_and_being_done_is_an_error(lab):
    fields = {"cluster": "here", "refused": "in mixed mode already"}
    await perform(lab, "set-cluster-mixed-mode", **fields)
    told = [record.event for record in lab.events if isinstance(record.event, OperationRefused)]
    assert [(event.operation, "in mixed mode already" in event.text) for event in told] == [
        ("set-cluster-mixed-mode", True)
    ]
    await refused("update-ctl-file", "should have been refused with “never”", lab, cluster="here", refused="never")
    await refused("set-cluster-mixed-mode", "in mixed mode already", lab, cluster="here", refused="something else")
    performed = [record.event.operation for record in lab.events if isinstance(record.event, OperationPerformed)]
    assert performed == ["set-cluster-mixed-mode", "update-ctl-file", "set-cluster-mixed-mode"]


@pytest.mark.parametrize("do", ["start-service", "stop-service", "restart-service", "crash-service"])
async def test_what_is_not_there_is_neither_started_nor_ended(lab, do):
    await refused(do, "CAPF is not activated on sub", lab, UsageError, cluster="here", node="sub", service="CAPF")
    await perform(lab, "crash-node", cluster="here", node="sub")
    await refused(do, "sub is down", lab, cluster="here", node="sub", service="TVS")
    assert lab.node("sub").state_of("TVS") == "crashed"


async def test_what_does_not_run_does_not_crash(lab):
    await perform(lab, "stop-service", cluster="here", node="sub", service="TVS")
    await refused("crash-service", "TVS does not run on sub", lab, cluster="here", node="sub", service="TVS")
    await perform(lab, "crash-service", cluster="here", service="TVS")  # on those that run it
    assert [lab.node(node).state_of("TVS") for node in ("pub", "sub")] == ["crashed", "stopped"]
    await perform(lab, "crash-node", cluster="here", node="sub")
    await refused("crash-node", "sub is down", lab, cluster="here", node="sub")


async def test_a_machine_that_is_up_is_not_started(lab):
    await perform(lab, "stop-service", cluster="here", node="sub", service="TVS")
    await refused("start-node", "sub is up", lab, cluster="here", node="sub")
    assert lab.node("sub").state_of("TVS") == "stopped"


async def test_a_cluster_without_tftp_is_not_named_by_dhcp(lab):
    before = lab.dhcp.pools["Default"].option_150
    await perform(lab, "deactivate-service", cluster="there", service="TFTP", nodes=["other"])
    await refused("set-option-150", "no node of there has TFTP activated", lab, cluster="there")
    assert lab.dhcp.pools["Default"].option_150 == before
    await perform(lab, "set-option-150", nodes=["other"])


@pytest.mark.parametrize(
    ("parameter", "value", "what"),
    [
        ("Prepare Cluster for Rollback to pre 8.0", "Maybe", "cannot be 'Maybe'; it can be True or False"),
        ("TFTP File Signature Algorithm", "SHA-256", "it can be SHA-1 or SHA-512"),
        ("Prepare Cluster for Rollback to pre 8", "True", "did you mean 'Prepare Cluster for Rollback to pre 8.0'"),
        ("TFTP file signature algorithm", "SHA-1", "did you mean 'TFTP File Signature Algorithm'"),
        ("clustersecuritymode", "1", "set by set-cluster-mixed-mode"),
    ],
)
def test_parameters_that_would_do_nothing_or_harm(parameter, value, what):
    with pytest.raises(UsageError, match=what):
        operation_of({"do": "set-enterprise-parameter", "cluster": "here", "parameter": parameter, "value": value})


async def test_bulk_certificate_management_is_not_done_on_a_publisher_that_is_down(lab):
    await perform(lab, "set-bulk-sftp", cluster="here")
    await perform(lab, "crash-node", cluster="here")
    for do in ("set-bulk-sftp", "bulk-export", "bulk-consolidate", "bulk-import"):
        await refused(do, "publisher pub is down", lab, cluster="here")
    assert [record for record in lab.events if isinstance(record.event, SftpFileStored)] == []
