"""A lab's process is killed while it goes back to a checkpoint: the folder holds all of the old or of the new state."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from lab_on_sockets import PHONE

from lab.lab_folder import LabFolder, Wishes
from lab.runtime import Lab

ROOT = Path(__file__).parents[2]
ROUNDS = 12
CHILD = """
import asyncio, sys
from ipaddress import IPv4Network
from pathlib import Path
from lab.lab_folder import LabFolder, Wishes
from lab.running_lab import RunningLab
from lab.runtime import Lab

async def main():
    directory, network, value = sys.argv[1:]
    with LabFolder(Path(directory)) as folder:
        folder.keep()
        described, clock = folder.describe(Wishes(network=IPv4Network(network))), folder.clock()
        lab = Lab(described.topology, described.options(folder.directory), clock=clock)
        running = RunningLab(lab, clock)
        await running.start()
        for cluster in lab.clusters.values():
            cluster.set_parameter("value", value)
        lab.dhcp.set_option_66(value)
        (folder.directory / "sftp" / "files" / "value").write_text(value)
        clock.move(float(value) * 1e6 - clock.moved_s)
        lab.events.subscribe(lambda record: print(record.event.kind, flush=True))
        await running.reset()
        await asyncio.Event().wait()  # to be killed

asyncio.run(main())
"""


def kill_in_restore(directory: Path, network: IPv4Network, value: int, after_s: float | None) -> None:
    """`after_s` it began; None: when it is over."""
    words = [str(directory), str(network), str(value)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, *words], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    awaited = "lab.restored\n" if after_s is None else "lab.restoring\n"
    with child.stdout:
        assert any(line == awaited for line in child.stdout)
        with suppress(subprocess.TimeoutExpired):  # the instant of the kill is a random one
            child.wait(after_s or 0)
        child.send_signal(signal.SIGKILL)
    child.wait(30)


async def value_of(directory: Path, network: IPv4Network) -> str:
    """What every part of the lab says when it is opened again."""
    with LabFolder(directory) as folder:
        assert folder.is_resumed
        described, clock = folder.describe(Wishes(network=network)), folder.clock()
        async with Lab(described.topology, described.options(directory), clock=clock) as lab:
            values = {cluster.publisher.database.parameter("value") or "" for cluster in lab.clusters.values()}
            kept = directory / "sftp" / "files" / "value"
            values |= {lab.dhcp.pools["Default"].option_66, kept.read_text() if kept.exists() else ""}
            values.add(str(round(clock.moved_s / 1e6) or ""))
            await lab.phone(PHONE).boot()
            assert lab.is_registered(PHONE)
    (value,) = values
    hidden = {path.name for path in directory.iterdir() if path.name.startswith((".", "restore"))}
    assert hidden == set()
    return value


@pytest.mark.timeout(300)
async def test_a_lab_killed_while_it_goes_back_has_the_old_or_the_new_state(
    tmp_path: Path, network: IPv4Network
) -> None:
    draw, directory, before = random.Random(8), tmp_path / "lab", ""
    instants = [None, 0.0, *(draw.uniform(0, 0.15) for _ in range(ROUNDS - 2))]
    for number, instant in enumerate(instants, start=1):
        kill_in_restore(directory, network, number, instant)
        after = await value_of(directory, network)
        assert after in (before, str(number))
        if instant is None:
            assert after == before
        before = after
