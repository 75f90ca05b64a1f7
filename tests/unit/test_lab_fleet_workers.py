from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Network

import pytest

from lab.fleet.batch import LOST, Holding, PhoneFinding, PhoneState, Surroundings
from lab.fleet.crew import Work
from lab.fleet.engine import without_lost
from lab.fleet.population import Population
from lab.fleet.progress import Progress
from lab.fleet.wire import Done, GiveUp, Perform, receive, send
from lab.fleet.worker import Worker
from lab.fleet.workers import CrewOfWorkers, WorkerLost
from lab.topology import load_topology
from phone_agent.flash import FlashContents

PHONES = 6


@pytest.fixture
async def crew() -> AsyncIterator[CrewOfWorkers]:
    population = Population(load_topology("two-clusters"), PHONES, IPv4Network("127.2.0.0/16"))
    states = [PhoneState(phone, FlashContents()) for phone in population]
    crew = await CrewOfWorkers.start(Surroundings(("127.0.0.1", 67)), states, 2, Progress())
    try:
        yield crew
    finally:
        await crew.end()


def power_off(concurrency: int = 4) -> Work:
    """What needs no server."""
    models = {table.name for table in load_topology("two-clusters").phones}
    return Work("power-off", "power-off-phone", frozenset(models), concurrency)


async def test_all_phones_do_what_is_told(crew: CrewOfWorkers) -> None:
    assert (await crew.perform(power_off())).phones == PHONES
    assert {finding.state for finding, _ in (await crew.findings()).values()} == {"off"}


@pytest.mark.parametrize(("concurrency", "parts"), [(2, [1, 1]), (5, [3, 2]), (64, [32, 32])])
async def test_the_fleets_concurrency_is_shared(crew: CrewOfWorkers, concurrency: int, parts: list[int]) -> None:
    assert crew._parts_of(concurrency) == parts


async def test_a_worker_that_is_lost_between_two_steps_is_told_and_its_phones_are_counted(crew: CrewOfWorkers) -> None:
    await crew.perform(power_off())
    crew._workers[0]._process.kill()
    with pytest.raises(WorkerLost, match="worker process 0 with 3 phones was lost"):
        await crew.perform(power_off())
    findings = await crew.findings()
    assert sorted(finding.state for finding, _ in findings.values()) == [LOST] * 3 + ["off"] * 3


async def test_a_worker_that_is_lost_after_the_last_step_leaves_no_registered_phone(crew: CrewOfWorkers) -> None:
    crew._workers[1]._process.kill()
    findings = await crew.findings()
    where: dict[str, tuple[str, str | None]] = dict.fromkeys(findings, ("destination", "node"))
    left = without_lost(where, findings)
    assert len(left) == 3
    assert {findings[name][0].state for name in left} == {"off"}


def test_who_is_not_of_the_fleet_is_not_counted() -> None:
    accounts = {"SEP1": (PhoneFinding("registered"), Holding(None, None, None))}
    assert without_lost({"SEP1": ("a", "n"), "SEP2": ("a", "n")}, accounts) == {"SEP1": ("a", "n")}


async def test_a_worker_answers_when_it_gives_up_what_it_has_not_even_begun() -> None:
    """Both orders are there when it looks: the second must not wait for an answer that nobody gives."""
    ours, theirs = socket.socketpair()
    engine, worker = await asyncio.open_connection(sock=ours), await asyncio.open_connection(sock=theirs)
    send(engine[1], Perform("boot", "boot-phone", frozenset(), 1))
    send(engine[1], GiveUp())
    await engine[1].drain()
    serving = asyncio.create_task(Worker(*worker).serve())
    async with asyncio.timeout(20):
        assert isinstance(await receive(engine[0]), Done)
        engine[1].close()
        await serving
    worker[1].close()
