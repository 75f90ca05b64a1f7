"""How long a fleet takes on one machine: a few numbers of one run say what another will need.

The servers of both clusters are one process, whatever the number of nodes, and so use one processor at most; phones may
have others. Whichever is busy longest decides. For many machines or real clusters, `--simulate` knows more.

The constants were measured on two processors of 2026 that nobody else used, story `migrate`, one worker, 100 to 10,000
phones; `make bench` compares what comes of them with its own fleets (docs/howto/large-fleets.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cucm.records import dataclass
from lab.fleet.calibration import OVERLAP

START_S: Final = 0.5
"""Until the processes of phones stand, whatever their number: interpreter and imports, both clusters' beginnings."""
NODE_S: Final = 0.04
"""CPU of setting up one node of a cluster: its folder, database, lists, listeners."""
FLOOR_S: Final = 0.9
"""Measuring the crypto floor behind both boots, five kinds of operations, while all else rests."""
LEAVE_MS: Final = 0.3
"""Of a phone after the last boot, one after the other: its memory is counted, its end looked up, its sockets closed."""
REFRESH_MS: Final = 0.14
"""CPU of one process each time a registered phone refreshes its registration."""
REFRESH_S: Final = 115.0
"""How often it does (phone_agent.registration, and what the lab's CallManager grants)."""


@dataclass(frozen=True, slots=True)
class PhoneCost:
    """Milliseconds of CPU that one phone costs in all acts together: the servers' process, and the phones' ones.

    `setup_ms` is what it costs before the first act: its certificate, its rows, its objects.
    """

    server_ms: float
    phone_ms: float
    setup_ms: float = 0.4

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> PhoneCost:
        """From the JSON of a run with `--workers` 1 or more. Raises KeyError for what is none."""
        phones = result["request"]["phones"]
        per_phone = 1000 / phones
        nodes = len({load["node"] for load in result["loads"]})
        return cls(
            server_ms=per_phone * sum(stage["server_cpu_s"] for stage in result["stages"]),
            phone_ms=per_phone * sum(stage["phone_cpu_s"] for stage in result["stages"]),
            setup_ms=per_phone * max(result["setup_cpu_s"] - nodes * NODE_S, 0.0),
        )


def minutes(cost: PhoneCost, phones: int, nodes: int = 2, cores: int = 2) -> float:
    """Of a whole run with `nodes` nodes in both clusters together and `cores` processors that nobody else uses."""
    workers = max(cores - 1, 1)
    busiest_ms = max(cost.server_ms, cost.phone_ms / workers, (cost.server_ms + cost.phone_ms) / max(cores, 1))
    refreshes = 1 + phones * REFRESH_MS / 1000 / REFRESH_S
    phone_s = (cost.setup_ms + busiest_ms / OVERLAP * refreshes + LEAVE_MS) / 1000
    return (START_S + NODE_S * nodes + FLOOR_S + phones * phone_s) / 60
