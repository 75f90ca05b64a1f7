"""A fleet on two machines: servers, Dask scheduler and `cucm-lab fleet` here, the worker and its phones at the other
end of a wire. Both are network namespaces of the test's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from network_namespace import HERE, THERE, Neighbour, ip, run_apart

SCHEDULER = f"tcp://{HERE}:8786"
DASK = (sys.executable, "-m", "dask")
PHONES = 24
PATIENCE_S = 200

pytestmark = pytest.mark.timeout(PATIENCE_S + 40)


async def phones_on_the_other_machine(directory: Path) -> None:
    setting_up = f"ip route add local 10.66.1.0/24 dev lo && ip route add 192.168.11.0/24 via {HERE}"
    worker = f"{' '.join(DASK)} worker {SCHEDULER} --host {THERE} --nthreads 1 --no-nanny --no-dashboard"
    script = f"{setting_up} && CUCM_LAB_PHONES=10.66.1.0/24 exec {worker} --local-directory {directory}/dask"
    async with Neighbour(["sh", "-c", script], directory, address=THERE):
        ip("route add local 192.168.11.0/24 dev lo")
        ip(f"route add 10.66.0.0/16 via {THERE}")
        scheduler = await asyncio.create_subprocess_exec(
            *DASK, "scheduler", "--host", HERE, "--port", "8786", "--no-dashboard", stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await fleet(exit_code=3, wanted="on another machine", words=())
            exposed = ("--network", "192.168.11.0/24", "--expose", "10.66.0.0/16")
            told = json.loads(await fleet(exit_code=0, wanted="WARNING: the servers of this fleet", words=exposed))
            assert (told["arrived"], told["stranded"]) == (PHONES, 0)
            wrong = ("--network", "192.168.11.0/24", "--expose", "10.67.0.0/16")
            await fleet(exit_code=3, wanted="CUCM_LAB_PHONES=10.66.1.0/24 is not in 10.67.0.0/16", words=wrong)
        finally:
            scheduler.kill()
            await scheduler.wait()


async def fleet(*, exit_code: int, wanted: str, words: tuple[str, ...]) -> bytes:
    """What it prints; on stderr it must say `wanted`."""
    command = (sys.executable, "-m", "lab.cli", "fleet", "--phones", str(PHONES), "--scheduler", SCHEDULER, "--json")
    process = await asyncio.create_subprocess_exec(
        *command, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ
    )
    out, trouble = await process.communicate()
    assert process.returncode == exit_code, trouble.decode()
    assert wanted in trouble.decode()
    return out


def test_phones_live_on_the_other_machine(tmp_path: Path) -> None:
    run_apart(phones_on_the_other_machine, tmp_path, patience_s=PATIENCE_S)
