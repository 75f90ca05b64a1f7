from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network

import pytest

from cucm.errors import UsageError
from lab.fleet.batch import PhoneState
from lab.fleet.crew import shares
from lab.fleet.plan import NO_STEP, make_plan
from lab.fleet.population import Population
from lab.fleet.request import FleetRequest, default_workers
from lab.topology import load_topology
from phone_agent.flash import FlashContents

NETWORK = IPv4Network("127.2.0.0/16")


@pytest.mark.parametrize(
    ("story", "target"),
    [
        ("migrate", "destination"),
        ("tvs-down", "destination"),
        ("move-to-another-make", "cme"),
        ("campus", "destination"),
    ],
)
def test_the_target_is_where_option_150_points_in_the_end(story: str, target: str) -> None:
    assert make_plan(FleetRequest(3, story=story)).target == target


def test_who_is_never_sent_stays_where_the_story_expects_him() -> None:
    plan = make_plan(FleetRequest(3, story="sha512-newer-series"))
    assert plan.staying == {"SEP001B2C000001": "source"}
    assert not plan.left_out
    assert make_plan(FleetRequest(3, story="tvs-down")).staying == {}  # sent, and expected to be stranded
    assert make_plan(FleetRequest(3, story="campus", topology="model-mix")).staying == {}


def test_a_story_may_not_speak_of_all_phones_of_a_topology() -> None:
    plan = make_plan(FleetRequest(3, story="migrate", topology="model-mix"))
    assert plan.left_out == {"SEP001B2C000001", "SEP001B2C000002"}
    assert plan.silence_about("SEP001B2C000001") == NO_STEP
    assert plan.silence_about("SEPB000B4BA0AEE") == ""


def test_the_repair_is_played_only_when_asked_for() -> None:
    without, with_it = (make_plan(FleetRequest(3, story="tvs-down", repair=repair)) for repair in (False, True))
    assert [act.repairs for act in without.acts] == [False, False]
    assert [act.repairs for act in with_it.acts] == [False, False, True]


def test_a_story_in_which_phones_ask_capf_is_refused() -> None:
    with pytest.raises(UsageError, match="CAPF"):
        make_plan(FleetRequest(3, story="capf-regenerated", repair=True))


@pytest.mark.parametrize(
    "wrong", [{"phones": 0}, {"phones": 60_001}, {"phones": 5, "concurrency": 0}, {"phones": 5, "workers": -1}]
)
def test_numbers_out_of_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="is not between"):
        FleetRequest(**wrong).check()


def test_phones_are_many_and_each_is_one_of_a_kind() -> None:
    population = Population(load_topology("campus"), 1000, NETWORK)
    phones = list(population)
    assert len({phone.name for phone in phones}) == len({phone.address for phone in phones}) == 1000
    assert [table.name for table in population.tables()] == [phone.name for phone in phones]
    assert phones[0].product == "CP-8861"
    assert phones[16].product == "CP-7821"
    assert phones[40].model == phones[0].model


def test_a_topology_without_phones_makes_no_fleet() -> None:
    bare = load_topology("two-clusters").model_copy(update={"phones": ()})
    with pytest.raises(UsageError, match="has no phones"):
        Population(bare, 5, NETWORK)


def test_processes_without_work_are_none() -> None:
    assert FleetRequest(2, workers=64).processes == 2
    assert FleetRequest(500, workers=64, concurrency=3).processes == 3
    assert FleetRequest(500, workers=4).processes == 4
    assert FleetRequest(500).processes == 0


def test_each_process_has_phones_of_every_kind() -> None:
    topology = load_topology("model-mix")
    states = [PhoneState(phone, FlashContents()) for phone in Population(topology, 36, NETWORK)]
    parts = shares(states, 3)
    every_kind = Counter({table.name: 4 for table in topology.phones})
    assert [Counter(state.phone.model for state in part) for part in parts] == [every_kind] * 3
    assert sorted(state.name for part in parts for state in part) == sorted(state.name for state in states)


def test_few_phones_live_with_the_servers_and_many_beside_them() -> None:
    assert (default_workers(100, 8), default_workers(1000, 2), default_workers(1000, 8)) == (0, 1, 7)
