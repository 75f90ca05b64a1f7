from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).parent.parent.parent


class CucmLab(Protocol):
    def __call__(
        self, *words: str | Path, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def cucm_lab() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command as a process of its own, with a deadline."""

    def run(*words: str | Path, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[Any]:
        done = subprocess.run(
            [sys.executable, "-m", "lab.cli", *map(str, words)],
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONWARNINGS": "error"} | environment,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
