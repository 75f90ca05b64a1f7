"""What a load client reports, and how long it may go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bounds:
    """A run ends with the first of these: no operation is begun after `seconds` or beyond `operations`."""

    seconds: float
    operations: int
    concurrency: int


@dataclass(slots=True)
class LoadResult:
    """`done` were validated to the last byte; `failures` counts what went wrong, by kind.

    `retransmissions` are packets this client had to send again, `lost_requests` of them requests that got no answer;
    `repeats` are datagrams that came again from the server.
    A client that is a process of its own tells its CPU time (`cpu_s`). One that counts what was done before the time
    was up (`in_time`, in `window_s`) has a rate that the slowest of its last operations does not lower.
    """

    done: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    retransmissions: int = 0
    repeats: int = 0
    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    cpu_s: float | None = None
    lost_requests: int = 0
    in_time: int | None = None
    window_s: float = 0.0

    @property
    def per_s(self) -> float:
        if self.in_time is not None:
            return self.in_time / self.window_s if self.window_s else 0.0
        return self.to_last_per_s

    @property
    def to_last_per_s(self) -> float:
        """Done, by all the time until the last that was begun had its answer or was given up."""
        return self.done / self.wall_s if self.wall_s else 0.0

    def latency_ms(self, share: float) -> float:
        """The latency that this share of the operations stayed below."""
        if not self.latencies_s:
            return 0.0
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
