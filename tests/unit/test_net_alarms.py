from __future__ import annotations

import asyncio
import time

from cucm.clock import MovableClock, SystemClock
from cucm.net.alarms import Alarms

NOW = 1_000_000.0


async def rung(*events: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        for event in events:
            await event.wait()


async def test_a_moment_that_has_passed_rings_at_once() -> None:
    rings = asyncio.Event()
    Alarms(MovableClock(NOW, frozen=True)).at(NOW - 1, rings.set)
    await rung(rings)


async def test_who_waits_for_tomorrow_hears_when_the_clock_is_moved() -> None:
    clock = MovableClock(NOW, frozen=True)
    alarms, rings = Alarms(clock, check_s=0.01), asyncio.Event()
    alarms.at(NOW + 86_400, rings.set)
    clock.move(86_401)
    await rung(rings)


async def test_alarms_ring_in_the_order_of_their_moments() -> None:
    clock = MovableClock(NOW, frozen=True)
    alarms, order, last = Alarms(clock, check_s=0.01), [], asyncio.Event()
    alarms.at(NOW + 30, last.set)
    for moment in (20, 10):
        alarms.at(NOW + moment, lambda moment=moment: order.append(moment))
    clock.move(60)
    await rung(last)
    assert order == [10, 20]


async def test_a_cancelled_alarm_is_silent() -> None:
    clock = MovableClock(NOW, frozen=True)
    alarms, heard, last = Alarms(clock, check_s=0.01), [], asyncio.Event()
    alarms.at(NOW + 1, lambda: heard.append("cancelled")).cancel()
    alarms.at(NOW + 2, last.set)
    clock.move(10)
    await rung(last)
    assert heard == []


async def test_one_that_breaks_does_not_keep_the_next_from_ringing(caplog) -> None:
    clock = MovableClock(NOW, frozen=True)
    alarms, last = Alarms(clock), asyncio.Event()
    alarms.at(NOW - 2, lambda: 1 / 0)
    alarms.at(NOW - 1, last.set)
    await rung(last)
    assert "an alarm broke" in caplog.text


def test_another_loop_may_go_on_with_them() -> None:
    clock = MovableClock(NOW, frozen=True)
    alarms = Alarms(clock, check_s=0.01)

    async def wait_for(moment: float) -> None:
        rings = asyncio.Event()
        alarms.at(moment, rings.set)
        await rung(rings)

    async def set_only() -> None:
        alarms.at(NOW + 5, lambda: None)

    asyncio.run(set_only())
    asyncio.run(wait_for(NOW - 1))


async def test_those_who_come_later_do_not_put_off_who_waits() -> None:
    """Somebody who waits for less than a look at the clock comes at every turn: the first one rings all the same."""
    alarms, rings = Alarms(SystemClock(), check_s=0.2), asyncio.Event()
    alarms.at(time.time() + 0.1, rings.set)
    async with asyncio.timeout(5):
        while not rings.is_set():
            alarms.at(time.time() + 0.19, lambda: None)
            await asyncio.sleep(0)
    assert rings.is_set()
