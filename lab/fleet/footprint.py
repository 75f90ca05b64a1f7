"""What a process with many phones takes from the machine, and what it may take."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Final

from cucm.errors import EnvironmentProblem
from cucm.net.descriptors import raise_descriptor_limit
from lab.fleet.request import FleetRequest

RESERVED: Final = 300
"""Descriptors of a process besides phones: listeners, databases, transfers, Python's own."""
PER_BOOT: Final = 3
"""Of a phone that boots: DHCP, a transfer at both ends, TVS."""
_ROLLUP: Final = Path("/proc/self/smaps_rollup")


def private_bytes() -> int:
    """Memory of this process that it shares with nobody, without garbage; 0 where the system does not tell."""
    _give_back()
    try:
        lines = _ROLLUP.read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Private_Clean:")))


def _give_back() -> None:
    """What lived only during handshakes leaves holes that the C library keeps to itself unless it is asked (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def fewer_collections() -> None:
    """What lives now lives to the end: the collector need not look at it, and looks more seldom at the rest.

    Phones are thousands of objects each and no garbage; looking through them again and again cost a fifth of the CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def require_descriptors(request: FleetRequest) -> None:
    """Raises EnvironmentProblem, with what would do, when a process would need more open files than it may have.

    Of a Dask cluster's workers nothing is known here, and their phones come and go by the batch.
    """
    if request.scheduler is not None:
        return
    limit = raise_descriptor_limit()
    servers, phones = descriptors(request)
    if max(servers, phones) <= limit:
        return
    needed, which = max((servers, "the servers' process"), (phones, "a process of phones"))
    fits = (limit - RESERVED - PER_BOOT * request.concurrency) // (2 if request.workers == 0 else 1)
    mends = [f"raise the limit (ulimit -n {needed + RESERVED})", f"ask for at most {max(fits, 1)} phones"]
    if request.workers == 0:
        mends.insert(0, "give phones processes of their own (--workers 1)")
    raise EnvironmentProblem(
        f"{request.phones} phones need {needed} open files in {which}, this machine allows {limit}",
        where="--phones",
        mend="; or ".join(mends),
    )


def descriptors(request: FleetRequest) -> tuple[int, int]:
    """Open files of the servers' process, and of the largest other process: one for each end of a registration."""
    booting = PER_BOOT * min(request.concurrency, request.phones)
    if request.workers == 0:
        return RESERVED + 2 * (request.phones + booting), 0
    share = -(-request.phones // request.processes)
    return RESERVED + request.phones + booting, RESERVED + share + booting
