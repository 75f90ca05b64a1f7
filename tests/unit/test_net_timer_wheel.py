"""One timer for many waits: nobody before his time, everybody after it, and who was taken out not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from cucm.net.timer_wheel import TICK_S, TimerWheel


class Waiter:
    slot = 0

    def __init__(self, wheel: TimerWheel, done: asyncio.Event, rounds: int = 1) -> None:
        self.wheel = wheel
        self.done = done
        self.rounds = rounds
        self.called_at: list[float] = []

    def time_is_up(self) -> None:
        self.called_at.append(self.wheel.now)
        if len(self.called_at) < self.rounds:
            self.wheel.add(self, self.wheel.now + TICK_S)
        else:
            self.done.set()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_everybody_in_his_time(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def run() -> None:
        wheel = TimerWheel(asyncio.get_running_loop())
        wheel.turn()
        started = wheel.now
        done = [asyncio.Event() for _ in range(3)]
        late, early, again = (Waiter(wheel, event, rounds) for event, rounds in zip(done, (1, 1, 3), strict=True))
        taken_out = Waiter(wheel, asyncio.Event())
        wheel.add(late, started + 5 * TICK_S)
        wheel.add(early, started + TICK_S)
        wheel.add(again, started + TICK_S)
        wheel.add(taken_out, started + TICK_S)
        wheel.remove(taken_out)
        wheel.remove(taken_out)
        async with asyncio.timeout(20):
            for event in done:
                await event.wait()
        millisecond = 0.001  # uvloop's clock
        assert early.called_at[0] >= started + TICK_S - millisecond
        assert late.called_at[0] >= started + 5 * TICK_S - millisecond
        assert len(again.called_at) == 3
        assert early.called_at[0] <= late.called_at[0]
        assert taken_out.called_at == []
        wheel.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


def test_a_closed_wheel_calls_nobody() -> None:
    async def run() -> list[float]:
        wheel = TimerWheel(asyncio.get_running_loop())
        never = Waiter(wheel, asyncio.Event())
        wheel.add(never, wheel.now + TICK_S)
        wheel.close()
        wheel.remove(never)
        after = Waiter(TimerWheel(asyncio.get_running_loop()), asyncio.Event())
        after.wheel.add(after, after.wheel.now + 2 * TICK_S)
        async with asyncio.timeout(20):
            await after.done.wait()
        return never.called_at

    assert asyncio.run(run()) == []


class Acting(Waiter):
    """Does something in its turn."""

    def __init__(self, wheel: TimerWheel, act: Callable[[], object]) -> None:
        super().__init__(wheel, asyncio.Event())
        self.act = act

    def time_is_up(self) -> None:
        super().time_is_up()
        self.act()


def test_who_is_taken_out_by_one_of_the_same_slot_is_not_called() -> None:
    async def run() -> tuple[list[float], list[float]]:
        wheel = TimerWheel(asyncio.get_running_loop())
        gone, last = Waiter(wheel, asyncio.Event()), Waiter(wheel, asyncio.Event())
        deadline = wheel.now + TICK_S
        for one in (Acting(wheel, lambda: wheel.remove(gone)), gone, last):
            wheel.add(one, deadline)
        async with asyncio.timeout(20):
            await last.done.wait()
        wheel.close()
        return gone.called_at, last.called_at

    gone, last = asyncio.run(run())
    assert gone == []
    assert len(last) == 1


def test_one_that_fails_does_not_keep_the_others_waiting() -> None:
    async def run() -> list[str]:
        loop, told = asyncio.get_running_loop(), list[str]()
        loop.set_exception_handler(lambda _, context: told.append(type(context["exception"]).__name__))
        wheel = TimerWheel(loop)
        beside, later = Waiter(wheel, asyncio.Event()), Waiter(wheel, asyncio.Event())
        wheel.add(Acting(wheel, lambda: 1 / 0), wheel.now + TICK_S)
        wheel.add(beside, wheel.now + TICK_S)
        wheel.add(later, wheel.now + 2 * TICK_S)
        async with asyncio.timeout(20):
            await beside.done.wait()
            await later.done.wait()
        wheel.close()
        return told

    assert asyncio.run(run()) == ["ZeroDivisionError"]


def test_the_wheel_may_be_closed_by_one_who_is_called() -> None:
    async def run() -> tuple[list[float], list[dict[str, Any]]]:
        loop, troubles = asyncio.get_running_loop(), list[dict[str, Any]]()
        loop.set_exception_handler(lambda _, context: troubles.append(context))
        wheel = TimerWheel(loop)
        beside, later = Waiter(wheel, asyncio.Event()), Waiter(wheel, asyncio.Event())
        closing = Acting(wheel, wheel.close)
        wheel.add(closing, wheel.now - 2 * TICK_S)
        wheel.add(beside, wheel.now - 2 * TICK_S)
        wheel.add(later, wheel.now - TICK_S)
        async with asyncio.timeout(20):
            await closing.done.wait()
        return beside.called_at + later.called_at, troubles

    assert asyncio.run(run()) == ([], [])
