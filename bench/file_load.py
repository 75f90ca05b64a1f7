"""TFTP and HTTP load by a client in C (`file_client.c`), compiled when the benchmark runs; every byte is compared.

Not the lab's phone: its client has a phone's manners. A client in Python would need more CPU than the servers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.load import Bounds, LoadResult
from bench.servers import Server, Unavailable

DEFAULT_BLOCK_BYTES: Final = 512
"""RFC 1350; any other size is asked for by the option of RFC 2348."""
_LONGEST_S: Final = 120.0
"""A client gives up after 63 s of silence; a herd's last one may begin to be served just before."""
_COMPILE_S: Final = 60.0
_MISSING: Final = "the file load client needs gcc and the C library's headers (Debian: gcc libc6-dev)"


@dataclass(frozen=True, slots=True)
class FileCase:
    """One file, and by which block size it goes over TFTP; None is HTTP."""

    name: str
    path: Path
    block_bytes: int | None = DEFAULT_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class FileClient:
    """The compiled client."""

    program: Path

    @classmethod
    def build(cls, folder: Path) -> FileClient:
        """Compile it into `folder`. Raises Unavailable."""
        program, source = folder / "file_client", Path(__file__).with_name("file_client.c")
        if shutil.which("gcc") is None:
            raise Unavailable(_MISSING)
        command = ["gcc", "-O2", "-o", str(program), str(source)]
        if subprocess.run(command, capture_output=True, timeout=_COMPILE_S, check=False).returncode:
            raise Unavailable(_MISSING)
        return cls(program)

    def load(self, server: Server, case: FileCase, bounds: Bounds) -> LoadResult:
        """One run: `bounds.concurrency` at a time, each on a socket of its own. With as many operations as clients all
        ask at the same instant, once.
        """
        protocol = "http" if case.block_bytes is None else "tftp"
        command = [str(self.program), protocol, server.address, str(server.ports[protocol]), case.name, str(case.path)]
        command += [str(case.block_bytes or 0), str(bounds.concurrency), str(bounds.operations), str(bounds.seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=bounds.seconds + _LONGEST_S, check=True)
        return _outcome(json.loads(done.stdout), bounds)


def _outcome(said: dict[str, Any], bounds: Bounds) -> LoadResult:
    result = LoadResult(said["done"], Counter(said["failures"]), said["retransmissions"], said["repeats"])
    result.lost_requests = said["lost_requests"]
    result.wall_s, result.cpu_s = said["wall_s"], said["cpu_s"]
    result.latencies_s = [microseconds / 1e6 for microseconds in said["latencies_us"]]
    result.in_time, result.window_s = said["done_in_time"], min(bounds.seconds, result.wall_s)
    return result
