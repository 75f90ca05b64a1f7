"""What became of a fleet: the one input of every report, whoever made it (phones on sockets, or a simulation).

Results are keyed by device name, so that a batch which is run again counts no phone twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field
from enum import StrEnum
from heapq import nsmallest
from typing import Any, Final

from cucm.records import dataclass
from lab.fleet.latencies import Latencies
from lab.fleet.request import FleetRequest

SCHEMA_VERSION: Final = 1
"""Of `FleetResult.as_json`."""
NOWHERE: Final = "nowhere"
NONE: Final = "none"
UNKNOWN: Final = "unknown"
"""A file in flash that no node of the lab has served."""
OTHERWISE_WELL: Final = "its last boot went well"
"""Why a phone is not at the target: nothing has sent it there."""
_DEVICE: Final = re.compile("SEP[0-9A-F]{12}")


class Phase(StrEnum):
    """Parts of a boot, as a phone goes through them; TVS is a part of the three that judge a signature."""

    ADDRESS = "address"
    CTL = "ctl"
    ITL = "itl"
    CONFIGURATION = "configuration"
    TVS = "tvs"
    REGISTRATION = "registration"
    BOOT = "boot"
    """All of it, from power (or reset) to the end of the boot."""


def of_any_phone(text: str) -> str:
    """Without the names of devices: what is the same for many phones is one reason."""
    return _DEVICE.sub("SEP...", text)


@dataclass(frozen=True, slots=True)
class PhoneEnd:
    """Where a phone ended, from ground truth: `registered` is the cluster whose CallManager has it, by their own
    account; `ctl`, `itl` and `configuration` are the clusters that served what its flash holds.

    `reasons` are the values of `TrustReason` with which it refused files in its last boot; `detail` is the last trouble
    of that boot in words, or empty. `stays_at` is where the story leaves it, if that never sends it to the target.
    """

    registered: str = NOWHERE
    node: str | None = None
    ctl: str = NONE
    itl: str = NONE
    configuration: str = NONE
    reasons: tuple[str, ...] = ()
    detail: str = ""
    state: str = ""
    boots: int = 0
    stays_at: str | None = None

    @property
    def why(self) -> str:
        """The reason that a table groups by: the first of `reasons`, else `detail`, else the state."""
        if self.reasons or self.detail:
            return self.reasons[0] if self.reasons else of_any_phone(self.detail)
        return OTHERWISE_WELL if self.registered != NOWHERE else f"it is {self.state}"

    def is_at(self, cluster: str) -> bool:
        """Registered there, and there alone."""
        return self.registered == cluster

    @property
    def has_stayed(self) -> bool:
        """As the story has it: not sent to the target, and where it should be."""
        return self.stays_at is not None and self.is_at(self.stays_at)


@dataclass(slots=True)
class Stage:
    """One operation on phones (`boot-phone`, `reset-phone`): how many, how long, and how long each part took.

    `per_second` counts the phones whose boot ended in each second since the stage began.
    """

    title: str
    phones: int = 0
    wall_s: float = 0.0
    phone_cpu_s: float = 0.0
    """Of the processes in which only phones live; 0 where they share one with the servers."""
    server_cpu_s: float = 0.0
    """Of the process of the servers; of everything where phones live in it too."""
    latencies: dict[Phase, Latencies] = field(default_factory=dict)
    per_second: Counter[int] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    """Cryptographic operations of both ends: what `floor_s` is made of."""
    floor_s: float = 0.0
    """CPU seconds of these operations with nothing around them, measured in the same run; 0: not measured."""
    events: int = 0

    @property
    def cpu_s(self) -> float:
        return self.phone_cpu_s + self.server_cpu_s

    def latency(self, phase: Phase) -> Latencies:
        return self.latencies.setdefault(phase, Latencies())

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "phones": self.phones,
            "wall_s": round(self.wall_s, 3),
            "phones_per_s": round(self.phones / self.wall_s, 2) if self.wall_s else None,
            "phone_cpu_s": round(self.phone_cpu_s, 3),
            "server_cpu_s": round(self.server_cpu_s, 3),
            "floor_s": round(self.floor_s, 3),
            "latencies": {phase.value: self.latencies[phase].as_json() for phase in Phase if phase in self.latencies},
            "per_second": [[second, self.per_second[second]] for second in sorted(self.per_second)],
            "operations": dict(sorted(self.operations.items())),
            "events": self.events,
        }


@dataclass(slots=True)
class NodeLoad:
    """What one service of one node had to do in the whole run. `busiest` is the largest number in one second."""

    cluster: str
    node: str
    service: str
    """`TVS`, `TFTP` or `CallManager`."""
    requests: int = 0
    bytes: int = 0
    failures: int = 0
    busiest: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that one resident, registered phone takes, both ends: what the processes grew by, over the phones, when all
    of them were registered last.

    Private memory of the processes; the kernel's socket buffers are not in it. `at_phones`: of it in processes where
    only phones live, None where there are none.
    """

    per_phone: float
    phones: int
    at_phones: float | None = None

    def as_text(self) -> str:
        """In KiB, with the phones' end where it is known."""
        end = "" if self.at_phones is None else f" (the phone's end: {self.at_phones / 1024:.1f} KiB)"
        return f"{self.per_phone / 1024:.1f} KiB{end}"


