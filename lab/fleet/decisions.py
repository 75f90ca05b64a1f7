"""What phones decide, found out once for every situation: the boot of `phone_agent` as a tree that grows by use.

A point of the tree is a request that the boot waits for; two ways go on from it, that of the servers' answer and that
of an answer that came too late. Phones made after the same phone of a topology, with the same contents of flash and
before the same servers, are in the same situation: the boot is a pure generator, so equal replies make equal decisions.
The first phone that comes to a point makes it, by running the generator with the replies so far; the others walk on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, Final

from cucm.clock import Clock
from cucm.errors import FlashError
from cucm.events import Event
from cucm.events.phone import StatusMessageShown
from cucm.records import dataclass
from lab.fleet.result import Phase
from lab.fleet.simulated_servers import Answer, SimulatedServers
from phone_agent.boot import BootOutcome, RegistrationTarget, boot, register_again
from phone_agent.commands import Command, Enter, Note, Sleep, Steps, Store, StoreResult
from phone_agent.flash import FlashContents, MemoryFlash
from phone_agent.models import PhoneModel
from phone_agent.state import PhoneState, require_transition
from phone_agent.verdicts import Verdict, verdict_of

PHASES: Final = {
    PhoneState.REQUESTING_ADDRESS: Phase.ADDRESS,
    PhoneState.UPDATING_CTL: Phase.CTL,
    PhoneState.UPDATING_ITL: Phase.ITL,
    PhoneState.UPDATING_CONFIGURATION: Phase.CONFIGURATION,
    PhoneState.REGISTERING: Phase.REGISTRATION,
}


@dataclass(frozen=True, slots=True)
class Decided:
    """The end of a boot (or of a search for a CallManager): `registered` and what the flash holds then.

    `events` are those that the boot itself told of, in their order.
    """

    registered: RegistrationTarget | None
    contents: FlashContents
    state: PhoneState
    outcome: BootOutcome | None
    events: tuple[Event, ...] = field(repr=False)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return tuple(verdict for event in self.events if (verdict := verdict_of(event)) is not None)

    @property
    def messages(self) -> tuple[str, ...]:
        return tuple(event.text for event in self.events if isinstance(event, StatusMessageShown))


class Point:
    """Where a boot waits for `answer`; `follow` goes on."""

    __slots__ = ("_follow", "_late", "_next", "answer", "phase")

    def __init__(self, phase: Phase, answer: Answer, follow: Callable[[Any], Point | Decided]) -> None:
        self.phase = phase
        self.answer = answer
        self._follow = follow
        self._next: Point | Decided | None = None
        self._late: Point | Decided | None = None

    def follow(self, *, late: bool) -> Point | Decided:
        """What comes next, found out if nobody has been there before."""
        if late:
            self._late = self._late or self._follow(self.answer.late)
            return self._late
        self._next = self._next or self._follow(self.answer.reply)
        return self._next


class Decisions:
    """The trees of all situations before these servers, at this moment of `clock`."""

    def __init__(self, servers: SimulatedServers, clock: Clock) -> None:
        self._servers = servers
        self._clock = clock
        self._boots: dict[tuple[PhoneModel, FlashContents], Point | Decided] = {}
        self.points = 0
        """How many were found out."""

    def boot(self, phone: PhoneModel, contents: FlashContents) -> Point | Decided:
        """A boot from power on."""
        known = self._boots.get((phone, contents))
        if known is None:
            known = self._boots[phone, contents] = self._go(
                phone, contents, lambda held: boot(phone, held, self._clock), PhoneState.OFF
            )
        return known

    def register_again(self, phone: PhoneModel, contents: FlashContents, without: str | None) -> Decided:
        """What a phone does whose CallManager has gone, to its end."""
        place = self._go(
            phone,
            contents,
            lambda held: register_again(phone, held, self._clock, without=without),
            PhoneState.UNREGISTERED,
        )
        while isinstance(place, Point):
            place = place.follow(late=False)
        return place

    def _go(
        self,
        phone: PhoneModel,
        contents: FlashContents,
        begin: Callable[[FlashContents], Steps[Any]],
        state: PhoneState,
        replies: tuple[Any, ...] = (),
    ) -> Point | Decided:
        self.points += 1
        run = _Run(contents, state)
        command, outcome = run.through(begin(contents), replies)
        if command is None:
            target = outcome.registered if isinstance(outcome, BootOutcome) else outcome
            told = outcome if isinstance(outcome, BootOutcome) else None
            return Decided(target, run.flash.contents, run.state, told, tuple(run.events))
        answer = self._servers.answer(command, phone, run.flash.contents)
        return Point(
            PHASES.get(run.state, Phase.ADDRESS),
            answer,
            lambda reply: self._go(phone, contents, begin, state, (*replies, reply)),
        )


class _Run:
    """One run of the generator: what needs no server is done here, as `phone_agent.driver` does it."""

    def __init__(self, contents: FlashContents, state: PhoneState) -> None:
        self.flash = MemoryFlash(contents)
        self.state = state
        self.events: list[Event] = []

    def through(self, steps: Steps[Any], replies: tuple[Any, ...]) -> tuple[Command | None, Any]:
        """With these replies to its requests: the request that follows, or None and the generator's result."""
        rest = iter(replies)
        reply: Any = None
        while True:
            try:
                command = steps.send(reply)
            except StopIteration as stop:
                return None, stop.value
            match command:
                case Note(event=event):
                    self.events.append(event)
                    reply = None
                case Enter(state=state):
                    require_transition(self.state, state)
                    self.state = state
                    reply = None
                case Store(changes=changes):
                    reply = self._store(changes)
                case Sleep():
                    reply = None
                case _:
                    try:
                        reply = next(rest)
                    except StopIteration:
                        steps.close()
                        return command, None

    def _store(self, changes: Any) -> StoreResult:
        try:
            self.flash.store(**changes)
        except FlashError as error:
            return StoreResult(str(error))
        return StoreResult()
