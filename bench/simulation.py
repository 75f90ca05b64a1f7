"""What a simulated fleet predicts, next to the same fleet on sockets: seconds and CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.fleet_run import FleetRun, run_fleet
from bench.rounds import Figures, Table

SECONDS_TABLE: Final = "Simulated fleets, seconds of all boots"
CPU_TABLE: Final = "Simulated fleets, CPU ms per phone"
_NOTE: Final = (
    "The fleets above, and the same with `--simulate --one-machine` and this machine's cores, with the CPU of the run "
    "of 300 phones just before; story `migrate`, in which each phone boots twice. The prediction knows nothing of what "
    "else the machine does: where it is shared, compare CPU."
)


def tables(runs: Sequence[FleetRun], environment: Mapping[str, str], figures_file: Path) -> Iterator[Table]:
    """A row for each run, measured and predicted, and the one divided by the other."""
    seconds = Figures(SECONDS_TABLE, "s", notes=[_NOTE])
    cpu = Figures(CPU_TABLE, "ms")
    words = ("--simulate", "--one-machine", "--cores", str(os.cpu_count() or 1), "--figures", str(figures_file))
    for run in runs:
        predicted = run_fleet(environment, run.phones, *words)
        stages_s = sum(stage["wall_s"] for stage in predicted["stages"])
        for figures, on_sockets, simulated in (
            (seconds, run.boot_s + run.migration_s, stages_s),
            (cpu, run.cpu_ms_per_phone, predicted["cpu_ms_per_phone"]),
        ):
            figures.add(f"{run.name} on sockets", on_sockets)
            figures.add(f"{run.name} simulated", simulated)
            figures.add(f"{run.name}: simulated ÷ on sockets", simulated / on_sockets)
        if lost := run.phones - predicted["arrived"]:
            seconds.trouble["phones not at the target, simulated"] = lost
    yield seconds
    yield cpu