@dataclass(slots=True)
class FleetResult:
    """`mode` is `sockets` or `simulated`; `target` the cluster where the story sends phones; `ends` by device name."""

    request: FleetRequest
    mode: str
    target: str
    ends: Mapping[str, PhoneEnd] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    loads: list[NodeLoad] = field(default_factory=list)
    memory: Memory | None = None
    floor_ms: dict[str, float] = field(default_factory=dict)
    """CPU milliseconds of each cryptographic operation with nothing around it, both ends, measured in this run."""
    setup_s: float = 0.0
    """Seconds before the first act: clusters, devices, certificates."""
    setup_cpu_s: float = 0.0
    other_cpu_s: float = 0.0
    """CPU seconds of all processes in steps that are no stage: on clusters, and on phones that do not boot."""
    wall_s: float = 0.0
    """Seconds from nothing to the end; of a simulation: those that its stages would take."""
    computed_s: float = 0.0
    """Seconds that a simulation took itself."""
    interrupted: bool = False
    """Ended before its last act: `ends` are as they were then."""
    reruns: int = 0
    """Batches that were run again because the process that had them was lost."""
    trouble: str | None = None
    """Why the acts could not be played to their end."""

    def tally(self) -> Counter[PhoneEnd]:
        """How many phones have each end: of a million phones few differ."""
        tally: Counter[PhoneEnd] = getattr(self.ends, "tally", lambda: Counter(self.ends.values()))()
        return tally

    @property
    def arrived(self) -> int:
        return sum(count for end, count in self.tally().items() if end.is_at(self.target))

    @property
    def stayed(self) -> int:
        """How many are not at the target, but where the story leaves them."""
        return sum(count for end, count in self.tally().items() if end.has_stayed and not end.is_at(self.target))

    @property
    def stranded(self) -> int:
        """How many are neither at the target nor where the story leaves them."""
        return len(self.ends) - self.arrived - self.stayed

    def first_stranded(self, count: int) -> list[tuple[str, PhoneEnd]]:
        """So many of them, by name; of a million no more than these are held."""
        names = (name for name, end in self.ends.items() if self._is_stranded(end))
        return [(name, self.ends[name]) for name in nsmallest(count, names)] if self.stranded else []

    def _is_stranded(self, end: PhoneEnd) -> bool:
        return not end.is_at(self.target) and not end.has_stayed

    @property
    def is_good(self) -> bool:
        """Whether every phone that was asked for is registered at the target, or where the story leaves it."""
        return self.is_whole and self.arrived + self.stayed == self.request.phones

    def reasons(self) -> Counter[str]:
        """Why phones are stranded: how many, by reason."""
        reasons: Counter[str] = Counter()
        for end, count in self.tally().items():
            if self._is_stranded(end):
                reasons[end.why] += count
        return reasons

    def where(self) -> Counter[str]:
        """How many phones are registered in which cluster, or nowhere."""
        where: Counter[str] = Counter()
        for end, count in self.tally().items():
            where[end.registered] += count
        return where

    @property
    def is_whole(self) -> bool:
        """Whether all acts were played: else what a phone costs cannot be told."""
        return self.trouble is None and not self.interrupted

    @property
    def cpu_ms_per_phone(self) -> float:
        """Of every stage: all boots and resets, those of a repair too. Not of setting up, and not of the other steps
        (`other_cpu_s`). 0 for a run that is not whole.
        """
        if not self.is_whole:
            return 0.0
        return 1000 * sum(stage.cpu_s for stage in self.stages) / max(self.request.phones, 1)

    @property
    def floor_ms_per_phone(self) -> float:
        """Of the same stages."""
        if not self.is_whole:
            return 0.0
        return 1000 * sum(stage.floor_s for stage in self.stages) / max(self.request.phones, 1)

    @property
    def times_floor(self) -> float | None:
        """CPU over the crypto floor of the same run; None where one of them was not measured."""
        floor, used = self.floor_ms_per_phone, self.cpu_ms_per_phone
        return used / floor if floor and used else None

    def as_json(self, *, phones: bool = True) -> dict[str, Any]:
        """With `phones`, every phone's end; a report on a terminal can do without."""
        told: dict[str, Any] = {
            "fleet_schema": SCHEMA_VERSION,
            "mode": self.mode,
            "request": self.request.as_json(),
            "target": self.target,
            "arrived": self.arrived,
            "stayed": self.stayed,
            "stranded": self.stranded,
            "is_good": self.is_good,
            "interrupted": self.interrupted,
            "reruns": self.reruns,
            "trouble": self.trouble,
            "where": dict(self.where()),
            "reasons": dict(self.reasons().most_common()),
            "setup_s": round(self.setup_s, 3),
            "setup_cpu_s": round(self.setup_cpu_s, 3),
            "other_cpu_s": round(self.other_cpu_s, 3),
            "wall_s": round(self.wall_s, 3),
            "computed_s": round(self.computed_s, 3),
            "cpu_ms_per_phone": round(self.cpu_ms_per_phone, 3),
            "floor_ms_per_phone": round(self.floor_ms_per_phone, 3),
            "times_floor": self.times_floor and round(self.times_floor, 3),
            "floor_ms": self.floor_ms,
            "memory": self.memory and asdict(self.memory),
            "stages": [stage.as_json() for stage in self.stages],
            "loads": [asdict(load) for load in self.loads],
        }
        if phones:
            told["phones"] = {name: asdict(end) for name, end in sorted(self.ends.items())}
        return told


def merge_stages(stages: Iterable[Stage]) -> Stage:
    """One stage of the parts that batches or workers measured of it; wall time is the longest."""
    parts = list(stages)
    whole = Stage(parts[0].title if parts else "")
    for part in parts:
        whole.phones += part.phones
        whole.wall_s = max(whole.wall_s, part.wall_s)
        whole.phone_cpu_s += part.phone_cpu_s
        whole.server_cpu_s += part.server_cpu_s
        whole.per_second += part.per_second
        whole.operations += part.operations
        whole.floor_s += part.floor_s
        whole.events += part.events
        for phase, measured in part.latencies.items():
            whole.latency(phase).merge(measured)
    return whole
