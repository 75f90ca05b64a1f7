"""How long something took, a million times over: a histogram that costs the same for ten phones and for ten million."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

RESOLUTION: Final = 1.02
"""Neighbouring bounds differ by this factor: a percentile is told to within two per cent."""
_SHORTEST_S: Final = 1e-6
_LOG: Final = math.log(RESOLUTION)
PERCENTILES: Final = (50.0, 90.0, 99.0)


class Latencies:
    """Seconds, counted by their size; can be merged, pickled, and written as JSON."""

    __slots__ = ("_counts", "longest_s", "total_s")

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts: Counter[int] = Counter()
        self.total_s = 0.0
        self.longest_s = 0.0
        for one in seconds:
            self.add(one)

    def add(self, seconds: float, times: int = 1) -> None:
        place = 0 if seconds <= _SHORTEST_S else math.ceil(math.log(seconds / _SHORTEST_S) / _LOG)
        self._counts[place] += times
        self.total_s += seconds * times
        self.longest_s = max(self.longest_s, seconds)

    def merge(self, other: Latencies) -> None:
        self._counts += other._counts
        self.total_s += other.total_s
        self.longest_s = max(self.longest_s, other.longest_s)

    def __len__(self) -> int:
        return self._counts.total()

    @property
    def mean_s(self) -> float:
        return self.total_s / len(self) if self._counts else 0.0

    def percentile(self, share: float) -> float:
        """Seconds within which `share` per cent lie, 0 for none at all; up to `RESOLUTION` too long."""
        wanted, met = len(self) * share / 100, 0
        for place in sorted(self._counts):
            met += self._counts[place]
            if met >= wanted:
                return min(_SHORTEST_S * RESOLUTION**place, self.longest_s)
        return 0.0

    def bars(self, count: int = 40) -> list[tuple[float, int]]:
        """At most about `count` columns, each as (its upper bound in seconds, how many)."""
        if not self._counts:
            return []
        lowest, highest = min(self._counts), max(self._counts)
        step = max(1, math.ceil((highest - lowest + 1) / count))
        columns: Counter[int] = Counter()
        for place, times in self._counts.items():
            columns[lowest + (place - lowest) // step * step + step - 1] += times
        return [
            (_SHORTEST_S * RESOLUTION**place, columns[place])
            for place in range(lowest + step - 1, highest + step, step)
        ]

    def as_json(self) -> dict[str, Any]:
        """Milliseconds: mean, percentiles, longest."""
        return {
            "count": len(self),
            "mean_ms": round(self.mean_s * 1000, 3),
            **{f"p{share:g}_ms": round(self.percentile(share) * 1000, 3) for share in PERCENTILES},
            "longest_ms": round(self.longest_s * 1000, 3),
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Latencies) and self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _state(self) -> tuple[Mapping[int, int], float, float]:
        return self._counts, self.total_s, self.longest_s

    def __getstate__(self) -> tuple[dict[int, int], float, float]:
        return dict(self._counts), self.total_s, self.longest_s

    def __setstate__(self, state: tuple[dict[int, int], float, float]) -> None:
        self._counts, self.total_s, self.longest_s = Counter(state[0]), state[1], state[2]
