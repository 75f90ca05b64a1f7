from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from lab_on_sockets import PHONE, network_of
from pydantic import TypeAdapter

from cucm.errors import AddressBusy, EnvironmentProblem, LabError, UsageError
from cucm.events.running import LabCheckpointed, LabReady, LabRestored, LabRestoring
from cucm.net.reachability import Reachability
from cucm.render.plain import PlainLines
from lab import checkpoints
from lab.lab_folder import LabFolder, Wishes
from lab.operations import AnyOperation, Operation
from lab.running_lab import RunningLab
from lab.runtime import Lab
from lab.truth import truth_of, truths_of
from phone_agent.state import PhoneState

_OPERATION: TypeAdapter[Operation] = TypeAdapter(AnyOperation)


@pytest.fixture
def folder(tmp_path):
    with LabFolder(tmp_path / "lab") as folder:
        yield folder


def make(folder, network, topology=None):
    description = folder.describe(Wishes(topology, network))
    clock = folder.clock()
    return RunningLab(Lab(description.topology, description.options(folder.directory), clock=clock), clock)


@pytest.fixture
async def running(folder, loopback):
    running = make(folder, network_of(loopback))
    await running.start()
    yield running
    await running.stop()


def op(do, **fields):
    return _OPERATION.validate_python({"do": do} | fields)


def kinds(running, since=0):
    return [record.event.kind for record in running.lab.events.since(since)]


async def test_ready_means_that_the_phones_have_booted(running):
    assert running.is_ready
    assert running.lab.phone(PHONE).state is PhoneState.REGISTERED
    assert kinds(running)[-1] == LabReady.kind
    assert [one.name for one in running.checkpoints()] == ["start"]
    assert len(running.run_id) == 16


async def test_phones_may_stay_off(folder, loopback):
    running = make(folder, network_of(loopback))
    await running.start(phones=False)
    try:
        await running.lab.phone(PHONE).boot()
        await running.reset()
        assert running.lab.phone(PHONE).state is PhoneState.OFF
    finally:
        await running.stop()


async def test_a_reset_undoes_whatever_was_done(running):
    lab, before = running.lab, truths_of(running.lab)
    certificate = lab.cluster("source").publisher.certificate("TVS")
    date = running.clock.now()
    for operation in (
        op("regenerate-certificate", cluster="source", certificate="TVS"),
        op("set-option-150", cluster="destination"),
        op("advance-clock", days=4000),
        op("remove-device", cluster="source", phone=PHONE),
        op("stop-service", cluster="destination", service="TVS"),
        op("power-off-phone", phone=PHONE),
        op("erase-security-settings", phone=PHONE),
    ):
        await running.perform(operation)
    began = len(lab.events)
    assert await running.reset() == ()
    assert truths_of(lab) == before
    assert lab.phone(PHONE).state is PhoneState.REGISTERED
    assert lab.cluster("source").publisher.certificate("TVS") == certificate
    assert lab.dhcp.pools["Default"].option_150 == lab.cluster("source").tftp_addresses
    assert lab.node("ucm11pub").runs("TVS")
    assert abs(running.clock.now() - date) < 600
    assert not (lab.options.directory / "clock.json").exists()
    told = kinds(running, began)
    assert (told[0], told[-1]) == (LabRestoring.kind, LabRestored.kind)
    await running.perform(op("reset-phone", phone=PHONE))
    assert truth_of(lab, PHONE, ()).registered == "source"


async def test_a_checkpoint_holds_what_no_file_tells(running):
    """A phone keeps its old lists, though the servers have new ones; what was stopped or unreachable is so again."""
    lab = running.lab
    await running.perform(op("set-option-150", cluster="destination"))
    await running.perform(op("stop-service", cluster="destination", service="CAPF"))
    await lab.node("ucm11pub").crash_service("TFTP")
    lab.node("ucm105pub").set_reachability("TVS", Reachability.UNREACHABLE)
    await running.move_clock(3600)
    before = truths_of(lab)
    made = await running.checkpoint("halfway")
    assert made.name == "halfway"
    assert kinds(running)[-1] == LabCheckpointed.kind
    for _ in range(2):
        await running.reset()
        assert lab.node("ucm11pub").runs("TFTP")
        assert await running.restore("halfway") == ()
        assert truths_of(lab) == before
        states = {name: lab.node("ucm11pub").state_of(name) for name in ("TFTP", "CAPF", "TVS")}
        assert states == {"TFTP": "crashed", "CAPF": "stopped", "TVS": "running"}
        assert lab.node("ucm105pub").reachability_of("TVS") is Reachability.UNREACHABLE
        assert lab.dhcp.pools["Default"].option_150 == lab.cluster("destination").tftp_addresses
    assert [one.name for one in running.checkpoints()] == ["start", "halfway"]
    await running.delete_checkpoint("halfway")
    with pytest.raises(UsageError, match="no checkpoint 'halfway'"):
        await running.restore("halfway")
    assert running.is_ready


