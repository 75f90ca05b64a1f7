"""The clockwork of the simulation: nobody is lost, no core does two things at once, more cores are never slower."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.fleet.calibration import MEASURED, Kind
from lab.fleet.decisions import Decided, Point
from lab.fleet.queueing import Machines, Yard, run_stage
from lab.fleet.result import Phase, Stage
from lab.fleet.simulated_servers import Answer, Demand
from phone_agent.flash import FlashContents
from phone_agent.state import PhoneState

END = Decided(None, FlashContents(), PhoneState.UNREGISTERED, None, ())
LATE = Decided(None, FlashContents(), PhoneState.OFF, None, ())
demands = st.builds(
    Demand,
    kind=st.sampled_from(list(Kind)),
    node=st.sampled_from([None, "one", "two"]),
    size=st.integers(0, 20_000),
    delay_s=st.floats(0, 5),
    deadline_s=st.sampled_from([0.004, 60.0, 1e9]),
    failed=st.booleans(),
)


def tree(steps: list[tuple[Demand, ...]]) -> Point | Decided:
    if not steps:
        return END
    answer = Answer(steps[0], "reply", "late")
    return Point(Phase.CTL, answer, lambda reply: LATE if reply == "late" else tree(steps[1:]))


def run(
    steps: list[tuple[Demand, ...]], phones: int, concurrency: int, machines: Machines
) -> tuple[Stage, dict[int, Decided]]:
    ended: dict[int, Decided] = {}

    def end(number: int, decided: Decided) -> None:
        assert number not in ended
        ended[number] = decided

    stage = Stage("stage")
    yard = Yard(machines, {}, seed=1)
    told = list(run_stage(yard, stage, iter(range(phones)), lambda _number: tree(steps), end, concurrency))
    assert told[-1] == phones
    return stage, ended


@given(
    st.lists(st.lists(demands, min_size=1, max_size=3).map(tuple), max_size=4),
    st.integers(1, 30),
    st.integers(1, 40),
    st.integers(1, 4),
    st.booleans(),
)
def test_every_phone_ends_once_and_cores_do_one_thing_at_a_time(
    steps: list[tuple[Demand, ...]], phones: int, concurrency: int, cores: int, shared: bool
) -> None:
    stage, ended = run(steps, phones, concurrency, Machines(cores, shared))
    assert sorted(ended) == list(range(phones))
    assert stage.phones == phones
    assert set(ended.values()) <= {END, LATE}
    nodes = 1 if shared else 2
    work_s = stage.cpu_s if shared else stage.server_cpu_s
    is_patient = all(demand.deadline_s > 1e6 for step in steps for demand in step)
    if is_patient:  # an impatient phone leaves while its node still works for it
        assert stage.wall_s * cores * (nodes + 1) >= work_s - 1e-9
        assert set(ended.values()) <= {END}
    if steps:
        assert stage.per_second.total() == len(stage.latencies[Phase.BOOT]) == phones


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 3))
def test_a_node_is_as_fast_as_its_cores(phones: int, concurrency: int, cores: int) -> None:
    step = (Demand(Kind.TVS, "one", deadline_s=1e9),)
    narrow, _ = run([step], phones, concurrency, Machines(cores))
    wide, _ = run([step], phones, concurrency, Machines(cores + 1))
    assert wide.wall_s <= narrow.wall_s * 1.000001
    least_s = narrow.server_cpu_s / cores
    most_s = narrow.cpu_s + phones * (MEASURED.round_trip_s + MEASURED.boot_s)
    assert least_s <= narrow.wall_s <= most_s + 1e-9
