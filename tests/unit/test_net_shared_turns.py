"""One reader and one timer for all who are on a loop, from the first to the last of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from cucm.net import shared_turns
from cucm.net.shared_turns import SharedTurns

NEW_LOOPS = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@NEW_LOOPS
def test_all_on_a_loop_share_until_the_last_has_left(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def run() -> None:
        first = SharedTurns.join()
        second = SharedTurns.join()
        assert second is first
        first.leave()
        assert SharedTurns.join() is second
        second.leave()
        second.leave()
        assert asyncio.get_running_loop() not in shared_turns._OF_LOOP
        another = SharedTurns.join()
        assert another is not first
        another.leave()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


def test_loops_do_not_share() -> None:
    async def join() -> SharedTurns:
        return SharedTurns.join()

    loops = [asyncio.new_event_loop() for _ in range(2)]
    joined = [loop.run_until_complete(join()) for loop in loops]
    assert joined[0] is not joined[1]
    for one, loop in zip(joined, loops, strict=True):
        one.leave()
        loop.close()
