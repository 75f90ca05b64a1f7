"""Simulated phones next to real ones before the same servers: every boot of every packaged story, decision by decision.

Each boot is simulated first, from what the real phone has in its flash then, and changes nothing; then the real phone
does it on sockets. Both must have told of the same decisions in the same order, hold the same and end the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from lab_on_sockets import network_of

from cucm.clock import MovableClock
from cucm.events import Event
from cucm.events import phone as events
from lab.fleet.decisions import Decided, Decisions, Point
from lab.fleet.plan import PHONE_VERBS
from lab.fleet.simulated_servers import SimulatedServers
from lab.operations import InstallLsc
from lab.operations.phones import PhoneOperation
from lab.runtime import Lab, LabOptions
from lab.scenario import Story, load_story
from lab.topology import load_topology
from phone_agent.boot import BootOutcome
from phone_agent.driver import Phone
from phone_agent.flash import FlashContents

DEADLINE_S = 100.0
STORIES = sorted(
    item.name.removesuffix(".toml")
    for item in resources.files("lab").joinpath("scenarios").iterdir()
    if item.name.endswith(".toml")
)
TOLD_BY_THE_BOOT = (
    events.BootStarted,
    events.BootFinished,
    events.ConfigurationAccepted,
    events.ConfigurationKept,
    events.ConfigurationRefused,
    events.FileNotReceived,
    events.FileReceived,
    events.FileRequested,
    events.FlashFailed,
    events.Registered,
    events.RegistrationFailed,
    events.RegistrationNotPossible,
    events.RegistrationStarted,
    events.StatusMessageShown,
    events.TftpServersLearned,
    events.TrustListAccepted,
    events.TrustListNotLoaded,
    events.TrustListRefused,
    events.TrustListUnchanged,
    events.TvsCacheFlushed,
    events.TvsCacheHit,
    events.TvsCacheMissed,
    events.TvsCertificateCached,
    events.TvsDidNotVouch,
    events.TvsNotUsed,
    events.TvsQueryFailed,
    events.TvsVouched,
)
"""The driver and the clients tell of their own steps in between: sockets, handshakes, the phone's states."""


def plain(event: Event) -> dict[str, Any]:
    """The words of the network's troubles too."""
    return {"kind": event.kind} | {field.name: getattr(event, field.name) for field in fields(event)}


def plain_outcome(outcome: BootOutcome | None) -> object:
    if outcome is None:
        return None
    registrations = tuple((one.status, one.sip_status) for one in outcome.registrations)
    refusals = tuple((one.file, one.reason) for one in outcome.refusals)
    return replace(outcome, registrations=(), refusals=()), registrations, refusals


def plain_contents(contents: FlashContents) -> FlashContents:
    """Without the moment at which what TVS said is forgotten: the clock of a real boot goes on."""
    return replace(contents, tvs_cache=tuple(replace(entry, expires_at=0.0) for entry in contents.tvs_cache))


def simulated(lab: Lab, phone: Phone) -> Decided:
    moment = MovableClock(lab.clock.now(), frozen=True)
    place = Decisions(SimulatedServers(lab), moment).boot(phone.model, phone.flash.contents)
    while isinstance(place, Point):
        place = place.follow(late=False)
    return place


def boots_of(lab: Lab, step: PhoneOperation) -> Iterable[Phone]:
    return lab.phones_named(step.phone or step.phones or "") if PHONE_VERBS[type(step)] in ("boot", "reset") else ()


async def play_beside(lab: Lab, story: Story) -> int:
    """How many boots were compared."""
    compared = 0
    for act in story.acts:
        for fault in act.faults:
            await lab.set_fault(fault)
        for step in act.steps:
            if not isinstance(step, PhoneOperation) or isinstance(step, InstallLsc):
                await lab.perform(step)
                continue
            expected = [(phone, simulated(lab, phone)) for phone in boots_of(lab, step)]
            began = lab.events.emit("test", Event())
            await lab.perform(step)
            records = lab.events.since(began.sequence)
            for phone, decided in expected:
                source = f"phone:{phone.model.name}"
                real = [one.event for one in records if one.source == source]
                told = [plain(event) for event in real if isinstance(event, TOLD_BY_THE_BOOT)]
                assert [plain(event) for event in decided.events] == told
                assert plain_outcome(decided.outcome) == plain_outcome(phone.last_outcome)
                assert plain_contents(decided.contents) == plain_contents(phone.flash.contents)
                assert decided.state is phone.state
                assert decided.messages == phone.status_messages[-len(decided.messages) :]
                compared += 1
        await lab.end_faults()
    return compared


@pytest.mark.parametrize("name", STORIES)
async def test_a_simulated_phone_decides_as_a_real_one(name: str, tmp_path: Path, loopback: Callable[[], str]) -> None:
    _, story = load_story(name)
    options = LabOptions(tmp_path / "lab", network_of(loopback))
    async with asyncio.timeout(DEADLINE_S), Lab(load_topology(story.topology), options, clock=MovableClock()) as lab:
        assert await play_beside(lab, story) >= 2
