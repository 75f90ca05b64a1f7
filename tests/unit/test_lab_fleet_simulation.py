"""A simulated fleet as a whole: next to one on sockets, twice with one seed, under more load than its nodes bear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from lab_on_sockets import network_of

from cucm.errors import UsageError
from lab.fleet.calibration import MEASURED, Kind
from lab.fleet.engine import Fleet
from lab.fleet.plan import make_plan
from lab.fleet.progress import Progress
from lab.fleet.queueing import Machines
from lab.fleet.request import FleetRequest
from lab.fleet.result import FleetResult
from lab.fleet.simulation import Simulation

Draw = Callable[[], str]
MEASURED_TIMES = {"setup_s", "computed_s"}


async def simulate(request: FleetRequest, network: IPv4Network, machines: Machines | None = None) -> FleetResult:
    return await Simulation(request, make_plan(request), network, Progress(), machines or Machines(2)).play()


def told(result: FleetResult) -> dict[str, Any]:
    return {name: value for name, value in result.as_json().items() if name not in MEASURED_TIMES}


@pytest.mark.parametrize("story", ["migrate", "tvs-down", "phone-not-provisioned", "sha512-old-phone"])
async def test_ends_are_those_of_a_fleet_on_sockets(story: str, loopback: Draw) -> None:
    request = FleetRequest(6, story=story)
    real = await Fleet(request, make_plan(request), network_of(loopback), Progress()).play()
    ours = await simulate(request, network_of(loopback))
    assert real.trouble is ours.trouble is None

    def plain(result: FleetResult) -> dict[str, object]:
        """How a connection failed is the clients' wording."""
        return {name: replace(end, detail=end.detail.partition(" (")[0]) for name, end in result.ends.items()}

    assert plain(ours) == plain(real)
    assert ours.where() == real.where()
    for mine, theirs in zip(ours.stages, real.stages, strict=True):
        assert (mine.title, mine.phones) == (theirs.title, theirs.phones)
        counts = {phase: len(measured) for phase, measured in theirs.latencies.items()}
        assert {phase: len(measured) for phase, measured in mine.latencies.items()} == counts
    loads = [(one.cluster, one.node, one.service, one.requests, one.bytes) for one in real.loads if one.requests]
    assert [
        (one.cluster, one.node, one.service, one.requests, one.bytes) for one in ours.loads if one.requests
    ] == loads


async def test_one_seed_gives_one_result(loopback: Draw) -> None:
    request = FleetRequest(300, story="campus", seed=7)
    first, again = [await simulate(request, network_of(loopback)) for _ in range(2)]
    assert told(first) == told(again)
    other = await simulate(replace(request, seed=8), network_of(loopback))
    assert other.tally().total() == first.tally().total()
    assert other.stages[0].wall_s != first.stages[0].wall_s


async def test_nodes_that_cannot_bear_the_load_let_phones_wait_too_long(loopback: Draw) -> None:
    """What a phone then does is the decision tree's: TVS that does not answer in time vouches for nothing."""
    slow = dict(MEASURED.costs) | {Kind.TVS: replace(MEASURED.costs[Kind.TVS], server_s=0.5)}
    machines = Machines(1, costs=replace(MEASURED, costs=slow))
    result = await simulate(FleetRequest(200, concurrency=200), network_of(loopback), machines)
    assert 0 < result.arrived < 200
    assert set(result.reasons()) == {"tvs-unreachable"}
    assert result.tally().total() == result.stages[1].phones == len(result.stages[1].latencies["boot"]) == 200
    assert {end.boots for end in result.ends.values()} == {2}


async def test_many_phones_are_few_standings(loopback: Draw) -> None:
    request = FleetRequest(50_000, concurrency=1000)
    fleet = Simulation(request, make_plan(request), network_of(loopback), Progress(), Machines(8))
    result = await fleet.play()
    assert result.arrived == len(result.ends) == 50_000
    assert len(fleet._standings) <= 4
    assert fleet._phones.itemsize * len(fleet._phones) <= 8 * 50_000
    last = "SEPB000B400C350"
    assert list(result.ends)[-1] == last
    assert result.ends[last].registered == "destination"
    for stranger in ("SEPB000B4000000", "SEPB000B400C351", "SEPFFFFFF000001"):
        assert stranger not in result.ends


async def test_it_ends_early_when_it_is_told_to(loopback: Draw) -> None:
    request = FleetRequest(20_000)
    progress = Progress()
    fleet = Simulation(request, make_plan(request), network_of(loopback), progress, Machines(2))
    add = progress.add

    def after_a_while(*words: Any) -> None:
        add(*words)
        fleet.interrupt()

    progress.add = after_a_while  # type: ignore[method-assign]
    result = await fleet.play()
    assert result.interrupted
    assert not result.is_good
    assert 0 < progress.done < 20_000


async def test_a_fault_that_only_a_wire_has_is_refused(tmp_path: Path) -> None:
    story = tmp_path / "story.toml"
    story.write_text(
        """schema = 1
title = "t"
teaches = "t"
topology = "two-clusters"
[[acts]]
title = "a"
faults = [{ point = "tvs.response", action = "truncate" }]
steps = [{ do = "boot-phone", phone = "SEPB000B4BA0AEE" }]
"""
    )
    with pytest.raises(UsageError, match=r"fault on the wire \(tvs.response\)"):
        await simulate(FleetRequest(3, story=str(story)), IPv4Network("127.0.11.0/24"))
