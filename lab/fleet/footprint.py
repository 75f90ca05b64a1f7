"""What a process with many phones takes from the machine, and what it may take."""

from __future__ import annotations

import ctypes
import gc
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from typing import Final

from cucm.errors import EnvironmentProblem
from cucm.machine import raise_descriptor_limit
from lab.fleet.request import FleetRequest
from lab.topology import Topology
from tftp_server.transfer_port import FILES_PER_PORT, MAX_IDLE_PORTS, RESTING_PORTS

OF_A_PROCESS: Final = 100
"""Descriptors of a process besides what is counted here: Python's own, the loop's, DHCP, SFTP, files of a moment."""
OF_A_CLUSTER: Final = 12
OF_A_NODE: Final = 16
"""Its database's files, listeners, replication; of a call server of another make, less. Measured are 22 for a cluster
of one node, and 9 to 15 for each other one."""
OF_A_WORKER: Final = 3
"""In the servers' process: the socket to it, and its watcher."""
OF_A_BOOT: Final = (4, 3)
"""Of a phone that boots, at the servers' end and at its own: a transfer, DHCP, TVS, what is being closed."""
OF_RESTING_PORTS: Final = 2 * (RESTING_PORTS + 1)
"""Of a node that serves files."""
_FILES_FOR_KEPT_PORTS: Final = FILES_PER_PORT // 2
_ROLLUP: Final = Path("/proc/self/smaps_rollup")


def private_bytes() -> int:
    """Memory that this process has written and shares with nobody, without garbage; 0 where the system does not tell.

    Not clean pages of files: those of a library are private until a second process maps it, and would then be a gain.
    """
    _give_back()
    try:
        lines = _ROLLUP.read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Swap:")))


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


def require_descriptors(request: FleetRequest, topology: Topology) -> None:
    """Raises EnvironmentProblem, with what would do, when a process would need more open files than it may have.

    Of a Dask cluster's workers nothing is known here, and their phones come and go by the batch.
    """
    if request.scheduler is not None:
        return
    limit = raise_descriptor_limit()
    servers, phones = descriptors(request, topology)
    if max(servers, phones) <= limit:
        return
    needed, which = max((servers, "the servers' process"), (phones, "a process of phones"))
    mends = [f"raise the limit (ulimit -n {needed})"]
    fits = _most_phones(request, topology, limit)
    if fits:
        mends.append(f"ask for at most {fits} phones")
    if request.workers == 0 and max(descriptors(replace(request, workers=1), topology)) <= limit:
        mends.insert(0, "give phones processes of their own (--workers 1)")
    raise EnvironmentProblem(
        f"{request.phones} phones need {needed} open files in {which}, this machine allows {limit}",
        where="--phones",
        mend="; or ".join(mends),
    )


def descriptors(request: FleetRequest, topology: Topology) -> tuple[int, int]:
    """Open files of the servers' process, and of the largest other process: no more than these, whatever happens."""
    booting = min(request.concurrency, request.phones)
    at_servers, at_phones = (booting * count for count in OF_A_BOOT)
    servers = _at_rest(topology) + OF_A_WORKER * request.processes + request.phones + at_servers
    if request.processes == 0:
        return _with_kept_ports(servers + request.phones + at_phones), 0
    share = -(-request.phones // request.processes)
    return _with_kept_ports(servers), OF_A_PROCESS + share + at_phones


def _at_rest(topology: Topology) -> int:
    clusters, others = topology.clusters.values(), len(topology.plain_servers)
    nodes = sum(len(cluster.nodes) for cluster in clusters)
    serving = sum("TFTP" in cluster.services_of(node) for cluster in clusters for node in cluster.nodes)
    of_servers = OF_A_CLUSTER * len(clusters) + OF_A_NODE * (nodes + others) + OF_RESTING_PORTS * (serving + others)
    return OF_A_PROCESS + of_servers


def _with_kept_ports(needed: int) -> int:
    """And two sockets for each port that file servers keep, which are fewer where fewer files may be open."""
    return needed + min(2 * MAX_IDLE_PORTS, -(-needed // (_FILES_FOR_KEPT_PORTS - 1)))


def _most_phones(request: FleetRequest, topology: Topology, limit: int) -> int:
    def needed(phones: int) -> int:
        return max(descriptors(replace(request, phones=phones), topology))

    return bisect_right(range(1, request.phones + 1), limit, key=needed)
