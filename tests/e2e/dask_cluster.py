"""Looks at a Dask cluster from outside, for `test_fleet_on_dask`: `python dask_cluster.py SCHEDULER STEP`.

Waits for two workers, prints `ready`, waits until a worker runs a batch of the fleet's step STEP, prints that worker's
process id, waits until no worker runs anything, and prints `idle`.
"""

from __future__ import annotations

import os
import sys

from distributed import Client
from distributed.worker import Worker

WORKERS = 2


def running(dask_worker: Worker) -> list[str]:
    return [str(task.key) for task in dask_worker.state.executing]


def main(scheduler: str, step: str) -> None:
    with Client(scheduler, timeout=30) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        processes = client.run(os.getpid)
        print("ready", flush=True)
        print(processes[wait_for_step(client, step)], flush=True)
        while any(client.run(running, on_error="ignore").values()):
            pass
        print("idle", flush=True)


def wait_for_step(client: Client, step: str) -> str:
    while True:
        for worker, keys in client.run(running).items():
            if any(f"-{step}-" in key[len("cucm-fleet-") :] for key in keys):
                return str(worker)


if __name__ == "__main__":
    main(*sys.argv[1:])
