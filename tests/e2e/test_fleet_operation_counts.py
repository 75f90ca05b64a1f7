"""What one phone of a fleet costs, in operations and not in time; the bounds are in `tests/operation_bounds.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import operation_bounds as bounds
from lab_on_sockets import network_of

from lab.fleet.engine import Fleet
from lab.fleet.plan import make_plan
from lab.fleet.progress import Progress
from lab.fleet.request import FleetRequest
from lab.fleet.result import FleetResult

PHONES = 12
RESIDENTS = 200
ROOT = Path(__file__).parents[2]


class Calls:
    """Counts Python functions that are called between `begin` and `end`."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _frame: FrameType, event: str, _argument: object) -> None:
        self.count += event == "call"


async def played(loopback: Callable[[], str], phones: int) -> FleetResult:
    request = FleetRequest(phones, concurrency=4)
    result = await Fleet(request, make_plan(request), network_of(loopback), Progress()).play()
    assert result.is_good, result.reasons()
    return result


async def test_a_phones_boot_and_migration_tell_no_more_events_than_now(loopback: Callable[[], str]) -> None:
    boot, migration = (await played(loopback, PHONES)).stages
    assert 0 < boot.events / PHONES <= bounds.FLEET_EVENTS_PER_BOOT
    assert 0 < migration.events / PHONES <= bounds.FLEET_EVENTS_PER_MIGRATION


async def test_one_phone_more_calls_no_more_functions_than_now(loopback: Callable[[], str]) -> None:
    """The difference between two fleets: what clusters cost is in both, what a process's first costs in none."""
    await played(loopback, 2)
    counts = []
    for phones in (2, 2 + PHONES):
        calls = Calls()
        sys.setprofile(calls)
        try:
            await played(loopback, phones)
        finally:
            sys.setprofile(None)
        counts.append(calls.count)
    assert 0 < (counts[1] - counts[0]) / PHONES <= bounds.FLEET_PYTHON_CALLS_PER_PHONE


def test_a_phone_that_is_registered_takes_no_more_memory_than_now() -> None:
    """In processes of their own: what other tests have left in this one would be reused unseen."""
    words = ("fleet", "--phones", str(RESIDENTS), "--workers", "1", "--json")
    done = subprocess.run(
        (sys.executable, "-m", "lab.cli", *words), cwd=ROOT, capture_output=True, timeout=280, check=True
    )
    memory = json.loads(done.stdout)["memory"]
    assert memory["phones"] == RESIDENTS
    assert 0 < memory["at_phones"] < memory["per_phone"] <= 1024 * bounds.FLEET_KIB_PER_PHONE
