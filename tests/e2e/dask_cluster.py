"""Looks at a Dask cluster from outside, for `test_fleet_on_dask`: `python dask_cluster.py SCHEDULER STEP look|hold`.

Waits for two workers, prints `ready`, waits until a worker runs a batch of the fleet's step STEP, prints that worker's
process id, waits until no worker runs anything, and prints `idle`. With `hold` the worker stands still (SIGSTOP) when
its process id is printed, in a batch of which the fleet has heard that it began: there is no other moment in which it
can be killed and the batch is certain to be begun again.
"""

from __future__ import annotations

import os
import signal
import sys

from distributed import Client
from distributed.worker import Worker

WORKERS = 2


def running(dask_worker: Worker) -> list[str]:
    return [str(task.key) for task in dask_worker.state.executing]


def main(scheduler: str, step: str, manner: str) -> None:
    with Client(scheduler, timeout=30) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        processes = client.run(os.getpid)
        print("ready", flush=True)
        if manner == "hold":
            print(hold_one(client, step, processes), flush=True)
        else:
            print(processes[wait_for_step(client, step)[0]], flush=True)
        while any(client.run(running, on_error="ignore").values()):
            pass
        print("idle", flush=True)


def wait_for_step(client: Client, step: str) -> tuple[str, str]:
    """The worker, and the batch that it runs."""
    while True:
        for worker, keys in client.run(running).items():
            for key in keys:
                if f"-{step}-" in key[len("cucm-fleet-") :]:
                    return str(worker), key


def hold_one(client: Client, step: str, processes: dict[str, int]) -> int:
    while True:
        worker, key = wait_for_step(client, step)
        os.kill(processes[worker], signal.SIGSTOP)
        if key in client.processing()[worker] and has_begun(client, key):
            return processes[worker]
        os.kill(processes[worker], signal.SIGCONT)


def has_begun(client: Client, key: str) -> bool:
    fleet, _step, number = key.rsplit("-", 2)
    heard = (told for _moment, told in client.get_events(fleet))
    return any(told.get("began") and told["batch"] == int(number) for told in heard)


if __name__ == "__main__":
    main(*sys.argv[1:])
