"""Faults that are states, and the phone's own, on a running lab."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from lab_on_sockets import PHONE, make_lab, network_of, perform, two_nodes_and_another_cluster

from cucm.clock import MovableClock
from cucm.errors import LabError, UsageError
from cucm.events.phone import PowerLost
from cucm.faults.catalogue import POINTS
from cucm.identity import describe
from cucm.net.reachability import Reachability
from cucm.net.tls import client_context, open_stream
from cucm.roles import CertificateUnit
from lab.fault_bringers import BRINGERS, PRESENTED
from lab.lab_folder import KeptClock
from lab.node import ServiceState
from lab.runtime import Lab
from phone_agent.state import PhoneState


@pytest.fixture
async def lab(tmp_path: Path, loopback: Callable[[], str]) -> AsyncIterator[Lab]:
    made = make_lab(tmp_path / "lab", network_of(loopback), two_nodes_and_another_cluster())
    made.clock = MovableClock()
    async with made:
        yield made


async def set_fault(lab: Lab, point: str, action: str, match: dict[str, str] | None = None, **attributes: Any) -> None:
    await lab.set_fault({"id": "it", "point": point, "action": action, "match": match or {}, "attributes": attributes})


def hit(lab: Lab) -> list[dict[str, str]]:
    return [record.as_json()["request"] for record in lab.events if record.event.kind == "fault.fired"]


def test_every_state_can_be_brought_about() -> None:
    assert set(BRINGERS) == {name for name, point in POINTS.items() if point.is_state}


@pytest.mark.parametrize(("action", "how"), [("refuse", Reachability.REFUSE), ("blackhole", Reachability.UNREACHABLE)])
async def test_a_port_is_as_before_when_the_fault_ends(lab: Lab, action: str, how: Reachability) -> None:
    lab.node("sub").set_reachability("TFTP", Reachability.REFUSE)
    await set_fault(lab, "service.port", action, {"cluster": "here", "service": "T*"})
    assert lab.node("pub").reachability_of("TVS") is lab.node("sub").reachability_of("TFTP") is how
    assert lab.node("other").reachability_of("TVS") is Reachability.OPEN
    assert {"cluster": "here", "node": "sub", "service": "TVS"} in hit(lab)
    await lab.end_fault("it")
    assert lab.node("pub").reachability_of("TVS") is Reachability.OPEN
    assert lab.node("sub").reachability_of("TFTP") is Reachability.REFUSE


@pytest.mark.parametrize(("action", "state"), [("stop", ServiceState.STOPPED), ("crash", ServiceState.CRASHED)])
async def test_a_process_runs_again_when_the_fault_ends(lab: Lab, action: str, state: ServiceState) -> None:
    await set_fault(lab, "service.process", action, {"node": "pub", "service": "TVS"})
    assert lab.node("pub").state_of("TVS") is state
    assert lab.node("pub").runs("TFTP")
    await lab.end_fault("it")
    assert lab.node("pub").runs("TVS")


async def test_a_process_that_does_not_run_cannot_die(lab: Lab) -> None:
    await lab.node("pub").stop_service("TVS")
    with pytest.raises(UsageError, match="does not run"):
        await set_fault(lab, "service.process", "crash", {"node": "pub", "service": "TVS"})
    assert list(lab.faults) == []


async def test_a_machine_comes_up_again_when_the_fault_ends(lab: Lab) -> None:
    await set_fault(lab, "node.machine", "crash", {"node": "sub"})
    assert not lab.node("sub").is_up
    await lab.end_fault("it")
    assert lab.node("sub").is_up
    assert lab.node("sub").runs("TVS")


async def test_a_machine_restarts_at_once(lab: Lab) -> None:
    await set_fault(lab, "node.machine", "restart", {"node": "sub"})
    assert lab.node("sub").runs("TVS")
    assert [record.event.kind for record in lab.events if record.event.kind.startswith("node.")][-2:] == [
        "node.crashed",
        "node.started",
    ]
    await lab.end_fault("it")


async def shown(lab: Lab, node: str) -> bytes:
    seen: list[bytes] = []
    async with await open_stream(lab.node(node).address, 2445, context=client_context(), verify_peer=seen.append):
        return seen[0]


@pytest.mark.parametrize("action", ["expired", "not-yet-valid", "wrong-key"])
async def test_a_service_shows_a_broken_certificate_while_the_fault_lasts(lab: Lab, action: str) -> None:
    right = lab.node("pub").certificate(CertificateUnit.TVS)
    await set_fault(lab, "node.certificate", action, {"node": "pub", "unit": "TVS"})
    broken, now = describe(await shown(lab, "pub")), lab.clock.now()
    whole = describe(right)
    assert (broken.subject, broken.serial) == (whole.subject, whole.serial)
    assert (broken.not_after < now) is (action == "expired")
    assert (broken.not_before > now) is (action == "not-yet-valid")
    assert (broken.public_key_record != whole.public_key_record) is (action == "wrong-key")
    assert lab.node("pub").certificate(CertificateUnit.TVS) == right, "what lies on the disk is as it was"
    await lab.end_fault("it")
    assert await shown(lab, "pub") == right


def test_what_is_shown_belongs_to_a_service() -> None:
    assert set(PRESENTED.values()) == {"TVS", "CallManager"}


async def test_replication_lags_hangs_and_goes_on(lab: Lab) -> None:
    await set_fault(lab, "replication.link", "lag", {"node": "sub"}, seconds=300)
    lab.cluster("here").set_parameter("a", "1")
    assert lab.cluster("here").replication.status()[0].lag_s == 300
    await lab.end_fault("it")
    await set_fault(lab, "replication.link", "pause")
    lab.cluster("here").set_parameter("b", "2")
    assert lab.cluster("here").replication.status()[0].paused
    await lab.end_fault("it")
    await lab.cluster("here").replication.catch_up("sub")
    assert lab.node("sub").database.parameter("b") == "2"


async def test_a_change_is_lost_and_nobody_notices(lab: Lab) -> None:
    await set_fault(lab, "replication.change", "lose", {"table": "processconfig", "node": "sub"})
    lab.cluster("here").set_parameter("lost", "1")
    await lab.settle()
    await lab.end_fault("it")
    lab.cluster("here").set_parameter("later", "2")
    await lab.settle()
    subscriber = lab.node("sub").database
    assert (subscriber.parameter("lost"), subscriber.parameter("later")) == (None, "2")
    assert lab.node("pub").database.parameter("lost") == "1"
    assert hit(lab)[0]["cluster"] == "here"


async def test_the_clock_jumps_and_comes_back(lab: Lab) -> None:
    before = lab.clock.now()
    await set_fault(lab, "lab.clock", "jump", seconds=1e6)
    assert lab.clock.now() - before >= 1e6
    await lab.end_fault("it")
    assert 0 <= lab.clock.now() - before < 1e6


async def test_faults_at_the_same_port_end_in_any_order(lab: Lab) -> None:
    node = lab.node("pub")
    for name, action in (("a", "refuse"), ("b", "blackhole"), ("c", "refuse")):
        await lab.set_fault({"id": name, "point": "service.port", "action": action, "match": {"service": "TVS"}})
    await lab.end_fault("c")
    assert node.reachability_of("TVS") is Reachability.UNREACHABLE
    await lab.end_fault("a")
    assert node.reachability_of("TVS") is Reachability.UNREACHABLE, "the other is in force"
    await lab.end_fault("b")
    assert node.reachability_of("TVS") is Reachability.OPEN


async def test_faults_at_the_same_link_end_in_any_order(lab: Lab) -> None:
    lab.cluster("here").replication.set_lag("sub", 5)
    for name, seconds in (("a", 100), ("b", 200)):
        attributes = {"seconds": seconds}
        await lab.set_fault({"id": name, "point": "replication.link", "action": "lag", "attributes": attributes})
        await lab.set_fault({"id": f"pause-{name}", "point": "replication.link", "action": "pause"})
    await lab.end_fault("a")
    await lab.end_fault("pause-a")
    (link,) = lab.cluster("here").replication.status()
    assert (link.lag_s, link.paused) == (200, True)
    await lab.end_fault("b")
    await lab.end_fault("pause-b")
    (link,) = lab.cluster("here").replication.status()
    assert (link.lag_s, link.paused) == (5, False)


async def test_faults_at_the_same_certificate_end_in_any_order(lab: Lab) -> None:
    right, match = lab.node("pub").certificate(CertificateUnit.TVS), {"node": "pub", "unit": "TVS"}
    for action in ("expired", "wrong-key"):
        await lab.set_fault({"id": action, "point": "node.certificate", "action": action, "match": match})
    await lab.end_fault("expired")
    assert describe(await shown(lab, "pub")).public_key_record != describe(right).public_key_record
    await lab.end_fault("wrong-key")
    assert await shown(lab, "pub") == right


@pytest.mark.parametrize("point", ["service.process", "node.machine"])
async def test_what_cannot_be_brought_about_everywhere_is_undone(
    lab: Lab, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_what: object) -> None:
        raise LabError("not here")

    monkeypatch.setattr(lab.node("other"), "crash_service", refuse)
    monkeypatch.setattr(lab.cluster("there"), "crash_node", refuse)
    with pytest.raises(LabError, match="not here"):
        await set_fault(lab, point, "crash")
    assert list(lab.faults) == []
    assert lab.node("pub").is_up
    assert lab.node("pub").runs("TVS")


async def test_a_jump_to_no_date_has_hit_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.clock = KeptClock(tmp_path / "clock.json")
    with pytest.raises(UsageError, match="is no date"):
        await set_fault(lab, "lab.clock", "jump", seconds=-3e9)
    assert hit(lab) == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_phone_loses_its_power_at_a_named_step(lab: Lab, when: str) -> None:
    match = {"phone": PHONE, "step": "store", "stores": "*itl*"}
    await set_fault(lab, "phone.step", "power-loss", match, when=when)
    await perform(lab, "boot-phone", phone=PHONE)
    phone = lab.phone(PHONE)
    assert phone.state is PhoneState.OFF
    assert (phone.flash.contents.itl is not None) is (when == "after")
    assert any(isinstance(record.event, PowerLost) for record in lab.events)
    await lab.end_fault("it")
    await perform(lab, "boot-phone", phone=PHONE)
    assert phone.state is PhoneState.REGISTERED


async def test_a_full_flash_holds_what_it_held(lab: Lab) -> None:
    await set_fault(lab, "phone.flash", "full", {"phone": PHONE})
    await perform(lab, "boot-phone", phone=PHONE)
    assert lab.phone(PHONE).flash.contents.itl is None
    await lab.end_fault("it")
    await perform(lab, "reset-phone", phone=PHONE)
    assert lab.phone(PHONE).flash.contents.itl is not None


async def test_what_matches_nothing_is_refused_and_nothing_has_changed(lab: Lab) -> None:
    with pytest.raises(UsageError, match="fits no part") as refused:
        await set_fault(lab, "node.machine", "crash", {"node": "nobody"})
    assert "sub" in (refused.value.mend or "")
    assert list(lab.faults) == []
    with pytest.raises(UsageError, match="no fault"):
        await lab.end_fault("it")


async def test_all_faults_end_the_newest_first(lab: Lab) -> None:
    await lab.set_fault({"id": "a", "point": "service.port", "action": "refuse", "match": {"node": "pub"}})
    await lab.set_fault({"id": "b", "point": "service.port", "action": "blackhole", "match": {"node": "pub"}})
    assert [status.fault.id for status in await lab.end_faults()] == ["b", "a"]
    assert lab.node("pub").reachability_of("TVS") is Reachability.OPEN


async def test_what_cannot_be_undone_ends_and_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("TVS", "TFTP"):
        match = {"node": "pub", "service": service}
        await lab.set_fault({"id": service, "point": "service.process", "action": "stop", "match": match})

    async def refuse(_service: str) -> None:
        raise LabError("not again")

    monkeypatch.setattr(lab.node("pub"), "start_service", refuse)
    with pytest.raises(LabError, match="not again"):
        await lab.end_faults()
    assert list(lab.faults) == []
