"""Faults of HTTP answers on 6970: the bytes on the wire, and what the phone and curl make of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from test_tftp_http import Served

from cucm.events import EventLog
from cucm.events.faults import FaultFired
from cucm.events.files import FailureReason, FileRefused, FileServed, RefusalReason, TransferFailed
from cucm.faults import FaultBoard, fault_of
from cucm.faults.catalogue.http import CutBody, Slow, Stall, WrongLength
from cucm.net.listener import Limits
from phone_agent.commands import FetchStatus
from phone_agent.http_client import fetch_http
from tftp_server.file_store import MappingStore
from tftp_server.http import DEFAULT_HTTP_LIMITS, HttpServer, encode_head
from tftp_server.response_faults import Delivery

Draw = Callable[[], str]
ITL = bytes(range(256)) * 4
REQUEST = b"GET /itl HTTP/1.1\r\nHost:x\r\n\r\n"
NEVER_S = 600.0


@asynccontextmanager
async def faulty(address: str, action: str, limits: Limits = DEFAULT_HTTP_LIMITS, **rule: Any) -> AsyncIterator[Served]:
    log = EventLog()
    board = FaultBoard(log.emitter("lab:faults"))
    board.set(fault_of({"id": "it", "point": "http.response", "action": action, **rule}))
    files = MappingStore({"itl": ITL, "other": b"other"})
    server = HttpServer(address, 0, files, emit=log.emitter("tftp"), limits=limits, faults=board)
    await server.start()
    try:
        yield Served(server, address, log)
    finally:
        await server.stop()


async def by_phone(served: Served, **how: Any) -> tuple[FetchStatus, str, bytes | None]:
    attempt, data = await fetch_http(served.address, "itl", port=served.server.port, **how)
    return attempt.status, attempt.detail, data


@pytest.mark.parametrize(
    ("code", "line", "status"),
    [
        (503, "503 Service Unavailable", FetchStatus.ERROR),
        (404, "404 Not Found", FetchStatus.NOT_FOUND),
        (403, "403 Forbidden", FetchStatus.ACCESS_ERROR),
        (299, "299 Unknown", FetchStatus.ERROR),
    ],
)
async def test_another_status(loopback: Draw, code: int, line: str, status: FetchStatus) -> None:
    async with faulty(loopback(), "status", match={"file": "i*"}, attributes={"code": code}) as served:
        assert await by_phone(served) == (status, line, None)
        refused = await served.next(FileRefused)
        assert (refused.reason, refused.status) == (RefusalReason.FAULT, code)
        assert (await served.next(FaultFired)).request == {"file": "itl", "peer": refused.peer}
        assert (await served.talk(REQUEST.replace(b"itl", b"other"))).endswith(b"other")


async def test_even_a_file_that_is_not_there_gets_the_status(loopback: Draw) -> None:
    async with faulty(loopback(), "status", attributes={"code": 500}) as served:
        assert await served.talk(REQUEST.replace(b"itl", b"nothing")) == encode_head(500, 0)


@pytest.mark.parametrize("delta", [1, -24, -2000])
async def test_another_length_is_announced(loopback: Draw, delta: int) -> None:
    async with faulty(loopback(), "wrong-length", attributes={"delta": delta}) as served:
        assert await served.talk(REQUEST) == encode_head(200, len(ITL) + delta) + ITL
        assert (await served.next(FileServed)).size == len(ITL)


async def test_what_a_phone_makes_of_lengths(loopback: Draw) -> None:
    async with faulty(loopback(), "wrong-length", times=1) as served:
        status, detail, data = await by_phone(served)
        assert (status, data) == (FetchStatus.ERROR, None)
        assert "1025 bytes were announced" in detail
    async with faulty(loopback(), "wrong-length", attributes={"delta": -24}) as served:
        assert await by_phone(served) == (FetchStatus.OK, "200 OK", ITL[:1000])
    async with faulty(loopback(), "wrong-length", attributes={"delta": -2000}) as served:
        assert (await by_phone(served))[::2] == (FetchStatus.ERROR, None)


@pytest.mark.parametrize("sent", [0, 100])
async def test_a_cut_body(loopback: Draw, sent: int) -> None:
    async with faulty(loopback(), "cut-body", attributes={"bytes": sent}) as served:
        assert await served.talk(REQUEST) == encode_head(200, len(ITL)) + ITL[:sent]
        failed = await served.next(TransferFailed)
        assert (failed.reason, failed.sent) == (FailureReason.FAULT, sent)
        assert (await by_phone(served))[::2] == (FetchStatus.ERROR, None)


async def test_a_body_shorter_than_the_cut_is_whole(loopback: Draw) -> None:
    async with faulty(loopback(), "cut-body", attributes={"bytes": 5000}) as served:
        assert await by_phone(served) == (FetchStatus.OK, "200 OK", ITL)
        await served.next(FileServed)


async def test_a_slow_body_takes_its_time_and_is_whole(loopback: Draw) -> None:
    async with faulty(loopback(), "slow", attributes={"bytes_per_s": 4096}) as served:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await by_phone(served))[::2] == (FetchStatus.OK, ITL)
        assert loop.time() - began >= 0.15, "1 KiB at 4 KiB a second, the last piece not waited for"
        await served.next(FileServed)


async def test_a_phone_gives_up_a_stalled_body_in_its_own_time(loopback: Draw) -> None:
    async with faulty(loopback(), "stall", attributes={"bytes": 10}) as served:
        assert (await by_phone(served, deadline_s=0.3))[::2] == (FetchStatus.TIMEOUT, None)
        failed = await served.next(TransferFailed)
        assert failed.sent == 10, "the server has noticed that the phone is gone"


async def test_a_stalled_body_ends_with_the_connection(loopback: Draw) -> None:
    async with faulty(loopback(), "stall", attributes={"bytes": 10, "seconds": 0.05}) as served:
        assert await served.talk(REQUEST) == encode_head(200, len(ITL)) + ITL[:10]
        assert (await served.next(TransferFailed)).reason is FailureReason.FAULT


async def test_a_stalled_client_owes_no_data_meanwhile(loopback: Draw) -> None:
    limits = replace(DEFAULT_HTTP_LIMITS, idle_timeout_s=0.05)
    async with faulty(loopback(), "stall", limits, attributes={"seconds": 0.3}) as served:
        began = asyncio.get_running_loop().time()
        assert await served.talk(REQUEST) == encode_head(200, len(ITL))
        assert asyncio.get_running_loop().time() - began >= 0.25
        assert (await served.next(TransferFailed)).reason is FailureReason.FAULT


async def test_a_stopping_server_ends_what_is_stalled(loopback: Draw) -> None:
    async with faulty(loopback(), "stall") as served:
        reader, writer = await served.open()
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(served.server.stop(), 5)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_how_files_are_delivered() -> None:
    assert Delivery.of(None, 1000, 64) == Delivery(1000, 1000, 1000, 64)
    assert Delivery.of(WrongLength(delta=-1), 1000, 64) == Delivery(1000, 999, 1000, 64)
    assert Delivery.of(CutBody(bytes=7), 1000, 64) == Delivery(1000, 1000, 7, 64)
    assert Delivery.of(Slow(bytes_per_s=100), 1000, 64) == Delivery(1000, 1000, 1000, 10, pause_s=0.1)
    assert Delivery.of(Slow(bytes_per_s=2), 1000, 64) == Delivery(1000, 1000, 1000, 1, pause_s=0.5)
    assert Delivery.of(Slow(bytes_per_s=6400), 1000, 64) == Delivery(1000, 1000, 1000, 64, pause_s=0.01)
    assert Delivery.of(Stall(bytes=7), 1000, 64) == Delivery(1000, 1000, 7, 64, silence_s=NEVER_S)


@pytest.mark.needs("curl")
@pytest.mark.parametrize(
    ("action", "attributes", "exit_code"),
    [
        ("status", {"code": 503}, 22),
        ("wrong-length", {"delta": 5}, 18),
        ("cut-body", {"bytes": 100}, 18),
        ("stall", {"bytes": 100, "seconds": 0.1}, 18),
        ("stall", {"bytes": 100}, 28),
        ("slow", {"bytes_per_s": 10_000}, 0),
    ],
)
async def test_what_curl_says(loopback: Draw, action: str, attributes: dict[str, Any], exit_code: int) -> None:
    """22: HTTP error, 18: partial file, 28: time-out."""
    async with faulty(loopback(), action, attributes=attributes) as served:
        url = f"http://{served.address}:{served.server.port}/itl"
        process = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--fail", "--max-time", "1", url, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == exit_code
        assert ITL.startswith(output)
