from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from stub_server import stub_server

from cucm.errors import EncodeError
from phone_agent.commands import FetchStatus
from phone_agent.file_client import FileClient, FileLimits
from tftp_server.file_store import MappingStore
from tftp_server.server import FileServer

HTTP_PORT, TFTP_PORT = 6970, 69
IMPATIENT = FileLimits(tftp_timeout_s=0.02, tftp_retransmissions=1, http_deadline_s=0.2, tftp_deadline_s=5.0)


@dataclass
class Answers:
    """What a server says; None is silence. `asked` lists the transports in the order of their requests."""

    http: bytes | None = None
    tftp: bytes | None = None
    asked: list[str] = field(default_factory=list)


def http_ok(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-length: %d\r\n\r\n" % len(content) + content


def tftp_ok(content: bytes) -> bytes:
    return struct.pack(">HH", 3, 1) + content


NOT_FOUND_HTTP = b"HTTP/1.1 404 Not Found\r\nContent-length: 0\r\n\r\n"
BUSY_HTTP = b"HTTP/1.1 503 Service Unavailable\r\nContent-length: 0\r\n\r\n"
NOT_FOUND_TFTP = struct.pack(">HH", 5, 1) + b"File not found\0"
ACCESS_TFTP = struct.pack(">HH", 5, 2) + b"Access violation\0"


@asynccontextmanager
async def serving(address: str, answers: Answers) -> AsyncIterator[None]:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        answers.asked.append("http")
        if answers.http is not None:
            writer.write(answers.http)
        await reader.read()

    def tftp() -> None:
        received, client = datagrams.recvfrom(600)
        if received[1] == 1:
            answers.asked.append("tftp")
            if answers.tftp is not None:
                datagrams.sendto(answers.tftp, client)

    loop = asyncio.get_running_loop()
    async with stub_server(http, address, HTTP_PORT):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind((address, TFTP_PORT))
            datagrams.setblocking(False)
            loop.add_reader(datagrams, tftp)
            try:
                yield
            finally:
                loop.remove_reader(datagrams)


async def test_http_first_and_no_more_if_it_has_the_file(loopback: Callable[[], str]) -> None:
    first, second = loopback(), loopback()
    answers, others = Answers(http=http_ok(b"by HTTP"), tftp=tftp_ok(b"by TFTP")), Answers()
    async with serving(first, answers), serving(second, others):
        result = await FileClient().fetch("CTLFile.tlv", (first, second))
    assert (result.status, result.data, result.server, result.transport) == (
        FetchStatus.OK,
        b"by HTTP",
        first,
        "http",
    )
    assert [attempt.detail for attempt in result.attempts] == ["200 OK"]
    assert (answers.asked, others.asked) == (["http"], [])


@pytest.mark.parametrize("failure", [NOT_FOUND_HTTP, BUSY_HTTP, b"nonsense\r\n\r\n", None])
async def test_any_failure_of_http_leads_to_tftp(loopback: Callable[[], str], failure: bytes | None) -> None:
    address = loopback()
    answers = Answers(http=failure, tftp=tftp_ok(b"by TFTP"))
    async with serving(address, answers):
        result = await FileClient(limits=IMPATIENT).fetch("CTLFile.tlv", [address])
    assert (result.data, result.server, result.transport) == (b"by TFTP", address, "tftp")
    assert [attempt.transport for attempt in result.attempts] == answers.asked == ["http", "tftp"]
    assert result.attempts[0].status is not FetchStatus.OK


async def test_the_next_server_is_asked_last(loopback: Callable[[], str]) -> None:
    first, second = loopback(), loopback()
    empty, full = Answers(NOT_FOUND_HTTP, NOT_FOUND_TFTP), Answers(BUSY_HTTP, tftp_ok(b"the file"))
    async with serving(first, empty), serving(second, full):
        result = await FileClient().fetch("CTLFile.tlv", [first, second])
    assert (result.data, result.server) == (b"the file", second)
    tried = [(attempt.server, attempt.transport, attempt.status.value) for attempt in result.attempts]
    assert tried == [
        (first, "http", "not-found"),
        (first, "tftp", "not-found"),
        (second, "http", "error"),
        (second, "tftp", "ok"),
    ]


@pytest.mark.parametrize(
    ("tftp", "status"),
    [(NOT_FOUND_TFTP, FetchStatus.NOT_FOUND), (ACCESS_TFTP, FetchStatus.ACCESS_ERROR), (None, FetchStatus.TIMEOUT)],
)
async def test_without_the_file_the_status_is_that_of_the_last_attempt(
    loopback: Callable[[], str], tftp: bytes | None, status: FetchStatus
) -> None:
    first, second = loopback(), loopback()
    async with AsyncExitStack() as servers:
        await servers.enter_async_context(serving(first, Answers(NOT_FOUND_HTTP, NOT_FOUND_TFTP)))
        await servers.enter_async_context(serving(second, Answers(NOT_FOUND_HTTP, tftp)))
        result = await FileClient(limits=IMPATIENT).fetch("CTLFile.tlv", [first, second])
    assert (result.status, result.data, result.server, result.transport) == (status, None, None, None)
    assert len(result.attempts) == 4


async def test_servers_that_are_not_there(loopback: Callable[[], str]) -> None:
    result = await FileClient(limits=IMPATIENT).fetch("CTLFile.tlv", [loopback()])
    assert [attempt.status for attempt in result.attempts] == [FetchStatus.ERROR, FetchStatus.TIMEOUT]
    assert result.status is FetchStatus.TIMEOUT


async def test_no_server_at_all() -> None:
    result = await FileClient().fetch("CTLFile.tlv", [])
    assert (result.status, result.attempts) == (FetchStatus.ERROR, ())


async def test_both_transports_have_the_size_limit(loopback: Callable[[], str]) -> None:
    address = loopback()
    async with serving(address, Answers(http_ok(b"a" * 101), tftp_ok(b"a" * 101))):
        result = await FileClient(limits=FileLimits(max_size=100)).fetch("CTLFile.tlv", [address])
    assert [attempt.status for attempt in result.attempts] == [FetchStatus.ERROR] * 2
    assert result.data is None


async def test_a_name_that_fits_no_request_is_refused(loopback: Callable[[], str]) -> None:
    with pytest.raises(EncodeError):
        await FileClient().fetch("CTL File.tlv", [loopback()])


@pytest.mark.parametrize("options", [{}, {"blksize": 1428, "tsize": 0}])
async def test_our_own_file_server_over_both_transports(loopback: Callable[[], str], options: dict[str, int]) -> None:
    address = loopback()
    content = bytes(range(256)) * 20
    server = FileServer(address, MappingStore({"ITLFile.tlv": content}))
    await server.start()
    try:
        over_http = await FileClient(tftp_options=options).fetch("ITLFile.tlv", [address])
        over_tftp = await FileClient(tftp_options=options, http_port=46_970).fetch("ITLFile.tlv", [address])
        missing = await FileClient(tftp_options=options).fetch("CTLFile.tlv", [address])
    finally:
        await server.stop()
    assert (over_http.transport, over_http.data) == ("http", content)
    assert (over_tftp.transport, over_tftp.data) == ("tftp", content)
    assert [attempt.status for attempt in missing.attempts] == [FetchStatus.NOT_FOUND] * 2


async def test_an_older_model_knows_tftp_only(loopback: Callable[[], str]) -> None:
    address = loopback()
    answers = Answers(http=http_ok(b"by HTTP"), tftp=tftp_ok(b"by TFTP"))
    async with serving(address, answers):
        result = await FileClient(http=False).fetch("CTLFile.tlv", [address])
    assert (result.data, result.transport) == (b"by TFTP", "tftp")
    assert answers.asked == ["tftp"]
