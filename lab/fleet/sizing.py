"""How long a fleet takes on one machine: a few numbers of one run say what another will need.

The servers of both clusters are one process, whatever the number of nodes, and so use one processor at most; phones may
have others. Whichever is busy longest decides. For many machines or real clusters, `--simulate` knows more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cucm.records import dataclass

NODE_S: Final = 0.15
"""What one more node of a cluster adds to setting up, about."""
BASE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class PhoneCost:
    """Milliseconds of CPU that one phone costs in all acts together: the servers' process, and the phones' ones.

    `setup_ms` is what it costs before the first act: its certificate, its rows, its objects.
    """

    server_ms: float
    phone_ms: float
    setup_ms: float = 1.0

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> PhoneCost:
        """From the JSON of a run with `--workers` 1 or more. Raises KeyError for what is none."""
        phones = result["request"]["phones"]
        per_phone = 1000 / phones
        return cls(
            server_ms=per_phone * sum(stage["server_cpu_s"] for stage in result["stages"]),
            phone_ms=per_phone * sum(stage["phone_cpu_s"] for stage in result["stages"]),
            setup_ms=per_phone * max(result["setup_cpu_s"] - BASE_S, 0.0),
        )


def minutes(cost: PhoneCost, phones: int, nodes: int = 2, cores: int = 2) -> float:
    """Of a whole run with `nodes` nodes in both clusters together and `cores` processors that nobody else uses."""
    workers = max(cores - 1, 1)
    busiest_ms = max(cost.server_ms, cost.phone_ms / workers, (cost.server_ms + cost.phone_ms) / max(cores, 1))
    return (BASE_S + NODE_S * nodes + phones * (busiest_ms + cost.setup_ms) / 1000) / 60
