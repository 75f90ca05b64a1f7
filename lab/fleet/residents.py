"""The phones of one process: real phone engines on real sockets, and what is measured of them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import suppress
from random import Random
from typing import Final, Self

from cucm.clock import Clock, MovableClock
from cucm.errors import FlashError
from cucm.net.alarms import Alarms
from lab.fleet.batch import Holding, OnDone, PhoneFinding, PhoneState, Surroundings, nobody_cares
from lab.fleet.findings import finding_of
from lab.fleet.measure import PhoneMeter
from lab.fleet.plan import BOOTING
from lab.fleet.result import Phase, Stage
from lab.fleet.shared_flash import SharedBytes, SharedFlash
from phone_agent.boot import PhoneModel
from phone_agent.dhcp_client import DhcpClient
from phone_agent.driver import BootTimedOut, Phone, PhonePorts, PhoneSettings, PowerCut
from phone_agent.flash import FlashContents
from phone_agent.state import PhoneState as PhoneStateName

SETTLE_S: Final = 60.0
"""How long a phone that has lost its CallManager gets to find another when it is told to settle."""


class Residents:
    """Phones that live in this process until `end`: they stay registered between the acts of a story."""

    def __init__(self, around: Surroundings, states: Iterable[PhoneState], *, on_done: OnDone = nobody_cares) -> None:
        self.clock = MovableClock(time.time() + around.clock_offset_s)
        self._on_done = on_done
        shared = _Shared(around, self.clock)
        self._residents = {state.name: _Resident(state, shared) for state in states}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.end()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._residents)

    def names_after(self, models: Collection[str]) -> tuple[str, ...]:
        """Those made after one of these phones of the topology."""
        return tuple(name for name, one in self._residents.items() if one.state.phone.model in models)

    def states(self) -> Iterator[PhoneState]:
        return (one.state_now() for one in self._residents.values())

    def accounts(self) -> dict[str, tuple[PhoneFinding, Holding]]:
        """What each phone says, and what its flash holds."""
        digests = _Digests()
        return {name: (one.finding(), digests.of(one.phone.flash.contents)) for name, one in self._residents.items()}

    async def wake(self, concurrency: int) -> None:
        """Phones that were registered when their state was taken go on from there."""
        was_on = [name for name, one in self._residents.items() if one.state.memory.state is not PhoneStateName.OFF]
        await _each(was_on, concurrency, lambda name: self._residents[name].wake())

    async def perform(self, verb: str, title: str, names: Collection[str], concurrency: int) -> Stage:
        """`verb` to each of `names`, `concurrency` at a time; what was measured meanwhile."""
        stage = Stage(title, phones=len(names))
        began_s, cpu_s = time.monotonic(), time.process_time()

        async def one(name: str) -> None:
            resident = self._residents[name]
            begins_s = time.perf_counter()
            await resident.do(verb, stage)
            if verb in BOOTING:
                stage.latency(Phase.BOOT).add(time.perf_counter() - begins_s)
            stage.per_second[int(time.monotonic() - began_s)] += 1
            self._on_done(name, resident.finding())

        await _each(names, concurrency, one)
        stage.wall_s = time.monotonic() - began_s
        stage.phone_cpu_s = time.process_time() - cpu_s
        return stage

    async def end(self) -> None:
        """Every phone loses its power: connections are reset, nobody says goodbye."""
        await _each(self.names, 256, lambda name: self._residents[name].phone.crash())


class _Digests:
    """Most phones hold the same lists: each is hashed once."""

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}

    def of(self, contents: FlashContents) -> Holding:
        return Holding(self._digest(contents.ctl), self._digest(contents.itl), self._digest(contents.configuration))

    def _digest(self, data: bytes | None) -> str | None:
        if data is None:
            return None
        if data not in self._known:
            self._known[data] = hashlib.sha256(data).hexdigest()
        return self._known[data]


class _Shared:
    """What all phones of a process have in common."""

    def __init__(self, around: Surroundings, clock: Clock) -> None:
        self.around = around
        self.clock = clock
        self.alarms = Alarms(clock)
        self.bytes = SharedBytes()
        self.ports = PhonePorts(tftp=around.tftp_port)
        # SIP's tags and DHCP's transactions, not secrets; the state of a generator for each phone would be 5 KB
        self.randomness = Random("fleet")  # noqa: S311


class _Resident:
    """One phone with its meter."""

    __slots__ = ("boots", "meter", "phone", "state")

    def __init__(self, state: PhoneState, shared: _Shared) -> None:
        self.state = state
        self.boots = 0
        self.meter = PhoneMeter()
        one = state.phone
        self.phone = Phone(
            PhoneModel.of(one.mac, one.product),
            SharedFlash(state.contents, shared.bytes),
            DhcpClient(
                one.mac,
                one.product,
                server=shared.around.dhcp,
                local_address=one.local_address,
                own_address=one.address,
                port=shared.around.dhcp[1],
                clock=shared.clock,
                randomness=shared.randomness,
                emit=self.meter,
                alarms=shared.alarms,
            ),
            settings=PhoneSettings(local_address=one.local_address, ports=shared.ports, tls_profile=one.tls_profile),
            clock=shared.clock,
            randomness=shared.randomness,
            emit=self.meter,
            alarms=shared.alarms,
        )

    async def wake(self) -> None:
        with suppress(BootTimedOut, PowerCut):
            await self.phone.wake(self.state.memory)

    async def do(self, verb: str, stage: Stage) -> None:
        self.meter.stage = stage
        self.boots += verb in BOOTING
        try:
            with suppress(BootTimedOut, PowerCut, FlashError, TimeoutError):
                await _VERBS[verb](self.phone)
        finally:
            self.meter.stage = None

    def state_now(self) -> PhoneState:
        return PhoneState(self.state.phone, self.phone.flash.contents, self.phone.memory)

    def finding(self) -> PhoneFinding:
        outcome = self.phone.last_outcome
        messages = outcome.status_messages if outcome is not None else ()
        return finding_of(self.phone.state.value, self.phone.last_verdicts, messages, self.boots)


async def _boot(phone: Phone) -> None:
    if phone.state is not PhoneStateName.OFF:
        await phone.power_off()
    await phone.boot()


async def _reset(phone: Phone) -> None:
    await phone.reset()


async def _erase(phone: Phone) -> None:
    phone.erase_security_settings()


async def _delete_lsc(phone: Phone) -> None:
    phone.delete_lsc()


async def _settle(phone: Phone) -> None:
    async with asyncio.timeout(SETTLE_S):
        await phone.settle()


_VERBS: Final[dict[str, Callable[[Phone], Awaitable[None]]]] = {
    "boot": _boot,
    "reset": _reset,
    "power-off": Phone.power_off,
    "erase": _erase,
    "delete-lsc": _delete_lsc,
    "settle": _settle,
}


async def _each(names: Collection[str], concurrency: int, act: Callable[[str], Awaitable[None]]) -> None:
    """`act` on all names, so many at a time: a few workers that take the next name, not a task for every phone."""
    rest = iter(names)

    async def work() -> None:
        for name in rest:
            await act(name)

    async with asyncio.TaskGroup() as workers:
        for _ in range(min(concurrency, len(names))):
            workers.create_task(work())
