"""Lines of a turn, or of busy ones, are written together; without a loop at once; and a program's end loses none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from cucm.events import EventLog
from cucm.events.files import FileServerStopped
from cucm.render.trace_writer import BUSY, ENOUGH, TraceWriter, each

NewLoop = Callable[[], asyncio.AbstractEventLoop]
on_both = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def log_into(written: list[list[str]]) -> EventLog:
    def render(record: object) -> list[str]:
        address = record.event.address  # type: ignore[attr-defined]
        return [address, "more"] if address else []

    log = EventLog()
    log.subscribe(TraceWriter(each(render), written.append).add)
    return log


@on_both
def test_a_turn_is_written_at_once(new_loop: NewLoop) -> None:
    written: list[list[str]] = []

    async def run() -> None:
        log = log_into(written)
        for turn in ("first", "second"):
            for address in (f"{turn} a", "", f"{turn} b"):
                log.emit("tftp", FileServerStopped(address))
            assert len(written) == (turn == "second")
            await asyncio.sleep(0)
        log.emit("tftp", FileServerStopped(""))
        await asyncio.sleep(0)
        log.emit("tftp", FileServerStopped("last"))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    assert written == [
        ["first a", "more", "first b", "more"],
        ["second a", "more", "second b", "more"],
        ["last", "more"],
    ]


@on_both
def test_busy_turns_are_written_together_until_there_is_enough_or_one_brings_little(new_loop: NewLoop) -> None:
    written: list[list[str]] = []
    expected: list[list[str]] = []

    async def run() -> None:
        log = log_into(written)

        def tell(count: int, address: str) -> list[str]:
            for _ in range(count):
                log.emit("tftp", FileServerStopped(address))
            return [address, "more"] * count

        together = []
        for turn, count in enumerate([BUSY, BUSY, BUSY - 1]):
            together += tell(count, f"{turn}")
            await asyncio.sleep(0)
            assert written == ([together] if count < BUSY else [])
        expected.append(together)
        for _ in range(2):
            together = []
            for turn in range(ENOUGH // BUSY):
                assert written == expected
                together += tell(BUSY, f"enough {turn}")
                await asyncio.sleep(0)
            expected.append(together)
        assert written == expected
        expected.append(tell(BUSY, "last"))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    assert written == expected


def test_without_a_loop_nothing_waits() -> None:
    written: list[list[str]] = []
    log = log_into(written)
    log.emit("tftp", FileServerStopped("a"))
    log.emit("tftp", FileServerStopped("b"))
    assert written == [["a", "more"], ["b", "more"]]
