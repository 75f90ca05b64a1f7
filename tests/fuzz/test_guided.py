"""What CI's minute of atheris says, and that a finding is not passed over; skipped where atheris is not installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from what_is_missing import lacking

ROOT = Path(__file__).parents[2]
PLANTED = """
import tests.fuzz.targets as targets
def run(data):
    if data[:1] == b"!":
        raise ZeroDivisionError("planted")
targets.TARGETS = (targets.Target("planted", run, lambda: [b"?"]), targets.Target("sound", len, lambda: [b"?"]))
from tests.fuzz.guided import main
raise SystemExit(main("2", "planted", "sound"))
"""


def test_a_finding_is_told_and_fails_and_the_next_target_is_run() -> None:
    if find_spec("atheris") is None:
        lacking("atheris is not installed (extra fuzz); `make fuzz` installs it")
    done = subprocess.run([sys.executable, "-c", PLANTED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "planted: NOT CLEAN",
        "sound: clean",
        "atheris: 2 targets, 1 not clean: planted",
    ]
    assert "planted: input 21" in done.stderr
    assert "ZeroDivisionError: planted" in done.stderr


def test_ci_fuzzes_and_goes_on_to_pytest() -> None:
    steps = subprocess.run(
        ["make", "-n", "test", "FUZZ_SECONDS=7"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert 0 < steps.index("tests.fuzz --seconds 7") < steps.index("-m pytest")
    without = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "tests.fuzz" not in without.replace(" tests.fuzz --seconds 60", "")
