"""Who runs the phones of a fleet: this process, or several others. The engine does not know which."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from cucm.records import dataclass
from lab.fleet.batch import Holding, PhoneFinding, PhoneState, Surroundings
from lab.fleet.progress import Progress
from lab.fleet.residents import Residents
from lab.fleet.result import Stage


@dataclass(frozen=True, slots=True)
class Work:
    """`verb` to the phones made after `models`, `concurrency` at a time over all of the fleet."""

    verb: str
    title: str
    models: frozenset[str]
    concurrency: int


class Crew(Protocol):
    """Phones stay as they are between two calls: registered, if they were. If the crew `parts`, they are taken out of
    the lab after each call and come back with the next.
    """

    @property
    def parts(self) -> bool: ...

    @property
    def reruns(self) -> int:
        """Batches of phones that were run again because their process was lost."""

    async def perform(self, work: Work) -> Stage: ...

    async def findings(self) -> dict[str, tuple[PhoneFinding, Holding]]: ...

    async def move_clock(self, seconds: float) -> None: ...

    async def memory(self) -> int:
        """Private bytes that phones take in processes of their own: what those have grown by."""

    async def end(self) -> None:
        """Also while something is performed, which is given up."""


class CrewHere:
    """All phones in this process."""

    parts = False
    reruns = 0

    def __init__(self, around: Surroundings, states: Iterable[PhoneState], progress: Progress) -> None:
        self._residents = Residents(around, states, on_done=progress.phone_done)

    async def perform(self, work: Work) -> Stage:
        names = self._residents.names_after(work.models)
        stage = await self._residents.perform(work.verb, work.title, names, work.concurrency)
        stage.phone_cpu_s = 0.0  # the servers' process is this one: counted there
        return stage

    async def findings(self) -> dict[str, tuple[PhoneFinding, Holding]]:
        return self._residents.accounts()

    async def move_clock(self, seconds: float) -> None:
        self._residents.clock.move(seconds)

    async def memory(self) -> int:
        return 0

    async def end(self) -> None:
        await self._residents.end()


def shares(states: Collection[PhoneState], workers: int) -> list[tuple[PhoneState, ...]]:
    """One part for each worker, in the order of `states`; phones made after the same one of the topology are spread
    over all, however their kinds take turns: a step for one kind has work for every worker.
    """
    listed = tuple(states)
    by_kind = sorted(range(len(listed)), key=lambda number: listed[number].phone.model)
    return [tuple(listed[number] for number in sorted(by_kind[worker::workers])) for worker in range(workers)]
