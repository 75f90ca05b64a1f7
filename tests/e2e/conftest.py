from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import count
from pathlib import Path

import pytest
from own_block import OWN_BLOCK

from lab.log_book import LogBook
from lab.runtime import Lab, LabOptions
from lab.scenario import Story, StoryResult, load_story, play

NETWORKS = count(os.getpid() * 7)


@pytest.fixture
def network() -> IPv4Network:
    """A /24 that no other test uses at the same time: labs run side by side."""
    return IPv4Network(f"127.{OWN_BLOCK}.{next(NETWORKS) % 250 + 1}.0/24")


@dataclass(frozen=True)
class Played:
    result: StoryResult
    lab: Lab
    book: LogBook


Play = Callable[[str | Story], Awaitable[Played]]


@pytest.fixture
def play_story(tmp_path: Path, network: IPv4Network) -> Play:
    """Plays a story, by name or as a value, on a lab of its own."""

    async def played(story: str | Story) -> Played:
        name, loaded = load_story(story) if isinstance(story, str) else ("of the test", story)
        return Played(*await play(name, loaded, LabOptions(tmp_path / "lab", network)))

    return played


@pytest.fixture(scope="session")
def migrate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `cucm-lab run migrate --out` leaves, made by the command itself."""
    folder = tmp_path_factory.mktemp("migrate") / "out"
    network = f"127.{OWN_BLOCK}.{251 + os.getpid() % 3}.0/24"
    words = ["run", "migrate", "--out", str(folder), "--network", network]
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli", *words], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
