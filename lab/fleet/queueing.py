"""Time in a simulation: phones that boot so many at a time, nodes with some cores and a queue each.

A request takes a core of its node for its CPU time, first come, first served; the phone's own work takes none of the
nodes' cores, unless all live on one machine. CPU times vary around the calibrated ones, by the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from random import Random
from typing import Final

from cucm.records import dataclass
from lab.fleet.calibration import MEASURED, OVERLAP, Calibration, Kind
from lab.fleet.decisions import Decided, Point
from lab.fleet.result import NodeLoad, Phase, Stage
from lab.fleet.simulated_servers import Demand

SPREAD: Final = 0.5
"""Ours: a CPU time lies between half and one and a half of the calibrated one, evenly."""


MAX_CORES: Final = 1024
TOLD_EVERY: Final = 1000
"""Boots between two words to whoever watches."""


@dataclass(frozen=True, slots=True)
class Machines:
    """`cores` of each node; `shared`: of the one machine that all nodes and all phones live on. `costs`: how fast."""

    cores: int = 2
    shared: bool = False
    costs: Calibration = MEASURED


class Yard:
    """All nodes over the stages of one simulation: their loads, and what they have signed."""

    def __init__(self, machines: Machines, cluster_of: dict[str, str], seed: int) -> None:
        self.costs = machines.costs
        self.random = Random(f"fleet simulation {seed}")  # noqa: S311 (jitter, no secret)
        self._machines = machines
        self._cluster_of = cluster_of
        self._loads: dict[tuple[str, str], NodeLoad] = {}
        self._by_second: dict[tuple[str, str], Counter[int]] = {}
        self.shared = machines.shared
        self.cores: dict[str, list[float]] = {}

    def begin(self) -> None:
        """A stage begins at 0 s, with every core free."""
        self._end_busiest()
        self.cores = {}

    def free_at(self, node: str) -> list[float]:
        """When each core of the node is free, as a heap."""
        place = "" if self.shared else node
        cores = self.cores.get(place)
        if cores is None:
            cores = self.cores[place] = [0.0] * self._machines.cores
            heapify(cores)
        return cores

    def count(self, demand: Demand, node: str, moment_s: float) -> None:
        if demand.kind is Kind.DHCP:
            return
        key = (demand.kind.service, node)
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = NodeLoad(self._cluster_of.get(node, node), node, key[0])
            self._by_second[key] = Counter()
        if demand.failed:
            load.failures += 1
            return
        load.requests += 1
        load.bytes += demand.size
        self._by_second[key][int(moment_s)] += 1

    def loads(self) -> list[NodeLoad]:
        self._end_busiest()
        return sorted(self._loads.values(), key=lambda load: (load.service, load.cluster, load.node))

    def _end_busiest(self) -> None:
        for key, seconds in self._by_second.items():
            self._loads[key].busiest = max(self._loads[key].busiest, *seconds.values(), 0)
            seconds.clear()


class _Walk:
    """One phone on its way through the tree."""

    __slots__ = ("began_s", "number", "phase", "phase_began_s", "place", "point", "step_began_s")

    def __init__(self, number: int, point: Point, now_s: float) -> None:
        self.number = number
        self.point = point
        self.place = 0
        self.phase = point.phase
        self.began_s = self.phase_began_s = self.step_began_s = now_s


Root = Callable[[int], Point | Decided]
OnEnd = Callable[[int, Decided], None]


def run_stage(
    yard: Yard, stage: Stage, phones: Iterator[int], root: Root, on_end: OnEnd, concurrency: int
) -> Iterator[int]:
    """All `phones` boot, `concurrency` at a time, and fill `stage`; yields how many are done, now and then."""
    return _Clockwork(yard, stage, phones, root, on_end).run(concurrency)


class _Clockwork:
    """The events of one stage in the order of their moments."""

    def __init__(self, yard: Yard, stage: Stage, phones: Iterator[int], root: Root, on_end: OnEnd) -> None:
        self._yard = yard
        self._stage = stage
        self._phones = phones
        self._root = root
        self._on_end = on_end
        self._events: list[tuple[float, int, _Walk, bool]] = []
        self._made = 0
        self.done = 0
        yard.begin()

    def run(self, concurrency: int) -> Iterator[int]:
        for _ in range(concurrency):
            self._begin_next(0.0)
        events, told = self._events, 0
        while events:
            now_s, _, walk, late = heappop(events)
            self._go_on(walk, now_s, late)
            if self.done - told >= TOLD_EVERY:
                told = self.done
                yield told
        yield self.done

    def _begin_next(self, now_s: float) -> None:
        for number in self._phones:
            self._stage.phones += 1
            place = self._root(number)
            if isinstance(place, Point):
                self._ask(_Walk(number, place, now_s), now_s)
                return
            self._end(number, place)

    def _end(self, number: int, place: Decided) -> None:
        self.done += 1
        self._on_end(number, place)

    def _go_on(self, walk: _Walk, now_s: float, late: bool) -> None:
        """A request is over; the next of the same step, or the next step, or the end."""
        walk.place += 1
        if not late and walk.place < len(walk.point.answer.demands):
            self._ask(walk, now_s)
            return
        stage = self._stage
        if walk.point.answer.demands[-1].kind is Kind.TVS:
            stage.latency(Phase.TVS).add(now_s - walk.step_began_s)
        place = walk.point.follow(late=late)
        if isinstance(place, Point):
            if place.phase is not walk.phase:
                stage.latency(walk.phase).add(now_s - walk.phase_began_s)
                walk.phase, walk.phase_began_s = place.phase, now_s
            walk.point, walk.place, walk.step_began_s = place, 0, now_s
            self._ask(walk, now_s)
            return
        stage.latency(walk.phase).add(now_s - walk.phase_began_s)
        self._finish(walk, place, now_s)

    def _finish(self, walk: _Walk, place: Decided, now_s: float) -> None:
        stage, yard = self._stage, self._yard
        own_s = yard.costs.boot_s
        stage.phone_cpu_s += own_s
        if yard.shared:
            cores = yard.free_at("")
            now_s = max(now_s, cores[0]) + own_s / OVERLAP
            heapreplace(cores, now_s)
        else:
            now_s += own_s
        stage.latency(Phase.BOOT).add(now_s - walk.began_s)
        stage.per_second[int(now_s)] += 1
        stage.wall_s = max(stage.wall_s, now_s)
        self._end(walk.number, place)
        self._begin_next(now_s)

    def _ask(self, walk: _Walk, now_s: float) -> None:
        """Put the walk's present request into the queue of its node, and its end among the events."""
        demands = walk.point.answer.demands
        if not demands:  # no server to ask at all
            self._push(now_s, walk, late=False)
            return
        demand = demands[walk.place]
        if demand.node is None:
            self._push(now_s + demand.delay_s, walk, late=False)
            return
        end_s = self._served_at(demand, demand.node, now_s)
        late = end_s - now_s > demand.deadline_s
        if late:
            end_s = now_s + demand.deadline_s
        else:
            self._yard.count(demand, demand.node, end_s)
        self._push(end_s, walk, late=late)

    def _served_at(self, demand: Demand, node: str, now_s: float) -> float:
        yard, stage = self._yard, self._stage
        cost = yard.costs.costs[demand.kind]
        blocks = demand.size // 512 + 1 if cost.block_s else 0
        varies = 1 - SPREAD + 2 * SPREAD * yard.random.random()
        server_s = (cost.server_s + cost.block_s * blocks) * varies
        if demand.signed is not None:
            server_s += yard.costs.configuration_s
        phone_s = (cost.phone_s + cost.block_s * blocks) * varies
        stage.server_cpu_s += server_s
        stage.phone_cpu_s += phone_s
        cores = yard.free_at(node)
        arrives_s = now_s + yard.costs.round_trip_s / 2
        done_s = max(arrives_s, cores[0]) + ((server_s + phone_s) / OVERLAP if yard.shared else server_s)
        heapreplace(cores, done_s)
        return done_s + yard.costs.round_trip_s / 2 + (0.0 if yard.shared else phone_s)

    def _push(self, moment_s: float, walk: _Walk, *, late: bool) -> None:
        self._made += 1
        heappush(self._events, (moment_s, self._made, walk, late))
