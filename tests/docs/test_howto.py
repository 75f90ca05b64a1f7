"""The examples of docs/howto are run as they stand; the page quotes them as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.api.client import ApiClient

pytestmark = pytest.mark.timeout(300)  # whole suites, each test with a lab

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
MIGRATOR = HOWTO / "example-migrator"
PAGE = (HOWTO / "test-your-tool.md").read_text(encoding="utf-8")
PATIENCE_S = 280
CAUGHT = (
    "test_a_subscriber_that_replication_does_not_reach",
    "test_a_row_that_was_lost_on_the_way",
    "test_a_tvs_that_does_not_vouch",
    "test_a_rogue_dhcp_server",
)
"""Tests that the first attempt fails."""


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_") and name != "PYTHONPATH"
    }
    scripts = Path(sys.executable).parent
    return kept | {"PATH": f"{scripts}{os.pathsep}{kept.get('PATH', os.defpath)}"} | more


def try_migrator(*words: str, tool: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    done = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(MIGRATOR), "test_migrate.py", *words],
        cwd=MIGRATOR,
        env=environment(MIGRATOR=tool, PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_migrator_stands_every_fault() -> None:
    code, said = try_migrator(tool="migrate.py")
    assert code == 0, said[-4000:]
    assert len(re.findall(r"^PASSED ", said, re.MULTILINE)) >= 16


def test_the_first_attempt_is_caught() -> None:
    code, said = try_migrator(tool="first_attempt.py")
    assert code == 1
    assert "PASSED test_migrate.py::test_the_phone_moves" in said, "on a good day it works"
    for name in CAUGHT:
        assert f"FAILED test_migrate.py::{name}" in said
    assert len(re.findall(r"^FAILED ", said, re.MULTILINE)) == 11, "as the page says"
    for line in ("assert (0, False) == (2, True)", 'phone.trust_list_refused trust_list="ITL"'):
        assert line in said
        assert line in PAGE


@pytest.mark.needs("curl")
def test_the_shell_example() -> None:
    done = subprocess.run(
        ["sh", str(HOWTO / "example-shell.sh")], env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("stayed at the source\n")
    assert "tvs-certificate-not-found" in done.stdout
    assert done.stdout.endswith("moved\n")


@pytest.fixture
def running_lab(tmp_path: Path) -> Iterator[str]:
    directory = tmp_path / "lab"
    command = [sys.executable, "-m", "lab.cli", "up", "--detach", "--network", "auto", "--directory", str(directory)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    lab = ApiClient(directory)
    endpoints = lab.get("endpoints")["endpoints"]
    yield next(one["url"] for one in endpoints if one["service"] == "API")
    lab.post("shutdown", body={})


@pytest.mark.needs("node")
def test_the_javascript_example(running_lab: str) -> None:
    command = ["node", str(HOWTO / "example.mjs"), running_lab]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (0, "as expected\n"), done.stderr


def test_the_page_quotes_the_files() -> None:
    files = "".join(path.read_text(encoding="utf-8") for path in HOWTO.rglob("*") if path.suffix in (".py", ".sh"))
    quoted = re.findall(r"^```(?:python|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(quoted) >= 5
    for text in quoted:
        assert text in files
