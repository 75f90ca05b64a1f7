"""A lab's process, nodes and phone in it, is killed at random instants of a migration; afterwards all goes on.

The instants are drawn from a seed: the number of events that the process has told of when SIGKILL comes.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cucm.trust import anchors_of, verify_trust_list
from cucm.wire.trust_list import decode_trust_list
from lab.operations import AnyOperation
from lab.runtime import Lab, LabOptions
from lab.scenario import load_story
from lab.topology import load_topology

PHONE = "SEPB000B4BA0AEE"
ROOT = Path(__file__).parents[2]
ROUNDS = 6
CHILD = """
import asyncio, sys
from ipaddress import IPv4Network
from pathlib import Path
from lab.runtime import Lab, LabOptions
from lab.scenario import load_story
from lab.topology import load_topology

async def main():
    _, story = load_story("migrate")
    lab = Lab(load_topology(story.topology), LabOptions(Path(sys.argv[1]), IPv4Network(sys.argv[2])))
    lab.events.subscribe(lambda record: print(record.event.kind, flush=True))
    async with lab:
        for act in story.acts:
            for step in act.steps:
                await lab.perform(step)

asyncio.run(main())
"""


def kill_after(events: int, directory: Path, network: IPv4Network) -> int:
    """Let the migration run in a process of its own until it has told of so many events; how many were told."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), str(network)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    with child.stdout:
        told = sum(1 for _ in zip(range(events), child.stdout, strict=False))
        child.send_signal(signal.SIGKILL)
    child.wait(30)
    return told


def require_whole(directory: Path) -> None:
    """Every database is consistent and every list is whole and signed, as the kill left them."""
    for path in directory.rglob("node.db"):
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.close()
    for path in directory.glob("clusters/*/*/tftp/*.tlv"):
        if not path.name.startswith("."):
            data = path.read_bytes()
            verify_trust_list(data, anchors_of(decode_trust_list(data), path.name))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [3, 11])
async def test_a_migration_is_completed_after_kills_at_random_instants(
    seed: int, tmp_path: Path, network: IPv4Network
) -> None:
    draw = random.Random(seed)
    directory, told = tmp_path / "lab", 0
    for _ in range(ROUNDS):
        told += kill_after(draw.randrange(1, 90), directory, network)
        require_whole(directory)
    assert told > ROUNDS  # it did get somewhere
    _, story = load_story("migrate")
    async with Lab(load_topology(story.topology), LabOptions(directory, network)) as lab:
        contents = lab.phone(PHONE).flash.contents
        for held in (contents.ctl, contents.itl):
            if held is not None:
                verify_trust_list(held, anchors_of(decode_trust_list(held), "flash"))
        steps: list[AnyOperation] = [step for act in story.acts for step in act.steps]  # type: ignore[valid-type]
        for step in steps:
            await lab.perform(step)
        assert lab.cluster("destination").registered_devices == {PHONE}
        assert lab.served.node_of(lab.phone(PHONE).flash.contents.ctl or b"") == "ucm11pub"
    require_whole(directory)