async def test_a_phone_that_was_refused_is_on_and_unregistered_again(running):
    await running.perform(op("remove-device", cluster="source", phone=PHONE))
    await running.perform(op("reset-phone", phone=PHONE))
    before = running.lab.phone(PHONE)
    assert before.state is PhoneState.UNREGISTERED
    await running.checkpoint("refused")
    await running.reset()
    assert await running.restore("refused") == ()
    after = running.lab.phone(PHONE)
    assert after is not before
    assert after.state is PhoneState.UNREGISTERED
    assert after.status_messages == before.status_messages
    assert after.last_verdicts == before.last_verdicts


async def test_reasons_and_owners_of_files_are_those_of_then(running, folder, loopback):
    """Also after a later start: who served what stands in the folder."""
    lab = running.lab
    lab.cluster("source").publisher.alter_ctl_file(50)
    await running.perform(op("reset-phone", phone=PHONE))
    before = truths_of(lab)
    assert before[PHONE].reasons != ()
    assert before[PHONE].configuration == "source"
    await running.checkpoint("refused")
    await running.reset()
    assert truths_of(lab)[PHONE].reasons == ()
    await running.restore("refused")
    assert truths_of(lab) == before
    await running.stop()
    again = make(folder, lab.options.network)
    await again.start(phones=False)
    after = truths_of(again.lab)[PHONE]
    assert (after.ctl, after.itl, after.configuration) == ("source", "source", "source")
    await again.stop()


STATES = (
    {"point": "service.port", "action": "blackhole", "match": {"node": "ucm105pub"}},
    {"point": "service.port", "action": "refuse", "match": {"node": "ucm11pub", "service": "TFTP"}},
    {"point": "service.process", "action": "crash", "match": {"service": "TVS"}},
    {"point": "node.machine", "action": "crash", "match": {"node": "ucm105pub"}},
    {"point": "lab.clock", "action": "jump", "attributes": {"seconds": 100_000_000}},
)


async def test_a_reset_ends_all_faults_and_what_they_did(running):
    lab, before = running.lab, truths_of(running.lab)
    date = running.clock.now()
    for table in STATES:
        await running.set_fault(table)
    await running.set_fault({"point": "tvs.response", "action": "drop"})
    with pytest.raises(UsageError, match="disturbs the lab"):
        await running.checkpoint("x")
    began = len(lab.events)
    async with asyncio.timeout(20):
        assert await running.reset() == ()
    assert list(lab.faults) == []
    assert truths_of(lab) == before
    assert abs(running.clock.now() - date) < 600
    assert all(node.is_up and node.runs("TVS") for node in (lab.node("ucm105pub"), lab.node("ucm11pub")))
    assert lab.node("ucm105pub").reachability_of("TVS") is Reachability.OPEN
    assert kinds(running, began).count("fault.ended") == len(STATES) + 1
    await running.perform(op("reset-phone", phone=PHONE))
    assert truths_of(lab)[PHONE].registered == "source"


async def test_wrong_names(running):
    with pytest.raises(UsageError, match="the lab's own"):
        await running.checkpoint("start")
    with pytest.raises(UsageError, match="no name for a checkpoint"):
        await running.checkpoint("a/b")
    with pytest.raises(UsageError, match="no checkpoint 'x'"):
        await running.restore("x")
    assert not running.ended.is_set()


async def test_a_copy_that_fails_changes_nothing(running, monkeypatch):
    def full(*_words):
        raise OSError(28, "No space left on device")

    began = len(running.lab.events)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "copy2", full)
        with pytest.raises(EnvironmentProblem, match="No space left"):
            await running.reset()
    assert kinds(running, began) == []
    assert not running.ended.is_set()
    assert await running.reset() == ()


