from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from own_block import FOR_MIGRATE_FOLDER, drawn

from lab.log_book import LogBook
from lab.runtime import Lab, LabOptions
from lab.scenario import Story, StoryResult, load_story, play


@pytest.fixture
def network() -> IPv4Network:
    """A /24 that no other test uses at the same time: labs run side by side."""
    return drawn()


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
    words = ["run", "migrate", "--out", str(folder), "--network", str(FOR_MIGRATE_FOLDER)]
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli", *words], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
