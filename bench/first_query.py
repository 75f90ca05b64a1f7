"""A process of its own for `bench.start`: the two-cluster lab from nothing until its first TVS query is answered.

`python -m bench.first_query FOLDER NETWORK`, with the key cache named by `CUCM_LAB_CACHE`, prints as JSON the moment
of the answer (`time.monotonic()`) and the CPU seconds that the process had used then.
"""

from __future__ import annotations

import gc

gc.set_threshold(200_000)  # as `cucm-lab` does while it imports
# ruff: noqa: E402

import json
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from cucm.program import run
from cucm.roles import CertificateUnit
from lab.runtime import Lab, LabOptions
from lab.topology import load_topology
from phone_agent.commands import QueryTvs, TvsAnswer, TvsServer
from phone_agent.tvs_client import TvsClient

TOPOLOGY: Final = "two-clusters"
TVS_PORT: Final = 2445
_SESSION: Final = 1001


async def first_query(folder: Path, network: IPv4Network) -> dict[str, float]:
    """Start the lab and ask the first node that has a TVS about its own CallManager certificate."""
    async with Lab(load_topology(TOPOLOGY), LabOptions(folder, network)) as lab:
        node = next(node for cluster in lab.clusters.values() for node in cluster.nodes_running("TVS"))
        asked = node.identity(CertificateUnit.CALLMANAGER)
        answer = await TvsClient().query(
            QueryTvs(
                TvsServer(node.address, TVS_PORT, 0),
                _SESSION,
                "CP-8861-SEPB000B4BA0AEE",
                asked.subject,
                asked.issuer,
                asked.serial,
                (node.certificate(CertificateUnit.TVS),),
            )
        )
        moment = {"monotonic_s": time.monotonic(), "cpu_s": time.process_time()}
    if not isinstance(answer, TvsAnswer) or answer.certificate != asked.certificate_der:
        raise SystemExit(f"the first query was not answered: {answer}")
    return moment


if __name__ == "__main__":
    print(json.dumps(run(first_query(Path(sys.argv[1]), IPv4Network(sys.argv[2])))))
