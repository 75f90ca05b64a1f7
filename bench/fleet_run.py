"""A fleet as a whole process: `cucm-lab fleet`, what its report told, and how busy the machine was besides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.machine import machine_cpu_s
from bench.servers import Unavailable

DEADLINE_S: Final = 3600.0
MEMORY_FROM: Final = 500
_HEAD: Final = (
    "phones",
    "lost",
    "boot, s",
    "migration, s",
    "whole run, s",
    "predicted, s",
    "predicted ÷ measured",
    "CPU per phone, ms",
    "of it servers",
    "floor, ms",
    "CPU ÷ floor",
    "KiB per phone, both ends",
    "of it the phone's",
    "others' load",
)
_ROOT: Final = Path(__file__).parents[1]


def run_fleet(environment: Mapping[str, str], phones: int, *words: str) -> dict[str, Any]:
    """The report of `cucm-lab fleet --json`, with `others_load`: processors that other work kept busy meanwhile, None
    where the system does not tell. Raises Unavailable, with what the command said, where it cannot run here;
    TimeoutExpired.
    """
    command = [sys.executable, "-m", "lab.cli", "fleet", "--phones", str(phones), "--json", *words]
    began_s, machine_s, before = time.monotonic(), machine_cpu_s(), os.times()
    done = subprocess.run(
        command,
        env=environment,
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=DEADLINE_S,
        check=False,
    )
    wall_s, machine_after_s, after = time.monotonic() - began_s, machine_cpu_s(), os.times()
    if done.returncode not in (0, 1):  # 1: not every phone arrived, which the report tells
        raise Unavailable(_said(done.stdout))
    own_s = after.children_user + after.children_system - before.children_user - before.children_system
    known = machine_s is not None and machine_after_s is not None
    others = max(machine_after_s - machine_s - own_s, 0.0) / wall_s if known else None  # type: ignore[operator]
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"others_load": others}


def _said(output: bytes) -> str:
    try:
        error = json.loads(output)["error"]
        return f"{error['what']}; {error['mend']}"
    except (ValueError, LookupError, TypeError):
        return "the command failed without a word"


@dataclass(frozen=True, slots=True)
class FleetRun:
    """One row: seconds of the clock, CPU milliseconds per phone of both ends together, bytes. `predicted_s` is what
    the sizing model says of `wall_s`; `memory_per_phone` is that of both ends, `memory_at_phones` the phone's of it.
    """

    phones: int
    workers: int
    arrived: int
    boot_s: float
    migration_s: float
    wall_s: float
    predicted_s: float
    cpu_ms_per_phone: float
    server_cpu_ms_per_phone: float
    floor_ms_per_phone: float
    times_floor: float | None
    memory_per_phone: float | None
    events_per_phone: float
    p99_ms: dict[str, float]
    others_load: float | None
    memory_at_phones: float | None = None

    @classmethod
    def of(cls, result: Mapping[str, Any], predicted_s: float) -> FleetRun:
        """Of what `run_fleet` told of a story with two boots. Raises KeyError, ValueError for another."""
        boot, migration = result["stages"]
        phones = result["request"]["phones"]
        memory = result["memory"]
        return cls(
            phones=phones,
            workers=result["request"]["workers"],
            arrived=result["arrived"],
            boot_s=boot["wall_s"],
            migration_s=migration["wall_s"],
            wall_s=result["wall_s"],
            predicted_s=predicted_s,
            cpu_ms_per_phone=result["cpu_ms_per_phone"],
            server_cpu_ms_per_phone=1000 * (boot["server_cpu_s"] + migration["server_cpu_s"]) / phones,
            floor_ms_per_phone=result["floor_ms_per_phone"],
            times_floor=result["times_floor"],
            memory_per_phone=memory and memory["per_phone"],
            events_per_phone=(boot["events"] + migration["events"]) / phones,
            p99_ms={phase: known["p99_ms"] for phase, known in migration["latencies"].items()},
            others_load=result["others_load"],
            memory_at_phones=memory and memory["at_phones"],
        )

    @property
    def name(self) -> str:
        return row_name(self.phones)

    @property
    def lost(self) -> int:
        return self.phones - self.arrived

    @property
    def kib_per_phone(self) -> float | None:
        """None where the system does not tell; of too few phones, what the first ones cost once would be most of it."""
        return self._kib(self.memory_per_phone)

    @property
    def kib_at_phones(self) -> float | None:
        """Of it the phone's own end; None also where phones have no process of their own."""
        return self._kib(self.memory_at_phones)

    def _kib(self, octets: float | None) -> float | None:
        return None if octets is None or self.phones < MEMORY_FROM else octets / 1024

    @property
    def predicted_of_measured(self) -> float:
        return self.predicted_s / self.wall_s


def row_name(phones: int) -> str:
    return f"{phones:,} phones"


@dataclass(slots=True)
class FleetTable:
    """Fleets by size; one run of each is a row."""

    title: str
    runs: list[FleetRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self, row: str, quantity: str) -> list[float | None]:
        """A field or property of the runs of that name: one, or none."""
        return [getattr(run, quantity) for run in self.runs if run.name == row]

    def rows(self) -> list[tuple[str, ...]]:
        """For people: the head, then a row for each run."""
        return [_HEAD, *(_row(run) for run in self.runs)]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"type": "fleets", **asdict(self)}

    def failures(self) -> Counter[str]:
        """Phones that are not where they should be."""
        return +Counter({"phones lost": sum(run.lost for run in self.runs)})


def _row(run: FleetRun) -> tuple[str, ...]:
    return (
        f"{run.phones:,}",
        str(run.lost),
        f"{run.boot_s:.1f}",
        f"{run.migration_s:.1f}",
        f"{run.wall_s:.1f}",
        f"{run.predicted_s:.1f}",
        f"{run.predicted_of_measured:.2f}",
        f"{run.cpu_ms_per_phone:.2f}",
        f"{run.server_cpu_ms_per_phone:.2f}",
        f"{run.floor_ms_per_phone:.2f}",
        _or_dash(run.times_floor, 2),
        _or_dash(run.kib_per_phone, 0),
        _or_dash(run.kib_at_phones, 0),
        _or_dash(run.others_load, 2),
    )


def _or_dash(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
