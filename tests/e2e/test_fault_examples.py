"""Every action of every fault point, played on a lab of its own: the rule hits, and its effect is seen."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cucm.clock import MovableClock
from cucm.errors import LabError
from cucm.events import EventRecord
from cucm.events.faults import FaultFired
from cucm.faults.catalogue import POINTS
from lab.fault_examples import FaultExample, fault_examples
from lab.runtime import Lab, LabOptions
from lab.topology import load_topology

SHOWN_WITHIN_S = 10.0
EXAMPLES = fault_examples()

STILL_WITHOUT_EXAMPLES: tuple[str, ...] = ()
"""Points at which actions lack an example. To be empty: who adds them removes the point here."""


def name_of(example: FaultExample) -> str:
    return f"{example.point}-{example.action}"


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
async def test_example_hits_and_shows_its_effect(example: FaultExample, tmp_path: Path, network: IPv4Network) -> None:
    lab = Lab(load_topology(example.topology), LabOptions(tmp_path / "lab", network), clock=MovableClock())
    async with lab:
        for step in example.before:
            await lab.perform(step)
        fault = await lab.set_fault(example.rule)
        await provoke(lab, example)
        await until_shown(lab, example, fault.id)
        ended = await lab.end_fault(fault.id)
        assert ended.hits


async def provoke(lab: Lab, example: FaultExample) -> None:
    if not example.fails:
        await perform_all(lab, example)
        return
    with pytest.raises(LabError) as failure:
        await perform_all(lab, example)
    assert example.fails in str(failure.value)


async def perform_all(lab: Lab, example: FaultExample) -> None:
    for step in example.steps:
        await lab.perform(step)


async def until_shown(lab: Lab, example: FaultExample, fault_id: str) -> None:
    told = asyncio.Event()
    end = lab.events.subscribe(lambda _record: told.set())
    try:
        async with asyncio.timeout(SHOWN_WITHIN_S):
            while not any(map(example.shows.is_shown_by, since_it_fired(lab, fault_id))):
                told.clear()
                await told.wait()
    except TimeoutError:
        told_since = [str(record.as_json()) for record in since_it_fired(lab, fault_id)]
        pytest.fail("\n".join([f"{name_of(example)}: since it fired, only:", *(told_since or ["it never fired"])]))
    finally:
        end()


def since_it_fired(lab: Lab, fault_id: str) -> tuple[EventRecord, ...]:
    """Empty when it has not."""
    fired = (r.sequence for r in lab.events if isinstance(r.event, FaultFired) and r.event.fault == fault_id)
    first = next(fired, None)
    return () if first is None else lab.events.since(first)


def test_every_action_has_exactly_one_example() -> None:
    pairs = [(example.point, example.action) for example in EXAMPLES]
    assert len(set(pairs)) == len(pairs), "two examples of the same action"
    wanted = {(point.name, action.name) for point in POINTS.values() for action in point.actions}
    missing = sorted(wanted - set(pairs))
    assert [pair for pair in missing if pair[0] not in STILL_WITHOUT_EXAMPLES] == []
    assert sorted({point for point, _ in missing}) == sorted(STILL_WITHOUT_EXAMPLES), "remove what has its examples"
