"""One timer for all that wait equally long, on both loops."""

from __future__ import annotations

import asyncio

from both_loops import on_both_loops

from cucm.net.deadlines import Countdown

DEADLINE_S = 20


@on_both_loops
async def test_they_expire_in_the_order_in_which_they_began() -> None:
    expired, last = list[str](), asyncio.Event()

    def expire(item: str) -> None:
        expired.append(item)
        if item == "anew":
            last.set()

    countdown = Countdown(0.02, expire)
    for item in ("anew", "first", "stopped", "second", "anew"):
        countdown.start(item)
    countdown.stop("stopped")
    countdown.stop("never began")
    async with asyncio.timeout(DEADLINE_S):
        await last.wait()
    assert expired == ["first", "second", "anew"]


@on_both_loops
async def test_one_that_fails_does_not_keep_the_others_waiting() -> None:
    loop, told, last = asyncio.get_running_loop(), list[str](), asyncio.Event()
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"]).__name__))

    def expire(item: str) -> None:
        if item == "fails":
            raise ZeroDivisionError
        last.set()

    countdown = Countdown(0.01, expire)
    countdown.start("fails")
    countdown.start("last")
    async with asyncio.timeout(DEADLINE_S):
        await last.wait()
    assert told == ["ZeroDivisionError"]


@on_both_loops
async def test_nobody_expires_once_it_is_closed_and_it_may_begin_again() -> None:
    expired, again = list[str](), asyncio.Event()

    def expire(item: str) -> None:
        expired.append(item)
        again.set()

    countdown = Countdown(0.01, expire)
    countdown.start("closed")
    countdown.close()
    countdown.start("again")
    async with asyncio.timeout(DEADLINE_S):
        await again.wait()
    assert expired == ["again"]
