"""What a simulated fleet predicts, next to the same fleet on sockets: seconds and CPU, of 1,000 and 10,000 phones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.measurements import Bench
from bench.rounds import Figures, Table
from cucm.key_store import CACHE_VARIABLE

SECONDS_TABLE: Final = "Simulated fleets, seconds of all boots"
CPU_TABLE: Final = "Simulated fleets, CPU ms per phone"
SIZES: Final = (1_000, 10_000)
QUICK_SIZES: Final = (500,)
FIGURES_OF: Final = 300
"""Phones of the run on sockets whose CPU the predictions take for theirs."""
QUICK_ROUNDS: Final = 2
"""A run of so many rounds and fewer is a look."""
DEADLINE_S: Final = 900.0
_ROOT: Final = Path(__file__).parents[1]
_NOTE: Final = (
    "`cucm-lab fleet --phones N`, and the same with `--simulate --one-machine` and this machine's cores, with the "
    "CPU of a run of 300 phones just before; story `migrate`, in which each phone boots twice. One run of each size. "
    "The prediction knows nothing of what else the machine does: where it is shared, compare CPU."
)


def simulation_tables(bench: Bench) -> Iterator[Table]:
    """A row for each size, measured and predicted, and the one divided by the other."""
    bench.report("Simulated fleets")
    seconds = Figures(SECONDS_TABLE, "s", notes=[_NOTE])
    cpu = Figures(CPU_TABLE, "ms")
    environment = os.environ | {CACHE_VARIABLE: str(bench.material.folder / "fleet-keys")}
    figures_folder = bench.material.folder / "fleet-figures"
    _fleet(environment, FIGURES_OF, "--out", str(figures_folder))
    for size in SIZES if bench.plan.rounds > QUICK_ROUNDS else QUICK_SIZES:
        measured = _fleet(environment, size)
        predicted = _fleet(
            environment,
            size,
            "--simulate",
            "--one-machine",
            *("--cores", str(os.cpu_count() or 1)),
            *("--figures", str(figures_folder / "fleet.json")),
        )
        for figures, read in ((seconds, _seconds_of), (cpu, _cpu_of)):
            on_sockets, simulated = read(measured), read(predicted)
            figures.add(f"{size} phones on sockets", on_sockets)
            figures.add(f"{size} phones simulated", simulated)
            figures.add(f"{size} phones: simulated ÷ on sockets", simulated / on_sockets)
        for name, result in (("on sockets", measured), ("simulated", predicted)):
            if result["arrived"] != size:
                seconds.trouble[f"phones not at the target, {name}"] = size - result["arrived"]
    yield seconds
    yield cpu


def _fleet(environment: dict[str, str], phones: int, *words: str) -> dict[str, Any]:
    """Raises CalledProcessError where it could not run, TimeoutExpired."""
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli", "fleet", "--phones", str(phones), "--json", *words],
        env=environment,
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=DEADLINE_S,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _seconds_of(result: dict[str, Any]) -> float:
    return float(sum(stage["wall_s"] for stage in result["stages"]))


def _cpu_of(result: dict[str, Any]) -> float:
    return float(result["cpu_ms_per_phone"])
