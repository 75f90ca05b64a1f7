"""A lab that is killed while faults are in force goes on without them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from lab_on_sockets import network_of

from lab.disturbed_settings import DISTURBED_NAME
from lab.lab_folder import LabFolder, Wishes
from lab.running_lab import RunningLab
from lab.runtime import Lab

ROOT = Path(__file__).parents[2]
CHILD = """
import asyncio, sys
from ipaddress import IPv4Network
from pathlib import Path
from lab.lab_folder import LabFolder, Wishes
from lab.running_lab import RunningLab
from lab.runtime import Lab

async def main():
    with LabFolder(Path(sys.argv[1])) as folder:
        folder.keep()
        described, clock = folder.describe(Wishes("subscriber", IPv4Network(sys.argv[2]))), folder.clock()
        running = RunningLab(Lab(described.topology, described.options(folder.directory), clock=clock), clock)
        await running.start(phones=False)
        for cluster in running.lab.clusters.values():
            for link in cluster.replication.status():
                cluster.replication.set_lag(link.node, 5)
        await running.move_clock(1000)
        for fault in (
            {"point": "replication.link", "action": "lag", "attributes": {"seconds": 500}},
            {"point": "replication.link", "action": "pause"},
            {"point": "lab.clock", "action": "jump", "attributes": {"seconds": 1e7}},
            {"point": "node.machine", "action": "crash"},
            {"point": "service.port", "action": "blackhole"},
        ):
            await running.set_fault(fault)
        if "restored" in sys.argv:
            await running.restore("start")
        print("set", flush=True)
        await asyncio.Event().wait()  # to be killed

asyncio.run(main())
"""


def kill_with_faults(directory: Path, network: IPv4Network, *words: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), str(network), *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "set\n"
        child.send_signal(signal.SIGKILL)
    child.wait(30)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("words", "lag_s", "moved_s"), [((), 5, 1000), (("restored",), 0, 0)])
async def test_a_killed_lab_goes_on_as_its_administrators_had_it(
    tmp_path: Path, loopback: Callable[[], str], words: tuple[str, ...], lag_s: float, moved_s: float
) -> None:
    directory, network = tmp_path / "lab", network_of(loopback)
    kill_with_faults(directory, network, *words)
    assert (directory / DISTURBED_NAME).exists() == (not words)
    with LabFolder(directory) as folder:
        described, clock = folder.describe(Wishes()), folder.clock()
        running = RunningLab(Lab(described.topology, described.options(directory), clock=clock), clock)
        await running.start(phones=False)
        try:
            clusters = running.lab.clusters.values()
            links = [link for cluster in clusters for link in cluster.replication.status()]
            assert links
            assert [(link.lag_s, link.paused) for link in links] == [(lag_s, False)] * len(links)
            assert clock.moved_s == pytest.approx(moved_s, abs=600)
            nodes = [node for cluster in clusters for node in cluster.nodes.values()]
            assert all(node.is_up and node.runs(service) for node in nodes for service in node.services)
        finally:
            await running.stop()
    assert not (directory / DISTURBED_NAME).exists()
