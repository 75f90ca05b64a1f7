"""Rounds in turn: every contender of a group is loaded once per round, in rotating order; ratios per round."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.fleet_run import FleetTable
from bench.load import Bounds, LoadResult
from bench.machine import machine_cpu_s
from bench.servers import Server

NOISY_CORES: Final = 0.25
"""CPU that neither server nor load used; a run with more of it is repeated, and the quietest is kept."""
OURS: Final = "ours"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long everything goes on. `floor_s` is CPU time per floor and round; `fleets` are numbers of phones. A run
    that others disturb is made up to `attempts` times.
    """

    rounds: int
    run: Bounds
    file_run: Bounds
    warm_up_s: float
    floor_s: float
    migrations: int
    memory_rounds: int
    herd_rounds: int
    attempts: int
    fleets: tuple[int, ...]
    fleet_runs: int


FULL: Final = Plan(7, Bounds(1.2, 20_000, 32), Bounds(1.0, 50_000, 50), 0.3, 0.2, 7, 3, 7, 3, (100, 1_000, 10_000), 3)
QUICK: Final = Plan(2, Bounds(0.4, 5_000, 32), Bounds(0.3, 5_000, 50), 0.1, 0.1, 2, 1, 1, 1, (100, 1_000), 1)


@dataclass(frozen=True, slots=True)
class Contender:
    """A server under load. `counts_cpu`: whether its CPU time can be read for all it does. `label`: its row's name,
    where the same server is loaded in two ways.
    """

    server: Server
    load: Callable[[Bounds], LoadResult]
    counts_cpu: bool = True
    label: str | None = None

    @property
    def name(self) -> str:
        return self.label or self.server.name


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender's run in one round. CPU in milliseconds per operation; None where it cannot be read.

    `per_s` is what was done before the time was up; `to_last_per_s` all that was done, by the time until the last
    operation that had been begun was done or given up.
    """

    done: int
    per_s: float
    to_last_per_s: float
    server_cpu_ms: float | None
    load_cpu_ms: float
    p50_ms: float
    p99_ms: float
    server_busy: float | None
    other_cores: float | None
    retransmissions: int
    repeats: int
    failures: dict[str, int]


@dataclass(slots=True)
class Group:
    """A table: samples by contender, one per round; `floors` by name, CPU milliseconds per operation and round."""

    title: str
    operation: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    floors: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def series(self, row: str, quantity: str) -> list[float | None]:
        """A contender's values, or a floor's, one per round; empty when there is no such row.

        `quantity` is a field of `Sample`, or `failures` (their number). A floor has `server_cpu_ms` only.
        """
        if row in self.floors:
            return list(self.floors[row]) if quantity == "server_cpu_ms" else []
        if quantity == "failures":
            return [float(sum(sample.failures.values())) for sample in self.samples.get(row, [])]
        return [getattr(sample, quantity) for sample in self.samples.get(row, [])]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"type": "load", **asdict(self)}

    def failures(self) -> Counter[str]:
        """Everything that went wrong in all runs, by kind."""
        total: Counter[str] = Counter()
        for sample in (sample for samples in self.samples.values() for sample in samples):
            total.update(sample.failures)
        return total

    def noisy_runs(self) -> int:
        """Runs that were kept though something else used the machine."""
        kept = (sample for samples in self.samples.values() for sample in samples)
        return sum((sample.other_cores or 0.0) > NOISY_CORES for sample in kept)


@dataclass(slots=True)
class Figures:
    """A table of single values: for each row one per round, in `unit`."""

    title: str
    unit: str
    values: dict[str, list[float | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    trouble: dict[str, int] = field(default_factory=dict)
    digits: int = 2

    def add(self, row: str, value: float | None) -> None:
        self.values.setdefault(row, []).append(value)

    def series(self, row: str, _quantity: str = "value") -> list[float | None]:
        return list(self.values.get(row, []))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"type": "figures", **asdict(self)}

    def failures(self) -> Counter[str]:
        """What went wrong, by kind."""
        return Counter(self.trouble)


Table = Group | Figures | FleetTable


def run_rounds(
    group: Group,
    contenders: Sequence[Contender],
    plan: Plan,
    bounds: Bounds,
    floors: Callable[[], dict[str, float]] = dict,
) -> None:
    """Warm everything up, then fill the group; `floors` is measured at the start of each round."""
    for contender in contenders:
        contender.load(Bounds(plan.warm_up_s, bounds.operations, bounds.concurrency))
    for number in range(plan.rounds):
        for name, cost_ms in floors().items():
            group.floors.setdefault(name, []).append(cost_ms)
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            group.samples.setdefault(contender.name, []).append(_quietest(contender, bounds, plan.attempts))
    group.samples = {contender.name: group.samples[contender.name] for contender in contenders}


def _quietest(contender: Contender, bounds: Bounds, attempts: int) -> Sample:
    best = _sample(contender, bounds)
    for _ in range(attempts - 1):
        if (best.other_cores or 0.0) <= NOISY_CORES or best.failures:
            break  # a failure is a result: it is not measured away
        again = _sample(contender, bounds)
        if (again.other_cores or 0.0) < (best.other_cores or 0.0) or again.failures:
            best = again
    return best


def _sample(contender: Contender, bounds: Bounds) -> Sample:
    machine_s, server_s, load_s = machine_cpu_s(), contender.server.cpu_s(), time.process_time()
    begins_s = time.perf_counter()
    result = contender.load(bounds)
    wall_s = time.perf_counter() - begins_s
    load_s = time.process_time() - load_s + (result.cpu_s or 0.0)
    used_s = _difference(contender.server.cpu_s(), server_s) if contender.counts_cpu else None
    busy_s = _difference(machine_cpu_s(), machine_s)
    others_s = None if used_s is None or busy_s is None else max(0.0, busy_s - used_s - load_s)
    done = max(1, result.done)
    return Sample(
        done=result.done,
        per_s=result.per_s,
        to_last_per_s=result.to_last_per_s,
        server_cpu_ms=None if used_s is None else 1000 * used_s / done,
        load_cpu_ms=1000 * load_s / done,
        p50_ms=result.latency_ms(0.5),
        p99_ms=result.latency_ms(0.99),
        server_busy=None if used_s is None else used_s / wall_s,
        other_cores=None if others_s is None else others_s / wall_s,
        retransmissions=result.retransmissions,
        repeats=result.repeats,
        failures=dict(result.failures),
    )


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of a number of rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """None if there is no value, or one is missing."""
        known = [value for value in values if value is not None]
        if not known or len(known) != len(values):
            return None
        return cls(statistics.median(known), min(known), max(known))


def ratios(ours: Sequence[float | None], others: Sequence[float | None]) -> Spread | None:
    """Ours divided by the other's, round by round."""
    return Spread.of([a / b if a is not None and b else None for a, b in zip(ours, others, strict=True)])
