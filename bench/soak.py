"""`python -m bench.soak`: phones that reset at random against every fault there is, for as long as is asked for.

Looks at memory, descriptors, tasks, databases and the folder all along, and at the numbers of the events. The verdict
is whether they stay where they are after a warm-up. What is done depends on the seed alone; only who is cut short
depends on the machine's pace.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any, Final

from bench.servers import free_address
from cucm.arguments import whole_number
from cucm.errors import LabError
from cucm.faults.board import FaultStatus
from cucm.faults.catalogue import POINTS
from cucm.program import run
from lab.api.client import ApiClient
from lab.api.server import ApiServer
from lab.lab_folder import LabFolder, Wishes
from lab.operation_words import operation_of
from lab.running_lab import RunningLab
from lab.runtime import Lab

HITS: Final = 2
"""Of a fault, so that a phone comes to its end."""
WITNESS_S: Final = 10.0
WARM_UP_SHARE: Final = 0.3
SAMPLE_EVERY: Final = 10
"""Rounds."""
PATIENCE_S: Final = 3.0
"""For what a round does to phones or over SFTP. Who then still waits for its own deadline, because a peer is silent,
is cut short by a reset of the lab, which must find everything where it belongs all the same."""
NOWHERE: Final = "127.255.255.254"
ATTRIBUTES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("dhcp.request", "wrong-option-150"): {"servers": [NOWHERE]},
    ("dhcp.request", "rogue-server"): {"servers": [NOWHERE]},
    ("tcp.accept", "slow"): {"bytes_per_s": 20_000},
    ("tvs.request", "delay"): {"seconds": 0.2},
    ("tvs.response", "delay"): {"seconds": 0.2},
    ("tftp.packet", "delay"): {"seconds": 0.2},
    ("sip.request", "delay"): {"seconds": 0.2},
    ("http.response", "slow"): {"bytes_per_s": 20_000},
    ("http.response", "stall"): {"seconds": 2},
    ("replication.link", "lag"): {"seconds": 2},
}
"""What takes as long as it is told to takes little here."""
ALLOWED: Final = {"memory_mb": 0.10, "descriptors": 0.05, "tasks": 0.05, "folder_mb": 0.10, "databases_mb": 0.10}
"""How much the later half may lie above the earlier one, after the warm-up."""
FLOOR: Final = {"memory_mb": 4.0, "descriptors": 4.0, "tasks": 4.0, "folder_mb": 1.0, "databases_mb": 1.0}
"""Differences that are noise."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the lab takes after so many rounds; sizes in MiB."""

    rounds: int
    seconds: float
    memory_mb: float
    descriptors: int
    tasks: int
    folder_mb: float
    databases_mb: float
    events: int


