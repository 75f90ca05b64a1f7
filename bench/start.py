"""How long things take to start, as whole processes in turn: `--help`, the lab to its first answer, a story."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.measurements import Bench
from bench.rounds import Figures, Table
from bench.servers import free_address
from cucm.key_store import CACHE_VARIABLE

CPU_TABLE: Final = "Start, CPU seconds"
WALL_TABLE: Final = "Start, wall seconds"
BARE: Final = "bare interpreter"
HELP: Final = "`cucm-lab --help`"
KEPT: Final = "lab to its first answer, kept keys, beyond the interpreter"
FRESH: Final = "lab to its first answer, fresh keys, beyond the interpreter"
MIGRATE: Final = "`cucm-lab run migrate`, kept keys"
DEADLINE_S: Final = 60.0
_ROOT: Final = Path(__file__).parents[1]
_NOTE: Final = (
    "Whole processes, in turn, byte code kept as after an installation. The lab is the two clusters of the technote, "
    "installed into an empty folder; its first answer is that of a TVS over TLS. The keys are eleven RSA-2048 and take "
    "about 60 ms of CPU each, on all cores. Wall time counts whatever else the machine does."
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one process."""

    wall_s: float
    cpu_s: float

    def beyond(self, other: Cost) -> Cost:
        return Cost(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


def start_tables(bench: Bench) -> Iterator[Table]:
    """CPU and wall seconds, each round one run of everything; the first run of all is not counted."""
    bench.report("Start")
    starts = _Starts(bench.material.folder / "starts")
    cpu, wall = Figures(CPU_TABLE, "s", digits=3, notes=[_NOTE]), Figures(WALL_TABLE, "s", digits=3)
    for number in range(bench.plan.migrations + 1):
        for row, cost in starts.round().items():
            if number:
                cpu.add(row, cost.cpu_s)
                wall.add(row, cost.wall_s)
    yield cpu
    yield wall


class _Starts:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment["PYTHONPYCACHEPREFIX"] = str(folder / "byte-code")

    def round(self) -> dict[str, Cost]:
        bare = self._whole([sys.executable, "-c", "pass"])
        return {
            BARE: bare,
            HELP: self._whole([sys.executable, "-m", "lab.cli", "--help"]),
            KEPT: self._first_query("kept-keys").beyond(bare),
            FRESH: self._first_query("fresh-keys", forget=True).beyond(bare),
            MIGRATE: self._whole([sys.executable, "-m", "lab.cli", "run", "migrate", "--network", _network()]),
        }

    def _whole(self, command: list[str], keys: str = "kept-keys") -> Cost:
        """Until the process has ended. Raises CalledProcessError, TimeoutExpired."""
        return self._timed(command, keys, lambda _printed: None)

    def _first_query(self, keys: str, *, forget: bool = False) -> Cost:
        """Until the process says that it has the answer."""
        lab = self._folder / "lab"
        for gone in (lab, self._folder / keys) if forget else (lab,):
            shutil.rmtree(gone, ignore_errors=True)
        began_s = time.monotonic()
        told: list[Cost] = []
        self._timed(
            [sys.executable, "-m", "bench.first_query", str(lab), _network()],
            keys,
            lambda printed: told.append(Cost(printed["monotonic_s"] - began_s, printed["cpu_s"])),
        )
        return told[0]

    def _timed(self, command: list[str], keys: str, read: Callable[[dict[str, float]], object]) -> Cost:
        before, began_s = os.times(), time.perf_counter()
        done = subprocess.run(
            command,
            env=self._environment | {CACHE_VARIABLE: str(self._folder / keys)},
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
        wall_s, after = time.perf_counter() - began_s, os.times()
        if done.stdout.startswith(b"{"):
            read(json.loads(done.stdout))
        used_s = after.children_user + after.children_system - before.children_user - before.children_system
        return Cost(wall_s, used_s)


def _network() -> str:
    return free_address().rpartition(".")[0] + ".0/24"
