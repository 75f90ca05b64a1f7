"""A part of a fleet, as values: what goes to a process that runs phones, and what comes back.

`run_batch` is a function of its argument and of the servers that it talks to: phones with what their flash holds go
in, phones with what their flash holds come out, by name. Run again after its process was lost, with the same states, it
does the same again. Nothing in here knows the lab as an object: only addresses, bytes and keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Final

from cucm.records import dataclass
from lab.fleet.population import FleetPhone
from lab.fleet.result import Stage
from phone_agent.flash import FlashContents
from phone_agent.memory import PhoneMemory


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the servers are: the DHCP server's address and port, TFTP's port, and how the lab's clock differs."""

    dhcp: tuple[str, int]
    tftp_port: int = 69
    clock_offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PhoneState:
    """A phone that is switched off, or was registered (`memory`), and can go on from here in any process."""

    phone: FleetPhone
    contents: FlashContents
    memory: PhoneMemory = field(default_factory=PhoneMemory)

    @property
    def name(self) -> str:
        return self.phone.name


@dataclass(frozen=True, slots=True)
class PhoneFinding:
    """What a phone itself can say of its last boot: its state, the reasons it refused files with, the last trouble in
    words, and how often it booted. Whether it is registered is for the CallManagers to say.
    """

    state: str
    reasons: tuple[str, ...] = ()
    detail: str = ""
    boots: int = 0


LOST: Final = "lost"
"""State of a phone whose process has ended without it: of its last boot and its flash nothing is known."""
OnDone = Callable[[str, PhoneFinding], None]
"""Hears of each phone that has done what it was told."""


@dataclass(frozen=True, slots=True)
class Holding:
    """SHA-256, in hex, of what a phone's flash holds; None for nothing."""

    ctl: str | None
    itl: str | None
    configuration: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """`verb` (see `lab.fleet.plan.PHONE_VERBS`) to every phone in `states`, `concurrency` at a time."""

    number: int
    verb: str
    title: str
    around: Surroundings
    states: tuple[PhoneState, ...]
    concurrency: int


@dataclass(slots=True)
class BatchResult:
    """By device name. `stage` is what was measured."""

    number: int
    states: dict[str, PhoneState]
    accounts: dict[str, tuple[PhoneFinding, Holding]]
    stage: Stage


def nobody_cares(_name: str, _finding: PhoneFinding) -> None:
    """An `OnDone` for those who wait for the end."""


async def run_batch(batch: Batch, *, on_done: OnDone = nobody_cares) -> BatchResult:
    """The phones wake as they were, do what the batch says, and hang up. Raises nothing for what becomes of a phone."""
    from lab.fleet.residents import Residents

    cpu_s = time.process_time()
    async with Residents(batch.around, batch.states, on_done=on_done) as residents:
        await residents.wake(batch.concurrency)
        stage = await residents.perform(batch.verb, batch.title, residents.names, batch.concurrency)
        result = BatchResult(batch.number, by_name(residents.states()), residents.accounts(), stage)
    stage.phone_cpu_s = time.process_time() - cpu_s  # to wake is work too
    return result


def by_name(states: Iterable[PhoneState]) -> dict[str, PhoneState]:
    return {state.name: state for state in states}
