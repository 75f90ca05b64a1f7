"""What runs on Dask's workers: batches of phones, each a task.

Functions of this module are named in what goes over Dask's connections, so a worker needs the same version of this
distribution; `describe_worker` tells.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from distributed import get_worker

from cucm.machine import raise_descriptor_limit
from cucm.program import run
from cucm.records import dataclass
from lab.fleet.batch import Batch, BatchResult, PhoneFinding, run_batch
from lab.fleet.exposure import PART_VARIABLE, Part

TELL_EVERY_S: Final = 0.5
DISTRIBUTION: Final = "cucm-migration-lab"


@dataclass(frozen=True, slots=True)
class WorkerDescription:
    """`machine` differs between machines, and between networks of one: those that agree share their loopback."""

    version: str
    machine: str
    phones: str | None
    """Which addresses its phones may take, if they do not take those of the fleet (`lab.fleet.exposure`)."""


def describe_worker() -> WorkerDescription:
    return WorkerDescription(version(DISTRIBUTION), machine_identity(), os.environ.get(PART_VARIABLE))


def machine_identity() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/net').readlink()}"


class _UnderWay:
    """The batches that threads of this process run, so that a fleet can call its own off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[asyncio.Task[BatchResult], tuple[str, asyncio.AbstractEventLoop]] = {}

    def enter(self, fleet: str, task: asyncio.Task[BatchResult]) -> None:
        with self._lock:
            self._tasks[task] = fleet, asyncio.get_running_loop()

    def leave(self, task: asyncio.Task[BatchResult]) -> None:
        with self._lock:
            self._tasks.pop(task, None)

    def call_off(self, fleet: str) -> None:
        with self._lock:
            for task, (whose, loop) in self._tasks.items():
                if whose == fleet:
                    loop.call_soon_threadsafe(task.cancel)


_under_way = _UnderWay()


def call_off(fleet: str) -> None:
    """Ends what this process runs for a fleet; its phones lose their power. Run on every worker by the crew."""
    _under_way.call_off(fleet)


def perform_batch(fleet: str, batch: Batch, *, exposed: bool = False) -> BatchResult:
    """The task. `fleet` is also the topic on which the batch tells that it began, and how far it is.

    It runs in a thread of the worker, on an event loop of its own, so the worker goes on answering the scheduler.
    `exposed`: phones take addresses of this worker.
    """
    raise_descriptor_limit()
    get_worker().log_event(fleet, {"batch": batch.number, "began": True})
    teller = _Teller(fleet, batch.number)
    if not exposed:
        return run(_perform(fleet, batch, teller))
    with _part().lend(len(batch.states)) as addresses:
        result = run(_perform(fleet, _with_addresses(batch, addresses), teller))
    for state in batch.states:  # what comes back is of the fleet, not of this worker
        result.states[state.name] = replace(result.states[state.name], phone=state.phone)
    return result


@cache
def _part() -> Part:
    return Part(IPv4Network(os.environ[PART_VARIABLE]))


def _with_addresses(batch: Batch, addresses: Sequence[str]) -> Batch:
    states = (
        replace(state, phone=replace(state.phone, sends_from=address))
        for state, address in zip(batch.states, addresses, strict=True)
    )
    return replace(batch, states=tuple(states))


async def _perform(fleet: str, batch: Batch, teller: _Teller) -> BatchResult:
    task = asyncio.ensure_future(run_batch(batch, on_done=teller))
    _under_way.enter(fleet, task)
    try:
        return await task
    finally:
        _under_way.leave(task)


class _Teller:
    """Hears of each phone that is done, and tells the fleet now and then."""

    def __init__(self, fleet: str, batch: int) -> None:
        self._fleet = fleet
        self._batch = batch
        self._done = 0
        self._told_s = time.monotonic()

    def __call__(self, _name: str, _finding: PhoneFinding) -> None:
        self._done += 1
        if time.monotonic() - self._told_s >= TELL_EVERY_S:
            self._told_s = time.monotonic()
            get_worker().log_event(self._fleet, {"batch": self._batch, "done": self._done})