async def test_a_restore_that_fails_ends_the_lab_and_leaves_its_folder_whole(folder, loopback):
    network = network_of(loopback)
    running = make(folder, network)
    await running.start()
    await running.perform(op("power-off-phone", phone=PHONE))
    end = running.lab.dhcp.crash

    async def somebody_takes_a_port():
        await end()
        taken.bind((str(network[51]), 2445))
        taken.listen()

    with socket.socket() as taken:
        running.lab.dhcp.crash = somebody_takes_a_port
        with pytest.raises(AddressBusy):
            await running.reset()
    assert running.ended.is_set()
    assert isinstance(running.failure, AddressBusy)
    assert kinds(running)[-1] == "lab.ended"
    await asyncio.wait_for(running.until_whole(), 1)
    await running.stop()
    again = make(folder, network)
    await again.start(phones=False)
    assert again.lab.phone(PHONE).flash.contents.ctl is not None
    await again.stop()


async def test_a_restore_goes_on_when_the_one_who_asked_goes_away(running):
    asked = asyncio.create_task(running.reset())
    while LabRestoring.kind not in kinds(running):
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await asyncio.wait_for(running.until_whole(), 10)
    assert kinds(running)[-1] == LabRestored.kind
    assert running.lab.phone(PHONE).state is PhoneState.REGISTERED


