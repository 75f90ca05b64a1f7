"""A simulation with the figures of one's own machine: those of a fleet that ran on its sockets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from cucm.errors import UsageError
from cucm.records import dataclass
from lab.fleet.calibration import MEASURED, Calibration
from lab.fleet.plan import make_plan
from lab.fleet.progress import Progress
from lab.fleet.queueing import Machines
from lab.fleet.request import FleetRequest
from lab.fleet.simulation import Simulation

MAX_FILE: Final = 256 * 1024 * 1024
MOST_COMPARED: Final = 200
"""Phones of the small simulation that the run is compared with: what one costs does not depend on their number."""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """CPU milliseconds per phone that a fleet on sockets took; 0 for phones that lived with the servers."""

    request: FleetRequest
    servers_ms: float
    phones_ms: float


_MEND: Final = "give the fleet.json of a `cucm-lab fleet --phones N --out DIR` on sockets, in which every phone arrived"


def read_run(path: Path) -> MeasuredRun:
    """The `fleet.json` that `cucm-lab fleet --out` left. Raises UsageError for anything else."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), mend=_MEND) from error
    return decode_run(data, str(path))


def decode_run(data: bytes, where: str) -> MeasuredRun:
    """Raises UsageError for what is not the JSON of a fleet."""
    if len(data) > MAX_FILE:
        raise UsageError(f"more than {MAX_FILE} bytes", where=where, mend=_MEND)
    try:
        told = json.loads(data)
        request = FleetRequest(**told["request"] | {"scheduler": None})
        request.check()
        return _measured(told, request)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UsageError(f"is no result of a fleet: {error}", where=where, mend=_MEND) from error


def _measured(told: dict[str, Any], request: FleetRequest) -> MeasuredRun:
    if told["mode"] != "sockets" or told["arrived"] != request.phones:
        raise ValueError("it did not run on sockets, or did not come to a good end")
    servers, phones = (
        1000 * sum(float(stage[name]) for stage in told["stages"]) / request.phones
        for name in ("server_cpu_s", "phone_cpu_s")
    )
    if not 0 < servers < 1e6 or not 0 <= phones < 1e6:
        raise ValueError("it does not say how much CPU it took")
    return MeasuredRun(request, servers, phones)


def figures_of(run: MeasuredRun, network: IPv4Network) -> Calibration:
    """Figures with which a simulation of that run takes the CPU that it took. Raises LabError."""
    request = replace(run.request, phones=min(run.request.phones, MOST_COMPARED))
    machines = Machines(shared=True, costs=MEASURED)
    result = asyncio.run(Simulation(request, make_plan(request), network, Progress(), machines).play())
    servers, phones = (
        1000 * sum(getattr(stage, name) for stage in result.stages) / request.phones
        for name in ("server_cpu_s", "phone_cpu_s")
    )
    if not run.phones_ms:  # all in one process
        factor = run.servers_ms / (servers + phones)
        return MEASURED.scaled(factor, factor)
    return MEASURED.scaled(run.servers_ms / servers, run.phones_ms / phones)
