"""Fleets on sockets by size, next to the crypto floor of the same runs, and what two models say of them.

Every figure comes from one set of runs: the table of the bench page and of docs/howto/large-fleets.md, the prediction
of the sizing model, and that of `--simulate`. Both models take their costs from a smaller fleet just before.
`python -m bench.fleet` prints the table and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import simulation
from bench.fleet_run import FleetRun, FleetTable, row_name, run_fleet
from bench.goals import FLAT, FLEET_TABLE
from bench.measurements import Bench, Report
from bench.report import table
from bench.rounds import FULL, NOISY_CORES, QUICK, Plan, Table
from bench.servers import Unavailable
from cucm.errors import EnvironmentProblem
from cucm.key_store import CACHE_VARIABLE
from lab.fleet.sizing import PhoneCost, minutes

COSTS_OF: Final = 300
"""Phones of the fleet whose costs the models take for those of all others."""
ONE_RUN_FROM: Final = 5_000
"""A fleet of so many phones is its own mean; of smaller ones the run in the middle of a few is taken."""
WARM_UP: Final = 5
_NODES: Final = 2
"""Of the clusters of the story `migrate`."""
_NOTE: Final = (
    "`cucm-lab fleet --phones N --workers W --json` with one processor left to the servers: a process for both "
    "clusters, the others for phones. Both boots of the story `migrate`: all files, both trust lists, TVS, "
    "registration at both clusters. Of fleets of fewer than 5,000 phones the run whose CPU is in the middle of {runs}, "
    "or one that lost phones. "
    "The floor is the CPU of the TLS handshakes (both ends), signatures and verifications that the run's own events "
    "tell of, measured in the same run. Predicted: the sizing model (`lab.fleet.sizing`) with the costs of a fleet of "
    "300 just before. Others' load: processors that other work of the machine kept busy; in a whole bench a run with "
    "more than {noisy:g} is repeated once. Where it is not near 0, seconds say little, and CPU times are too long. "
    'The goal\'s "flat" is taken to mean: a phone among 10,000 costs at most {flat:g} times the CPU of one among 100.'
)


def fleet_tables(bench: Bench, costs_of: int = COSTS_OF) -> Iterator[Table]:
    """The table of fleets, then those of the simulated ones; the models learn from one of `costs_of` phones."""
    try:
        runs = FleetRuns(bench.material.folder, bench.report, bench.plan, costs_of)
    except Unavailable as reason:
        bench.lacks("fleets", reason)
        return
    fleets = runs.table()
    for phones in bench.plan.fleets:
        try:
            fleets.runs.append(runs.row(phones))
        except Unavailable as reason:  # 10,000 may be too many where 1,000 are not
            bench.lacks(row_name(phones), reason)
    yield fleets
    yield from simulation.tables(fleets.runs, runs.environment, runs.figures)


class FleetRuns:
    """Keys are made in a first, small fleet and kept in `folder`, so that no other waits for them; `figures` is the
    report of the fleet that the models take their costs from. Raises Unavailable where not even these run.
    """

    def __init__(self, folder: Path, report: Report, plan: Plan, costs_of: int = COSTS_OF) -> None:
        self.environment = os.environ | {CACHE_VARIABLE: str(folder / "fleet-keys")}
        self.figures = folder / "fleet.json"
        self._report = report
        self._plan = plan
        self._processors = os.cpu_count() or 1
        self._workers = max(self._processors - 1, 1)
        run_fleet(self.environment, WARM_UP)
        costs = self._middle(costs_of)
        self.figures.write_text(json.dumps(costs), encoding="utf-8")
        self._cost = PhoneCost.of(costs)

    def table(self) -> FleetTable:
        """Without a row yet."""
        return FleetTable(FLEET_TABLE, notes=[_NOTE.format(runs=self._plan.fleet_runs, noisy=NOISY_CORES, flat=FLAT)])

    def row(self, phones: int) -> FleetRun:
        """Run it. Raises Unavailable where this machine cannot carry so many."""
        predicted_s = 60 * minutes(self._cost, phones, _NODES, self._processors)
        return FleetRun.of(self._middle(phones), predicted_s)

    def _middle(self, phones: int) -> Mapping[str, Any]:
        count = 1 if phones >= ONE_RUN_FROM else self._plan.fleet_runs
        return middle([self._quieter(phones) for _ in range(count)])

    def _quieter(self, phones: int) -> Mapping[str, Any]:
        """Of two runs at most: those of many phones take a minute."""
        first = self._run(phones)
        is_quiet = (first["others_load"] or 0.0) <= NOISY_CORES
        if is_quiet or self._plan.attempts == 1 or first["arrived"] < phones:
            return first
        return quieter(first, self._run(phones))

    def _run(self, phones: int) -> Mapping[str, Any]:
        self._report(f"Fleets, {phones} phones")
        return run_fleet(self.environment, phones, "--workers", str(self._workers))


def middle(reports: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The one whose CPU is in the middle; of those that lost phones, if any did: no loss is measured away."""
    counted = [one for one in reports if _has_lost(one)] or reports
    return sorted(counted, key=lambda one: float(one["cpu_ms_per_phone"]))[len(counted) // 2]


def quieter(first: Mapping[str, Any], second: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of two fleets the one beside which the machine did less else, or that lost phones."""
    lossy = [one for one in (first, second) if _has_lost(one)]
    return lossy[0] if lossy else min(first, second, key=lambda one: float(one["others_load"] or 0.0))


def _has_lost(report: Mapping[str, Any]) -> bool:
    return bool(report["arrived"] < report["request"]["phones"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if a phone of any fleet did not arrive; 3 where this machine cannot carry one."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    usual = ",".join(map(str, FULL.fleets))
    parser.add_argument("--sizes", default=usual, help="numbers of phones (default %(default)s)")
    options = parser.parse_args(arguments)
    try:
        sizes = [int(size) for size in options.sizes.split(",")]
    except ValueError:
        parser.error(f"--sizes: {options.sizes!r} is no list of numbers, for example 100,1000")
    with tempfile.TemporaryDirectory(prefix="cucm-bench-") as folder:
        try:
            runs = FleetRuns(Path(folder), lambda text: print(f"... {text}", file=sys.stderr), QUICK)
            fleets = runs.table()
            fleets.runs += [runs.row(size) for size in sizes]
        except Unavailable as reason:
            print(f"bench.fleet: {reason}", file=sys.stderr)
            return EnvironmentProblem.exit_code
    print(table(fleets))
    return 1 if fleets.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
