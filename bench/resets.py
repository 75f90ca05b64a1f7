"""A lab that stays: how long it takes to start with its phones registered, and to go back to there."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from bench.servers import free_address
from cucm.errors import LabError
from cucm.program import run
from lab.lab_folder import LabFolder, Wishes
from lab.running_lab import RunningLab
from lab.runtime import Lab

TOPOLOGIES: Final = ("two-clusters", "campus")
RESETS: Final = 10


@dataclass(slots=True)
class Resets:
    """Seconds in one process, of one topology; every phone was registered again each time."""

    topology: str
    nodes: int = 0
    phones: int = 0
    starts_s: list[float] = field(default_factory=list)
    resets_s: list[float] = field(default_factory=list)
    trouble: str | None = None


def measure_resets(folder: Path, resets: int = RESETS) -> list[Resets]:
    """What cannot be measured is told in `trouble`."""
    return [_measured(topology, folder / f"resets {topology}", resets) for topology in TOPOLOGIES]


def _measured(topology: str, directory: Path, resets: int) -> Resets:
    network = IPv4Network(free_address().rpartition(".")[0] + ".0/24")
    try:
        with LabFolder(directory) as folder:
            return run(_measure(folder, Wishes(topology, network), resets))
    except (LabError, TimeoutError) as error:
        return Resets(topology, trouble=f"{topology} could not be measured: {error}")


async def _measure(folder: LabFolder, wishes: Wishes, resets: int) -> Resets:
    described, clock = folder.describe(wishes), folder.clock()
    lab = Lab(described.topology, described.options(folder.directory), clock=clock)
    running = RunningLab(lab, clock)
    nodes = sum(len(cluster.nodes) for cluster in described.topology.clusters.values())
    found = Resets(str(wishes.topology), nodes, len(described.topology.phones))
    begins_s = time.perf_counter()
    await running.start()
    found.starts_s.append(time.perf_counter() - begins_s)
    try:
        for _ in range(resets):
            begins_s = time.perf_counter()
            async with asyncio.timeout(60):
                different = await running.reset()
            found.resets_s.append(time.perf_counter() - begins_s)
            if different:
                found.trouble = f"{', '.join(different)} did not come back"
    finally:
        await running.stop()
    return found
