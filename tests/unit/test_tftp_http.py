"""HTTP on 6970 over real sockets: Cisco's bytes, refusals, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TypeVar

import pytest

from cucm.errors import DecodeError
from cucm.events import Event, EventLog
from cucm.events.files import (
    FailureReason,
    FileNotFound,
    FileRefused,
    FileRequested,
    FileServed,
    RefusalReason,
    TransferFailed,
)
from cucm.net.listener import Limits
from tftp_server import http
from tftp_server.file_store import FileStore, MappingStore, NotServed, NotServedReason
from tftp_server.http import DEFAULT_HTTP_LIMITS, HttpServer, decode_head, encode_head

Kind = TypeVar("Kind", bound=Event)
FILES = {"ITLFile.tlv": bytes(8003), "größe 1.xml": b"<x/>", "empty": b"", "big": bytes(64 * 1024 * 1024)}


class Served:
    def __init__(self, server: HttpServer, address: str, log: EventLog) -> None:
        self.server = server
        self.address = address
        self.log = log
        self._news = asyncio.Event()
        log.subscribe(lambda _record: self._news.set())

    async def next(self, kind: type[Kind]) -> Kind:
        async with asyncio.timeout(20):
            while True:
                for record in self.log:
                    if isinstance(record.event, kind):
                        return record.event
                self._news.clear()
                await self._news.wait()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.address, self.server.port)

    async def talk(self, request: bytes, *, end: bool = False) -> bytes:
        """Everything that comes back until the server closes."""
        reader, writer = await self.open()
        try:
            writer.write(request)
            if end:
                writer.write_eof()
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def serving(
    address: str, store: FileStore | None = None, limits: Limits = DEFAULT_HTTP_LIMITS
) -> AsyncIterator[Served]:
    log = EventLog()
    server = HttpServer(address, 0, store or MappingStore(FILES), emit=log.emitter("tftp"), limits=limits)
    await server.start()
    try:
        yield Served(server, address, log)
    finally:
        await server.stop()


async def test_the_phones_request_gets_ciscos_headers_in_ciscos_order(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        request = f"GET /ITLFile.tlv HTTP/1.1\r\nHost:{served.address}:6970\r\n\r\n".encode()
        answer = await served.talk(request)
        head = b"HTTP/1.1 200 OK\r\nContent-length: 8003\r\nCache-Control: no-store\r\nContent-type: */*\r\n\r\n"
        assert answer == head + bytes(8003)
        done = await served.next(FileServed)
        assert (done.name, done.size, done.retransmissions) == ("ITLFile.tlv", 8003, 0)
        assert (await served.next(FileRequested)).request == request


async def test_a_request_in_single_bytes(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        reader, writer = await served.open()
        for byte in b"GET /empty HTTP/1.0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        assert await reader.read() == encode_head(200, 0)
        writer.close()
        await writer.wait_closed()


async def test_one_file_per_connection(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        once = b"GET /empty HTTP/1.1\r\nHost:x\r\n\r\n"
        assert await served.talk(once + once) == encode_head(200, 0)


async def test_names_are_percent_decoded(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        answer = await served.talk(b"GET /gr%C3%B6%C3%9Fe%201.xml HTTP/1.1\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n<x/>")


async def test_head_has_no_body_and_serves_nothing(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        assert await served.talk(b"HEAD /ITLFile.tlv HTTP/1.1\r\n\r\n") == encode_head(200, 8003)
        assert not any(isinstance(record.event, FileServed) for record in served.log)


@pytest.mark.parametrize(
    "target", [b"nothing", b"../../etc/passwd", b"%2e%2e%2fetc%2fpasswd", b"a%00b", b"%ff", b"", b"/etc/passwd"]
)
async def test_what_is_not_there_is_404(loopback: Callable[[], str], target: bytes) -> None:
    async with serving(loopback()) as served:
        answer = await served.talk(b"GET /" + target + b" HTTP/1.1\r\nHost:x\r\n\r\n")
        assert answer == encode_head(404, 0)
        assert answer.startswith(b"HTTP/1.1 404 ")
        await served.next(FileNotFound)


async def test_a_busy_store_is_503(loopback: Callable[[], str]) -> None:
    class Busy:
        def read(self, name: str) -> bytes:
            raise NotServed("remote cluster is asked", reason=NotServedReason.BUSY)

    async with serving(loopback(), Busy()) as served:
        assert await served.talk(b"GET /a HTTP/1.1\r\n\r\n") == encode_head(503, 0)
        assert (await served.next(FileRefused)).reason is RefusalReason.BUSY


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        (b"POST /empty HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405, RefusalReason.METHOD),
        (b"PUT /new HTTP/1.1\r\n\r\n" + bytes(100_000), 405, RefusalReason.METHOD),
        (b"\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET /empty\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET  /empty HTTP/1.1\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET empty HTTP/1.1\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET http://x/empty HTTP/1.1\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET /empty HTTP/2.0\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"G@T /empty HTTP/1.1\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET /empty HTTP/1.1\r\nno colon\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET /empty HTTP/1.1\r\nHost : x\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET /empty HTTP/1.1\r\nHost: x\ny: z\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n", 400, RefusalReason.MALFORMED),
        (b"GET /empty HTTP/1.1\r\n" + b"a: b\r\n" * 65 + b"\r\n", 400, RefusalReason.MALFORMED),
        (b"GET /empty HTTP/1.1\r\na: " + b"b" * 20_000, 400, RefusalReason.MALFORMED),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 400, RefusalReason.MALFORMED),
    ],
)
async def test_refusals(loopback: Callable[[], str], request_bytes: bytes, status: int, reason: RefusalReason) -> None:
    async with serving(loopback()) as served:
        assert await served.talk(request_bytes, end=True) == encode_head(status, 0)
        refused = await served.next(FileRefused)
        assert (refused.status, refused.reason) == (status, reason)


async def test_a_request_cut_short_is_400_and_a_silent_visit_is_nothing(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        assert await served.talk(b"GET /empty HT", end=True) == encode_head(400, 0)
        assert await served.talk(b"", end=True) == b""
        assert sum(isinstance(record.event, FileRefused) for record in served.log) == 1


async def test_a_client_that_says_nothing_is_sent_away(loopback: Callable[[], str]) -> None:
    async with serving(loopback(), limits=replace(DEFAULT_HTTP_LIMITS, request_timeout_s=0.05)) as served:
        assert await served.talk(b"GET /empty HTT") == encode_head(408, 0)
        assert (await served.next(FileRefused)).reason is RefusalReason.TIMEOUT


async def test_a_client_that_does_not_read_is_sent_away(loopback: Callable[[], str]) -> None:
    async with serving(loopback(), limits=replace(DEFAULT_HTTP_LIMITS, idle_timeout_s=0.1)) as served:
        reader, writer = await served.open()
        writer.transport.pause_reading()
        writer.write(b"GET /big HTTP/1.1\r\n\r\n")
        failed = await served.next(TransferFailed)
        assert failed.reason is FailureReason.SILENCE
        assert 0 < failed.sent < len(FILES["big"])
        writer.transport.abort()
        del reader


async def test_a_client_that_takes_for_ever_is_sent_away(
    loopback: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TRANSFER_S", -1.0)
    async with serving(loopback()) as served:
        assert await served.talk(b"GET /big HTTP/1.1\r\n\r\n") == encode_head(200, len(FILES["big"]))
        assert (await served.next(TransferFailed)).reason is FailureReason.TOO_SLOW


async def test_a_client_that_hangs_up_in_the_file_is_told(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        reader, writer = await served.open()
        writer.write(b"GET /big HTTP/1.1\r\n\r\n")
        await reader.readexactly(1000)
        writer.transport.abort()
        assert (await served.next(TransferFailed)).reason is FailureReason.NETWORK


async def test_stopping_ends_a_transfer(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        _, writer = await served.open()
        writer.transport.pause_reading()
        writer.write(b"GET /big HTTP/1.1\r\n\r\n")
        await served.next(FileRequested)
        await served.server.stop()
        assert (await served.next(TransferFailed)).reason is FailureReason.SERVER_STOPPED
        writer.transport.abort()


async def test_connections_are_limited(loopback: Callable[[], str]) -> None:
    async with serving(loopback(), limits=replace(DEFAULT_HTTP_LIMITS, connections=1)) as served:
        _, first = await served.open()
        first.write(b"GET /")
        reader, second = await served.open()
        refused = await served.next(FileRefused)
        assert (refused.reason, refused.status) == (RefusalReason.TOO_MANY_CONNECTIONS, None)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        for writer in (first, second):
            writer.transport.abort()
    assert DEFAULT_HTTP_LIMITS.connections == 2500


def test_decode_errors_name_the_place() -> None:
    with pytest.raises(DecodeError) as caught:
        decode_head(b"GET /a HTTP/1.1\r\ngood: 1\r\nbad\r\n\r\n")
    assert (caught.value.offset, caught.value.path) == (26, "headers")
