"""What a block and a transfer cost, in operations and not in time; the bounds are in `tests/operation_bounds.py`."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import uvloop

from cucm.events import EventLog
from phone_agent.tftp_client import fetch_tftp
from tests import operation_bounds as bounds
from tftp_server.file_store import MappingStore
from tftp_server.udp import TftpLimits, TftpServer

ROOT = Path(__file__).parents[2]
FILES = {"small": b"x", "large": bytes(200 * 512)}
LARGE_BLOCKS = 200 * 512 // 512  # besides the last, which the small file has too
SMALL_FILES = 400  # so many that a few hundred calls more or less at the start do not matter
WARM_UP = 40
"""Transfers after which ports rest and are taken again."""


async def fetch(address: str, port: int, name: str, times: int, own: str) -> None:
    for _ in range(times):
        _, data = await fetch_tftp(address, name, port=port, local_address=own, timeout_s=20.0)
        assert data == FILES[name]


def system_calls(folder: Path, address: str, own: str, small: int, large: int) -> int:
    """Of a server's whole life in which it sends so many small and large files, its events traced into a file."""
    summary = folder / "strace"
    command = ["strace", "-f", "-c", "-o", str(summary), sys.executable, "-m", "bench.serve"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        order = {"kind": "files", "folder": str(folder / "files"), "address": address, "silent": False}
        server.stdin.write(json.dumps({**order, "log": str(folder / "log")}).encode() + b"\n")
        server.stdin.flush()
        port = json.loads(server.stdout.readline())["tftp"]
        asyncio.run(fetch(address, port, "small", WARM_UP + small, own))
        asyncio.run(fetch(address, port, "large", large, own))
        server.stdin.close()
        server.wait(60)
    total = re.search(r"^\s*100\.00\s+\S+\s+(?:\S+\s+)?(\d+)\s+(?:\d+\s+)?total$", summary.read_text(), re.MULTILINE)
    assert total is not None
    return int(total[1])


@pytest.mark.needs("strace")
def test_system_calls_of_a_block_and_of_a_transfer(loopback: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name, data in FILES.items():
        (tmp_path / "files" / name).write_bytes(data)
    address, own = loopback(), loopback()
    idle = system_calls(tmp_path, address, own, 0, 0)
    per_transfer = (system_calls(tmp_path, address, own, SMALL_FILES, 0) - idle) / SMALL_FILES
    per_block = (system_calls(tmp_path, address, own, 0, 10) - idle - 10 * per_transfer) / (10 * LARGE_BLOCKS)
    assert 2 <= per_block <= bounds.TFTP_SYSTEM_CALLS_PER_BLOCK
    assert per_block < per_transfer <= bounds.TFTP_SYSTEM_CALLS_PER_TRANSFER


class Counted:
    """Calls of Python functions in some modules, in this thread."""

    def __init__(self, *folders: str) -> None:
        self.folders = tuple(str(ROOT / folder) for folder in folders)
        self.calls = 0

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(self.folders):
            self.calls += 1

    async def of(self, work: Coroutine[Any, Any, None]) -> int:
        before = self.calls
        await work
        return self.calls - before


async def count(address: str, own: str, counted: Counted) -> tuple[float, float]:
    """Per block, and per transfer of one block."""
    log = EventLog(retention=10)
    server = TftpServer(address, 0, MappingStore(FILES), emit=log.emitter("tftp"), limits=TftpLimits())
    server.start()
    try:
        await fetch(address, server.port, "small", WARM_UP, own)
        await fetch(address, server.port, "large", 1, own)
        sys.setprofile(counted)
        small = await counted.of(fetch(address, server.port, "small", 20, own)) / 20
        large = await counted.of(fetch(address, server.port, "large", 2, own)) / 2
    finally:
        sys.setprofile(None)
        server.stop()
    return (large - small) / LARGE_BLOCKS, small


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_python_calls_of_a_block_and_of_a_transfer(
    loopback: Callable[[], str], new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        both, all_of_it = runner.run(count(loopback(), loopback(), Counted("tftp_server", "cucm", "phone_agent")))
        phone, of_phone = runner.run(count(loopback(), loopback(), Counted("phone_agent")))
    assert 1 <= phone <= bounds.PHONE_PYTHON_CALLS_PER_BLOCK
    assert 1 <= both - phone <= bounds.TFTP_PYTHON_CALLS_PER_BLOCK
    assert all_of_it - of_phone <= bounds.TFTP_PYTHON_CALLS_PER_TRANSFER