async def test_nothing_else_is_done_while_a_checkpoint_is_deleted_for_one_who_goes_away(running, monkeypatch):
    await running.checkpoint("one")
    may_go_on, deleting = threading.Event(), asyncio.Event()
    loop, delete = asyncio.get_running_loop(), checkpoints.Checkpoints.delete

    def delete_slowly(kept, name):
        loop.call_soon_threadsafe(deleting.set)
        assert may_go_on.wait(20)
        delete(kept, name)

    monkeypatch.setattr(checkpoints.Checkpoints, "delete", delete_slowly)
    asked = asyncio.create_task(running.delete_checkpoint("one"))
    await asyncio.wait_for(deleting.wait(), 20)
    asked.cancel()
    await asyncio.wait([asked])
    moving = asyncio.create_task(running.move_clock(60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    was_done = moving.done()
    may_go_on.set()
    await moving
    assert not was_done
    assert [one.name for one in running.checkpoints()] == ["start"]


async def test_a_restore_does_not_wait_for_an_operation_that_takes_long(running):
    lab = running.lab
    await running.perform(op("power-off-phone", phone=PHONE))
    waiting = asyncio.create_task(running.perform(op("wait-for-registration", phone=PHONE, timeout_s=600)))
    while kinds(running)[-1] != "operation.performed":
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        assert await running.reset() == ()
        with pytest.raises(LabError, match="went back to a checkpoint meanwhile"):
            await waiting
    assert lab.phone(PHONE).state is PhoneState.REGISTERED


async def test_operations_that_wait_are_not_begun_when_a_restore_comes(running):
    await running.perform(op("power-off-phone", phone=PHONE))
    asked = [
        asyncio.create_task(running.perform(op("wait-for-registration", phone=PHONE, timeout_s=600))) for _ in range(3)
    ]
    while kinds(running)[-1] != "operation.performed":
        await asyncio.sleep(0)
    began = running.lab.events.last_sequence
    async with asyncio.timeout(20):
        await running.reset()
        for error in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(error, LabError)
            assert "went back to a checkpoint" in error.what
    assert "operation.performed" not in kinds(running, began)


async def test_no_fault_outlives_its_lab(folder, loopback):
    """The date and how a link is disturbed stand in files."""
    network = network_of(loopback)
    running = make(folder, network, "subscriber")
    await running.start(phones=False)
    await running.set_fault({"point": "replication.link", "action": "lag"})
    await running.set_fault({"point": "replication.link", "action": "pause"})
    await running.set_fault({"point": "lab.clock", "action": "jump", "attributes": {"seconds": 1e7}})
    await running.stop()
    assert kinds(running).count("fault.ended") == 3
    running = make(folder, network)
    assert abs(running.clock.moved_s) < 600
    await running.start(phones=False)
    try:
        links = [link for cluster in running.lab.clusters.values() for link in cluster.replication.status()]
        assert [(link.lag_s, link.paused) for link in links] == [(0, False)] * len(links)
        assert links
    finally:
        await running.stop()


async def test_an_operation_whose_asker_goes_away_ends(running):
    await running.perform(op("power-off-phone", phone=PHONE))
    waiting = asyncio.create_task(running.perform(op("wait-for-registration", phone=PHONE, timeout_s=600)))
    while kinds(running)[-1] != "operation.performed":
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(20):
        await running.perform(op("boot-phone", phone=PHONE))


async def test_operations_and_restores_wait_for_each_other(running):
    done = []

    async def act(what, work):
        await work
        done.append(what)

    async with asyncio.TaskGroup() as group:
        group.create_task(act("reset", running.reset()))
        group.create_task(act("operation", running.perform(op("reset-phone", phone=PHONE))))
        group.create_task(act("checkpoint", running.checkpoint("x")))
        group.create_task(act("operation", running.perform(op("reset-phone", phone=PHONE))))
    assert sorted(done) == ["checkpoint", "operation", "operation", "reset"]
    assert running.lab.phone(PHONE).state is PhoneState.REGISTERED


async def test_replication_and_a_node_that_is_down(folder, loopback):
    running = make(folder, network_of(loopback), "subscriber")
    lab = running.lab
    await running.start()
    try:
        (cluster,) = [each for each in lab.clusters.values() if len(each.nodes) > 1][:1]
        subscriber = list(cluster.nodes)[1]
        await cluster.crash_node(subscriber)
        await running.checkpoint("down")
        await running.reset()
        assert lab.node(subscriber).is_up
        cluster = lab.cluster(cluster.name)
        cluster.set_parameter("X", "1")
        await cluster.replication.catch_up(subscriber)
        await running.restore("down")
        cluster = lab.cluster(cluster.name)
        assert not lab.node(subscriber).is_up
        assert cluster.publisher.database.parameter("X") is None
        await cluster.start_node(subscriber)
        await cluster.replication.catch_up(subscriber)
    finally:
        await running.stop()


async def test_a_lab_that_starts_again_writes_nothing(running):
    """What is written on the publisher would go to every subscriber: large clusters would hardly start."""
    before = [cluster.publisher.database.position for cluster in running.lab.clusters.values()]
    keys = [path.stat().st_mtime_ns for path in sorted(running.lab.options.directory.glob("clusters/*/*/security/*"))]
    await running.reset()
    assert [cluster.publisher.database.position for cluster in running.lab.clusters.values()] == before
    paths = sorted(running.lab.options.directory.glob("clusters/*/*/security/*"))
    assert [path.stat().st_mtime_ns for path in paths] == keys


async def test_servers_and_impostors_are_brought_back(running):
    lab = running.lab
    await lab.node("ucm105pub").replace_tvs_by_impostor()
    await lab.dhcp.stop()
    await lab.sftp.stop()
    await running.checkpoint("x")
    await running.reset()
    assert lab.dhcp.is_running
    assert lab.sftp.is_running
    assert lab.node("ucm105pub").runs("TVS")
    await running.restore("x")
    assert not lab.dhcp.is_running
    assert not lab.sftp.is_running
    assert lab.node("ucm105pub").runs("impostor of TVS")
    assert not lab.node("ucm105pub").runs("TVS")


async def test_a_moved_date_is_told(running):
    began = running.clock.now()
    now = await running.move_clock(-1e6)
    assert abs(now - began + 1e6) < 600
    assert kinds(running)[-1] == "lab.clock_moved"
    told = PlainLines().lines(list(running.lab.events)[-1])
    assert "moved by -11d 13h 46m 40s" in told[0]


@pytest.mark.parametrize("seconds", [1e12, -1e12, float("inf"), float("nan")])
async def test_dates_that_are_none(running, seconds):
    with pytest.raises(UsageError, match="is no date"):
        await running.move_clock(seconds)
    assert running.clock.moved_s == pytest.approx(0, abs=1)


async def test_a_start_that_is_cut_short_leaves_nothing_running(folder, loopback):
    """Wherever it is: each run ends a little later than the one before."""
    network, steps = network_of(loopback), 0
    while True:
        running = make(folder, network)
        starting = asyncio.create_task(running.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        done = await asyncio.gather(starting, return_exceptions=True)
        if done == [None]:
            break
        assert isinstance(done[0], asyncio.CancelledError)
        assert len(asyncio.all_tasks()) == 1
        steps = steps * 2 + 1
    await running.stop()


async def test_shutdown(running):
    running.shutdown("asked to")
    running.shutdown("again")
    assert running.ended.is_set()
    assert kinds(running).count("lab.ended") == 1
