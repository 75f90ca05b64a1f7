"""The lab as a process: started, waited for, ended, and never left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_cucmlab.client import LabError

READY_WITHIN_S: Final = 120.0
END_WITHIN_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.02
TAIL_LINES: Final = 30


class LabProcess:
    """`cucm-lab up` in `folder`, which exists and is empty. It ends when this process does, however that ends.

    Unless `keep`, it takes `folder` with it, also when nobody is left to tidy up behind it.
    """

    def __init__(self, folder: Path, topology: str, words: Sequence[str], *, keep: bool) -> None:
        self.folder = folder
        self.directory = folder / "lab" if keep else folder
        self.keep = keep
        self._log = folder / "up.log"
        self._log.touch(mode=0o600)
        self._log_file = self._log.open("rb")  # is read also when the lab has taken it away
        self._ready_file = folder / "ready.json"
        self._process = self._start(topology, words)
        try:
            self.ready = self._wait()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        return str(self.ready["api"])

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def log(self, start: int = 0) -> str:
        """What the process has printed, from a place (`log_length`) on."""
        self._log_file.seek(start)
        return self._log_file.read().decode("utf-8", "replace")

    @property
    def log_length(self) -> int:
        return os.fstat(self._log_file.fileno()).st_size

    def stop(self) -> None:
        """End it in order; by force when it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()  # it listens to that
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log_file.close()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)  # where it was ended by force

    def _start(self, topology: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        # -P and no PYTHONPATH: a folder `lab` or `cucm` of the user's own must not come before the lab's
        command = [sys.executable, "-P", "-m", "lab.cli", "up", topology, "--until-stdin-ends", *words]
        command += ["--directory", str(self.directory), "--ready-file", str(self._ready_file)]
        if not self.keep:
            command.append("--temporary")
        if "--network" not in words:
            command += ["--network", "auto"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 (our own words)
                command, cwd=self.folder, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def _wait(self) -> Mapping[str, Any]:
        ends = time.monotonic() + READY_WITHIN_S
        while not self._ready_file.exists():
            if self._process.poll() is not None:
                raise LabError(f"the lab did not start (exit code {self._process.returncode})\n{self._tail()}")
            if time.monotonic() > ends:
                raise LabError(f"the lab was not ready within {READY_WITHIN_S:.0f} s\n{self._tail()}")
            time.sleep(LOOK_AGAIN_S)
        ready: Mapping[str, Any] = json.loads(self._ready_file.read_bytes())
        return ready

    def _tail(self) -> str:
        return "\n".join(self.log().splitlines()[-TAIL_LINES:])
