"""What is asked of a fleet, checked before anything starts."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Final

from cucm.errors import EnvironmentProblem, UsageError
from cucm.records import dataclass

MAX_PHONES: Final = 60_000
"""Of a fleet on real sockets: each phone has an address of its own in a /16 of loopback."""
MAX_SIMULATED: Final = 10_000_000
MAX_CONCURRENCY: Final = 4096
MAX_WORKERS: Final = 64
DEFAULT_STORY: Final = "migrate"
DEFAULT_CONCURRENCY: Final = 64
"""Phones of one fleet that boot at the same time: enough to keep a few cores busy, and no herd."""
IN_PROCESS: Final = 200
"""So many phones and fewer live in the process of the servers, unless `--workers` says otherwise."""


@dataclass(frozen=True, slots=True)
class FleetRequest:
    """`topology` None: the story's own. `workers`: processes for phones beside the one of the servers, at most
    (`processes`); 0: all in one.

    `repair`: a failure story's last act, which repairs, is played too. `scheduler`: the address of a Dask scheduler
    whose workers run the phones instead.
    """

    phones: int
    story: str = DEFAULT_STORY
    topology: str | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    workers: int = 0
    seed: int = 0
    repair: bool = False
    scheduler: str | None = None

    def check(self, *, simulated: bool = False) -> None:
        """Raises UsageError for a number out of its bounds, EnvironmentProblem where a library is missing."""
        _require("--phones", self.phones, 1, MAX_SIMULATED if simulated else MAX_PHONES)
        _require("--concurrency", self.concurrency, 1, MAX_SIMULATED if simulated else MAX_CONCURRENCY)
        _require("--workers", self.workers, 0, MAX_WORKERS)
        if self.scheduler is not None and find_spec("distributed") is None:
            raise EnvironmentProblem(
                "Dask's distributed is not installed",
                where="--scheduler",
                mend="pip install 'cucm-migration-lab[fleet]', here and where the workers are",
            )

    @property
    def processes(self) -> int:
        """So many of the `workers` have work: one that has no phone, or whose phones never may boot, is not started."""
        return min(self.workers, self.phones, self.concurrency)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _require(flag: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise UsageError(
            f"{value} is not between {lowest} and {highest}",
            where=flag,
            mend=f"give a number from {lowest} to {highest}",
        )


def default_workers(phones: int, processors: int) -> int:
    """One process less than the machine has processors, which the servers need, for phones that are worth it."""
    return 0 if phones <= IN_PROCESS else max(1, processors - 1)