@dataclass(slots=True)
class Soak:
    topology: str
    seed: int
    samples: list[Sample] = field(default_factory=list)
    resets: int = 0
    cut_short: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    """How many rounds each action hit something in, as `point action`."""
    refusals: int = 0
    missing_events: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def risen(self) -> list[str]:
        """Quantities that did not stay where they were, with both values."""
        settled = self.samples[int(len(self.samples) * WARM_UP_SHARE) :]
        early, late = settled[: len(settled) // 2], settled[len(settled) // 2 :]
        return [text for name in ALLOWED if early and late and (text := _rise(name, early, late))]

    @property
    def never_hit(self) -> list[str]:
        return [name for name in (f"{point} {action}" for point, action in rules()) if name not in self.hits]

    @property
    def is_flat(self) -> bool:
        return not (self.risen or self.missing_events or self.different)


def _rise(name: str, early: Sequence[Sample], late: Sequence[Sample]) -> str:
    before, after = (sum(getattr(one, name) for one in some) / len(some) for some in (early, late))
    limit = before + max(before * ALLOWED[name], FLOOR[name])
    return f"{name} rose from {before:.1f} to {after:.1f}" if after > limit else ""


class Witness(Thread):
    """Follows the event stream of the API as a program outside does, and counts the events it never saw."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self._client = ApiClient(directory)
        self.last: int | None = None
        self.missing = 0

    def run(self) -> None:
        with self._client.stream("events", "stream") as events:
            for event in events:
                if event.event_id:
                    self._see(int(event.event_id.rpartition("-")[2]))

    def _see(self, sequence: int) -> None:
        if self.last is not None:
            self.missing += max(0, sequence - self.last - 1)
        self.last = sequence


class Soaker:
    """One lab, and what befalls it."""

    def __init__(self, running: RunningLab, found: Soak) -> None:
        self._running = running
        self._found = found
        self._dice = Random(found.seed)
        self._deck: list[tuple[str, str]] = []
        self._moves = 0

    async def round(self) -> None:
        """A fault, what meets it, perhaps an operation; now and then everything back to the beginning."""
        dice, lab = self._dice, self._running.lab
        point, action = self._next_rule()
        await self._perform_all(self._prepared(point))
        if point.startswith("tftp."):
            await self._set("tcp.accept", "refuse", {"match": {"service": "TFTP"}})  # no HTTP: phones take TFTP
        await self._set(point, action, {} if POINTS[point].is_state else {"times": HITS})
        await self._within_patience(self._meeting(point))
        self._count(await self._running.end_faults())
        await self._perform(dice.choice(_OPERATIONS) | {"cluster": dice.choice(sorted(lab.clusters))})
        if dice.random() < 0.1:
            self._found.different += await self._running.reset()

    def _next_rule(self) -> tuple[str, str]:
        """Each comes once before any comes again."""
        if not self._deck:
            self._deck = rules()
            self._dice.shuffle(self._deck)
        return self._deck.pop()

    def _prepared(self, point: str) -> list[dict[str, Any]]:
        """Phones ask TVS when they meet another cluster's CTL, clusters need to know of the SFTP server."""
        if point.startswith("tvs."):
            self._moves += 1
            clusters = sorted(self._running.lab.clusters)
            return [*_VOUCHED_FOR, {"do": "set-option-150", "cluster": clusters[self._moves % 2]}]
        return list(_SFTP_SET) if point.startswith("sftp.") else []

    async def _set(self, point: str, action: str, more: dict[str, Any]) -> None:
        rule = {"point": point, "action": action, "attributes": ATTRIBUTES.get((point, action), {})}
        try:
            await self._running.set_fault(rule | more)
        except LabError:
            self._found.refusals += 1

    def _meeting(self, point: str) -> list[dict[str, Any]]:
        if point.startswith("sftp."):
            return list(_TRANSFERS)
        phones = sorted(self._running.lab.phones)
        chosen = self._dice.sample(phones, k=min(len(phones), 4))
        resets = [{"do": "reset-phone", "phone": one} for one in chosen]
        return [*_WRITES, *resets] if point.startswith("replication.") else resets

    async def _within_patience(self, operations: Sequence[dict[str, Any]]) -> None:
        task = asyncio.create_task(self._perform_all(operations))
        await asyncio.wait({task}, timeout=PATIENCE_S)
        if not task.done():
            self._found.cut_short += 1
            self._count(await self._running.end_faults())
            task.cancel()
            self._found.different += await self._running.reset()
        await asyncio.wait({task})

    def _count(self, ended: Sequence[FaultStatus]) -> None:
        for status in ended:
            if status.hits:
                name = f"{status.fault.point.name} {status.fault.action.name}"
                self._found.hits[name] = self._found.hits.get(name, 0) + 1

    async def _perform_all(self, operations: Sequence[dict[str, Any]]) -> None:
        for operation in operations:
            await self._perform(operation)

    async def _perform(self, operation: dict[str, Any]) -> None:
        try:
            await self._running.perform(operation_of(operation))
        except LabError:
            self._found.refusals += 1
        else:
            self._found.resets += operation["do"] == "reset-phone"


_SFTP_SET: Final[tuple[dict[str, Any], ...]] = (
    {"do": "set-bulk-sftp", "cluster": "source"},
    {"do": "set-bulk-sftp", "cluster": "destination"},
)
_VOUCHED_FOR: Final[tuple[dict[str, Any], ...]] = tuple(
    operation
    for here, there in (("source", "destination"), ("destination", "source"))
    for operation in (
        {"do": "upload-certificate", "certificate": "CallManager", "from": there, "to": here}
        | {"stores": ["Phone-SAST-trust"]},
        {"do": "restart-service", "cluster": here, "service": "TVS"},
    )
)
_WRITES: Final[tuple[dict[str, Any], ...]] = tuple(
    {"do": "set-enterprise-parameter", "parameter": "soak", "value": value, "cluster": cluster}
    for cluster in ("source", "destination")
    for value in ("1", "2")
)
_TRANSFERS: Final[tuple[dict[str, Any], ...]] = (
    {"do": "bulk-export", "cluster": "source"},
    {"do": "bulk-export", "cluster": "destination"},
    {"do": "bulk-consolidate", "cluster": "destination"},
)
_OPERATIONS: Final[tuple[dict[str, Any], ...]] = (
    {"do": "restart-service", "service": "TVS"},
    {"do": "restart-service", "service": "TFTP"},
    {"do": "regenerate-certificate", "certificate": "TVS"},
    {"do": "update-ctl-file"},
    {"do": "set-enterprise-parameter", "parameter": "soak", "value": "1"},
    {"do": "synchronise-certificates"},
    {"do": "set-option-150"},
)


def rules() -> list[tuple[str, str]]:
    """Point and action of all there are."""
    return [(point.name, action.name) for point in POINTS.values() for action in point.actions]


async def soak(folder: LabFolder, wishes: Wishes, *, seconds: float, rounds: int | None, seed: int) -> Soak:
    """Until `seconds` are over, or `rounds` are done."""
    described, clock = folder.describe(wishes), folder.clock()
    lab = Lab(described.topology, described.options(folder.directory, 20_000), clock=clock)
    running = RunningLab(lab, clock)
    found = Soak(str(wishes.topology), seed)
    await running.start()
    api = ApiServer(running)
    witness = Witness(folder.directory)
    try:
        await api.start()
        witness.start()
        await _rounds(Soaker(running, found), running, found, seconds, rounds)
    finally:
        await api.stop()  # ends the witness's stream behind the last event
        await running.stop()
    await asyncio.to_thread(witness.join, WITNESS_S)
    found.missing_events = witness.missing + (witness.last is None)
    return found


async def _rounds(soaker: Soaker, running: RunningLab, found: Soak, seconds: float, rounds: int | None) -> None:
    began = time.monotonic()
    done = 0
    while time.monotonic() - began < seconds and (rounds is None or done < rounds):
        await soaker.round()
        done += 1
        if done % SAMPLE_EVERY == 0 or done == rounds:
            await running.reset()
            found.samples.append(_sample(running, done, time.monotonic() - began))
            if sys.stderr.isatty():
                print(f"\r{_line(found.samples[-1])}", end="", file=sys.stderr)


def _sample(running: RunningLab, rounds: int, seconds: float) -> Sample:
    gc.collect()
    directory = running.lab.options.directory
    files = [path for path in directory.rglob("*") if path.is_file()]
    databases = [path for path in files if path.name.startswith("node.db")]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        rounds,
        round(seconds, 1),
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        len(asyncio.all_tasks()),
        sum(path.stat().st_size for path in files) / 2**20,
        sum(path.stat().st_size for path in databases) / 2**20,
        running.lab.events.last_sequence,
    )


