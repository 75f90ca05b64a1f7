"""`python -m bench.fleet`: fleets of 100, 1,000 and 10,000 phones, next to the crypto floor of the same runs.

Writes docs/fleet.json and the table of docs/howto/large-fleets.md. Every phone has to arrive, or nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cucm.whole_files import write_whole
from lab.fleet.sizing import PhoneCost, minutes

ROOT: Final = Path(__file__).parents[1]
DATA: Final = ROOT / "docs" / "fleet.json"
PAGE: Final = ROOT / "docs" / "howto" / "large-fleets.md"
BEGIN: Final = "<!-- measured by python -m bench.fleet: begin -->"
END: Final = "<!-- measured by python -m bench.fleet: end -->"
SIZES: Final = (100, 1000, 10_000)
DEADLINE_S: Final = 3600
HEAD: Final = (
    "phones",
    "arrived",
    "boot, s",
    "migration, s",
    "whole run, s",
    "predicted, s",
    "CPU per phone, ms",
    "of this servers",
    "floor, ms",
    "times floor",
    "KiB per phone",
    "others' load",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if a phone of any fleet did not arrive."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=(__doc__ or "").partition("\n")[2])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of phones (default %(default)s)")
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1), help="processes for phones")
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    options = parser.parse_args(arguments)
    runs = []
    for size in map(int, options.sizes.split(",")):
        run = measure(size, options.workers)
        print(f"{size}: {run['arrived']} arrived, {run['cpu_ms_per_phone']} ms, {run['wall_s']} s", flush=True)
        runs.append(run)
    print(table(runs))
    if any(run["arrived"] != run["phones"] for run in runs):
        print("bench.fleet: phones were lost; nothing is written", file=sys.stderr)
        return 1
    if not options.dry:
        write_whole(
            DATA, json.dumps({"schema": 1, "processors": os.cpu_count(), "runs": runs}, indent=1).encode() + b"\n"
        )
        write_whole(PAGE, with_table(PAGE.read_text(encoding="utf-8"), table(runs)).encode())
    return 0


def measure(phones: int, workers: int) -> dict[str, Any]:
    """One run as a process of its own. Raises CalledProcessError, TimeoutExpired, ValueError."""
    began_s, busy_s = time.monotonic(), machine_busy_s()
    before = os.times()
    command = [sys.executable, "-m", "lab.cli", "fleet", "--phones", str(phones), "--workers", str(workers), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=DEADLINE_S, check=False)
    wall_s, after = time.monotonic() - began_s, os.times()
    result = json.loads(done.stdout)
    own_s = after.children_user + after.children_system - before.children_user - before.children_system
    cost = PhoneCost.of(result)
    boot, migration = result["stages"]
    return {
        "phones": phones,
        "workers": workers,
        "arrived": result["arrived"],
        "boot_s": boot["wall_s"],
        "migration_s": migration["wall_s"],
        "wall_s": result["wall_s"],
        "predicted_s": round(60 * minutes(cost, phones, 2, workers + 1), 1),
        "cpu_ms_per_phone": result["cpu_ms_per_phone"],
        "server_cpu_ms_per_phone": round(cost.server_ms, 3),
        "floor_ms_per_phone": result["floor_ms_per_phone"],
        "times_floor": result["times_floor"],
        "memory_per_phone": result["memory"] and round(result["memory"]["per_phone"]),
        "events_per_phone": round(sum(stage["events"] for stage in result["stages"]) / phones, 1),
        "p99_ms": {phase: known["p99_ms"] for phase, known in migration["latencies"].items()},
        "others_load": round(max(machine_busy_s() - busy_s - own_s, 0.0) / wall_s, 2),
    }


def machine_busy_s() -> float:
    """CPU seconds that all processes of the machine have used; 0 where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def table(runs: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            f"{run['phones']:,}",
            f"{run['arrived']:,}",
            f"{run['boot_s']:.1f}",
            f"{run['migration_s']:.1f}",
            f"{run['wall_s']:.1f}",
            f"{run['predicted_s']:.1f}",
            f"{run['cpu_ms_per_phone']:.2f}",
            f"{run['server_cpu_ms_per_phone']:.2f}",
            f"{run['floor_ms_per_phone']:.2f}",
            f"{run['times_floor']:.2f}",
            f"{(run['memory_per_phone'] or 0) / 1024:.0f}",
            f"{run['others_load']:.2f}",
        )
        for run in runs
    ]
    lines = [HEAD, tuple("---:" for _ in HEAD), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_table(page: str, text: str) -> str:
    """The page with what stands between its marks replaced. Raises ValueError without marks."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


if __name__ == "__main__":
    sys.exit(main())
