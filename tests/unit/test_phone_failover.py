"""A phone that has lost its CallManager: others of the group, back-off, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice

import pytest
from both_loops import on_both_loops
from phone_network import Servers, running
from phone_script import NEW, NOW, OLD, PHONE, Cluster

from cucm.clock import MovableClock
from cucm.events import Event
from cucm.events import phone as events
from phone_agent.address import FixedTftpServers
from phone_agent.driver import Phone
from phone_agent.failover import Failover, FailoverDelays
from phone_agent.flash import MemoryFlash
from phone_agent.settings import PhoneSettings
from phone_agent.state import PhoneState

DEADLINE_S = 30
Draw = Callable[[], str]
SOON = FailoverDelays(0.01, 0.02)
NEVER = FailoverDelays(3600, 3600)


class Watched:
    """One phone of `cluster`, and what it told."""

    def __init__(
        self, cluster: Cluster, group: list[str], address: str, delays: FailoverDelays, **settings: bool
    ) -> None:
        self.events: list[Event] = []
        self._heard = asyncio.Event()
        self.dhcp = Dhcp(())
        self.phone = Phone(
            PHONE,
            MemoryFlash(cluster.holding(configuration=cluster.configuration(call_managers=group), tftp_servers=())),
            self.dhcp,
            settings=PhoneSettings(local_address=address, failover_delays=delays, **settings),
            clock=MovableClock(NOW, frozen=True),
            emit=self._hear,
        )
        # no TFTP server: the phone goes on with what it has

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._heard.set()

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    async def until(self, kind: type[Event], count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.count(kind) < count:
                self._heard.clear()
                await self._heard.wait()


class Dhcp(FixedTftpServers):
    """Remembers how it was closed."""

    def __init__(self, servers: tuple[str, ...]) -> None:
        super().__init__(servers)
        self.closed: list[bool] = []

    async def close(self, *, release: bool) -> None:
        self.closed.append(release)


@asynccontextmanager
async def two_nodes(draw: Draw) -> AsyncIterator[tuple[Cluster, Servers, Cluster, Servers]]:
    """Two CallManagers of one cluster with the same certificate."""
    first = replace(OLD, address=draw())
    second = replace(OLD, address=draw())
    async with running(first) as one, running(second) as two:
        yield first, one, second, two


@on_both_loops
async def test_the_next_of_the_group_is_tried_at_once(loopback: Draw) -> None:
    async with two_nodes(loopback) as (first, one, second, two):
        watched = Watched(first, [first.address, second.address], loopback(), NEVER)
        await watched.phone.boot()
        assert watched.phone.registered_with == "old-0"
        one.phones[0].abort()
        await watched.until(events.RegistrationLost, 1)
        await watched.phone.settle()
        assert watched.phone.state is PhoneState.REGISTERED
        assert watched.phone.registered_with == "old-1"
        assert len(two.phones) == 1
        await watched.phone.power_off()
    assert watched.phone.registered_with is None
    assert watched.dhcp.closed == [False]


async def test_without_another_the_same_is_tried_after_the_delay(loopback: Draw) -> None:
    old = replace(OLD, address=loopback())
    async with running(old) as servers:
        watched = Watched(old, [old.address], loopback(), SOON)
        await watched.phone.boot()
        servers.phones[0].abort()
        await watched.until(events.Registered, 2)
        servers.phones[1].abort()  # it was lost early, and is got back all the same
        await watched.until(events.Registered, 3)
        await watched.phone.power_off()
    assert watched.count(events.RegistrationLost) == 2


async def test_it_tries_until_a_callmanager_is_back(loopback: Draw) -> None:
    old = replace(OLD, address=loopback())
    watched = Watched(old, [old.address], loopback(), SOON)
    async with running(old):
        await watched.phone.boot()
    await watched.until(events.RegistrationFailed, 3)
    async with running(old):
        await watched.until(events.Registered, 2)
        await watched.phone.power_off()


async def test_a_phone_without_failover_stays_unregistered(loopback: Draw) -> None:
    old = replace(OLD, address=loopback())
    async with running(old) as servers:
        watched = Watched(old, [old.address], loopback(), SOON, failover=False)
        await watched.phone.boot()
        servers.phones[0].abort()
        await watched.until(events.RegistrationLost, 1)
        assert not watched.phone._failover.is_running
        assert watched.phone.state is PhoneState.UNREGISTERED
        await watched.phone.power_off()


async def test_a_boot_ends_the_failover(loopback: Draw) -> None:
    old = replace(OLD, address=loopback())
    async with running(old) as servers:
        watched = Watched(old, [old.address], loopback(), NEVER)
        await watched.phone.boot()
        servers.phones[0].abort()
        await watched.until(events.RegistrationLost, 1)
        assert watched.phone._failover.is_running
        assert (await watched.phone.boot()).registered is not None
        assert not watched.phone._failover.is_running
        await watched.phone.power_off()


async def test_power_off_in_the_middle_of_an_attempt(loopback: Draw) -> None:
    old = replace(OLD, address=loopback())
    watched = Watched(old, [old.address], loopback(), SOON)
    async with running(old) as servers:
        await watched.phone.boot()
        asked = asyncio.Event()

        async def hang(*_arguments: object) -> None:
            asked.set()
            await asyncio.Event().wait()

        await watched.phone.settle()  # nothing under way
        watched.phone._register = hang  # type: ignore[method-assign, assignment]
        servers.phones[0].abort()
        async with asyncio.timeout(DEADLINE_S):
            await asked.wait()
        assert watched.phone.state is PhoneState.REGISTERING
        await watched.phone.power_off()
        await watched.phone.settle()
    assert watched.phone.state is PhoneState.OFF
    changes = [event.after for event in watched.events if isinstance(event, events.StateChanged)]
    assert changes[-3:] == ["registering", "unregistered", "off"]


async def test_a_crash_breaks_the_connection_and_says_nothing(loopback: Draw) -> None:
    old = replace(OLD, address=loopback())
    async with running(old) as servers:
        watched = Watched(old, [old.address], loopback(), NEVER)
        await watched.phone.boot()
        await watched.phone.crash()
        async with asyncio.timeout(DEADLINE_S):
            await servers.ended.wait()
        assert servers.endings == ["ConnectionResetError"]
    assert watched.phone.state is PhoneState.OFF
    assert watched.count(events.PowerLost) == 1
    assert (watched.count(events.RegistrationLost), watched.count(events.PoweredOff)) == (0, 0)
    assert watched.dhcp.closed == [False]
    await watched.phone.crash()
    assert watched.count(events.PowerLost) == 1


async def test_outcome_and_verdicts_of_the_last_boot(loopback: Draw) -> None:
    old, new = replace(OLD, address=loopback()), replace(NEW, address=loopback())
    async with running(old), running(new):
        watched = Watched(old, [old.address], loopback(), NEVER)
        assert (watched.phone.last_outcome, watched.phone.last_verdicts) == (None, ())
        watched.dhcp.servers = (new.address,)
        watched.phone.flash.store(configuration=old.configuration())
        outcome = await watched.phone.boot()
        assert watched.phone.last_outcome is outcome
        verdicts = [(verdict.what, verdict.verdict) for verdict in watched.phone.last_verdicts]
        assert verdicts[:2] == [("TVS", "tvs-certificate-not-found"), ("CTL", "tvs-certificate-not-found")]
        assert ("configuration", "tvs-certificate-not-found") in verdicts
        watched.dhcp.servers = (old.address,)
        await watched.phone.reset()
        assert [(verdict.what, verdict.detail) for verdict in watched.phone.last_verdicts] == [("configuration", "ctl")]
        await watched.phone.power_off()


# --- the loop alone --------------------------------------------------------------------------------------------------


def test_delays_double_up_to_the_longest() -> None:
    assert list(islice(FailoverDelays(10, 65).each(), 5)) == [10, 20, 40, 65, 65]
    assert list(islice(FailoverDelays(100, 65).each(), 2)) == [65, 65]
    assert list(islice(FailoverDelays(0, 65).each(), 3)) == [0.01, 0.02, 0.04]
    assert list(islice(FailoverDelays(0, 0).each(), 3)) == [0.01, 0.01, 0.01]


class Script:
    """Answers attempts from a list, and remembers whom each was without."""

    def __init__(self, *answers: bool | Exception) -> None:
        self._answers: Iterator[bool | Exception] = iter(answers)
        self.asked: list[str | None] = []
        self.done = asyncio.Event()

    async def until_done(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.done.wait()
        self.done.clear()

    async def attempt(self, without: str | None) -> bool:
        self.asked.append(without)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            self.done.set()
            raise answer
        if answer:
            self.done.set()
        return answer


@pytest.mark.parametrize(
    ("answers", "asked"), [((True,), ["a"]), ((False, False, True), ["a", None, None]), ((False, True), ["a", None])]
)
async def test_the_others_first_then_everybody(answers: tuple[bool, ...], asked: list[str | None]) -> None:
    script = Script(*answers)
    failover = Failover(script.attempt, SOON)
    failover.start("a")
    assert failover.is_running
    await script.until_done()
    await failover.end()
    assert script.asked == asked
    assert not failover.is_running


async def test_a_second_loss_soon_after_the_first_waits() -> None:
    """Two CallManagers that take the phone and drop it."""
    script = Script(True, True)
    failover = Failover(script.attempt, FailoverDelays(60, 0))
    for lost in ("a", "b"):
        failover.start(lost)
        await script.until_done()
        await failover.end()
    assert script.asked == ["a", None]


async def test_a_fault_of_ours_is_logged_and_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(RuntimeError("ours"))
    failover = Failover(script.attempt, SOON)
    failover.start("a")
    await script.until_done()
    async with asyncio.timeout(DEADLINE_S):
        while failover.is_running:
            await asyncio.sleep(0)
    await failover.end()
    assert "failover broke" in caplog.text


async def test_it_is_not_settled_while_a_loss_within_the_attempt_is_dealt_with() -> None:
    """The CallManager that has just taken the phone drops it before the attempt is over."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    asked: list[str | None] = []

    async def attempt(without: str | None) -> bool:
        asked.append(without)
        if len(asked) == 1:
            failover.start("b")
            return True
        entered.set()
        await go_on.wait()
        return True

    failover = Failover(attempt, FailoverDelays(0, 0))
    failover.start("a")
    settled = asyncio.gather(failover.settle(), failover.settle())
    async with asyncio.timeout(DEADLINE_S):
        await entered.wait()
        was_settled = settled.done()
        go_on.set()
        await settled
    await failover.end()
    assert asked == ["a", "b"]
    assert not was_settled