def _line(sample: Sample) -> str:
    return (
        f"{sample.rounds:>6} {sample.seconds:>7.0f} {sample.memory_mb:>10.1f} {sample.descriptors:>11} "
        f"{sample.tasks:>5} {sample.folder_mb:>9.1f} {sample.databases_mb:>12.1f} {sample.events:>9}"
    )


def report(found: Soak) -> str:
    """A table of at most twenty samples, and the verdict."""
    step = max(1, len(found.samples) // 20)
    lines = ["rounds seconds memory_mb descriptors tasks folder_mb databases_mb    events"]
    lines += [_line(sample) for sample in found.samples[::step]]
    lines.append(
        f"{found.topology}, seed {found.seed}: {found.resets} resets of phones, {sum(found.hits.values())} faults hit, "
        f"{found.cut_short} cut short, {found.refusals} refusals, {found.missing_events} events missing"
    )
    lines.append(f"{len(rules()) - len(found.never_hit)} of {len(rules())} actions have hit something")
    lines += [f"never hit: {', '.join(found.never_hit)}"] if found.never_hit else []
    lines += [*found.risen, *(f"not as before: {one}" for one in sorted(set(found.different)))]
    return "\n".join([*lines, "flat" if found.is_flat else "NOT FLAT"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when all is flat and no event is missing, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=whole_number(1, 7 * 86_400), default=60, help="default %(default)s")
    parser.add_argument("--rounds", type=whole_number(1, 10_000_000), help="end after so many")
    parser.add_argument("--topology", default="subscriber", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    network = IPv4Network(free_address().rpartition(".")[0] + ".0/24")
    with tempfile.TemporaryDirectory(prefix="cucm-soak-") as directory, LabFolder(Path(directory, "lab")) as folder:
        wishes = Wishes(options.topology, network)
        found = run(soak(folder, wishes, seconds=options.seconds, rounds=options.rounds, seed=options.seed))
    if options.json:
        print(json.dumps({"schema": 1, "flat": found.is_flat, **asdict(found)}))
    else:
        print(report(found))
    return 0 if found.is_flat else 1


if __name__ == "__main__":
    raise SystemExit(main())
