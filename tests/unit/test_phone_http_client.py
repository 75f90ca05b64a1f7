from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from stub_server import stub_server

from cucm.errors import DecodeError, EncodeError, LimitExceeded
from phone_agent.commands import FetchStatus
from phone_agent.http_client import MAX_HEAD, Response, decode_head, fetch_http, get_request

CISCOS_HEAD = b"HTTP/1.1 200 OK\r\nContent-length: 8\r\nCache-Control: no-store\r\nContent-type: */*\r\n\r\n"
"""Headers and their order: facts 8."""


@asynccontextmanager
async def server(
    address: str, answer: bytes, *, port: int = 0, hang: bool = False
) -> AsyncIterator[tuple[int, bytearray]]:
    """Answers every connection with these bytes after the request's empty line; yields port and what it received."""
    received = bytearray()
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if hang:
            await release.wait()
        else:
            received.extend(await reader.read())  # whatever else the client has to say until it hangs up

    async with stub_server(serve, address, port) as listening:
        try:
            yield listening, received
        finally:
            release.set()


@asynccontextmanager
async def closing_server(address: str, answer: bytes) -> AsyncIterator[int]:
    """Answers and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with stub_server(serve, address) as port:
        yield port


# -- the request ----------------------------------------------------------------------------------------------------


def test_the_published_request_byte_for_byte() -> None:
    request = get_request("CTLSEP2834A2823B58.tlv", "198.51.100.0")
    assert request == b"GET /CTLSEP2834A2823B58.tlv HTTP/1.1\r\nHost:198.51.100.0:6970\r\n\r\n"
    assert len(request) == 64


def test_the_signed_configuration_takes_69_bytes() -> None:
    assert len(get_request("SEP2834A2823B58.cnf.xml.sgn", "198.51.100.0")) == 69


async def test_a_real_socket_on_port_6970_receives_exactly_that() -> None:
    for address in (f"127.81.{net}.{host}" for net in range(100, 250) for host in range(1, 10)):  # as long as Cisco's
        try:
            async with server(address, CISCOS_HEAD + b"the file", port=6970) as (_, received):
                attempt, content = await fetch_http(address, "CTLSEP2834A2823B58.tlv")
        except OSError:
            continue  # another test run has it
        break
    assert bytes(received) == f"GET /CTLSEP2834A2823B58.tlv HTTP/1.1\r\nHost:{address}:6970\r\n\r\n".encode()
    assert len(received) == 64
    assert (attempt.status, attempt.detail, content) == (FetchStatus.OK, "200 OK", b"the file")


@pytest.mark.parametrize("name", ["", "a b", "a\r\nX: y", "é", "a\0"])
def test_a_name_that_would_change_the_request_is_refused(name: str) -> None:
    with pytest.raises(EncodeError):
        get_request(name, "127.0.0.1")


# -- the response ---------------------------------------------------------------------------------------------------


def content_of(*chunks: bytes, eof: bool = False, max_size: int = 1000) -> bytes | None:
    response = Response(max_size)
    for chunk in chunks:
        response.receive_data(chunk)
    if eof:
        response.receive_eof()
    return response.content


def test_a_response_in_any_pieces() -> None:
    whole = CISCOS_HEAD + b"the file"
    assert content_of(whole) == b"the file"
    assert content_of(*(whole[i : i + 1] for i in range(len(whole)))) == b"the file"
    assert content_of(whole[:-1]) is None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH:8\r\n\r\n",
        b"HTTP/1.0 200 Fine with me\r\nServer: x\r\ncontent-length:   8  \r\nContent-Length: 8\r\n\r\n",
        b"HTTP/1.1 200 \r\nX-A:\r\nContent-type: */*\r\nContent-length: 8\r\n\r\n",
    ],
)
def test_headers_in_any_case_and_order(head: bytes) -> None:
    assert content_of(head + b"the file") == b"the file"


def test_bytes_beyond_the_announced_length_are_left_alone() -> None:
    assert content_of(CISCOS_HEAD + b"the file and more") == b"the file"


def test_without_a_length_the_connection_ends_the_file() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    assert content_of(head, b"the ", b"file") is None
    assert content_of(head, b"the ", b"file", eof=True) == b"the file"


def test_an_empty_file() -> None:
    assert content_of(b"HTTP/1.1 200 OK\r\nContent-length: 0\r\n\r\n") == b""


@pytest.mark.parametrize("received", [b"", b"HTTP/1.1 200 OK\r\n", CISCOS_HEAD, CISCOS_HEAD + b"the fil"])
def test_a_connection_that_ends_too_early(received: bytes) -> None:
    with pytest.raises(DecodeError, match="ended"):
        content_of(received, eof=True)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/2 200 OK",
        b"SIP/2.0 200 OK",
        b"HTTP/1.1",
        b"HTTP/1.1 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\n folded: line",
        b"HTTP/1.1 200 OK\r\n: nameless",
        b"HTTP/1.1 200 OK\r\nContent-length: -8",
        b"HTTP/1.1 200 OK\r\nContent-length: 8, 8",
        b"HTTP/1.1 200 OK\r\nContent-length: 0x8",
        b"HTTP/1.1 200 OK\r\nContent-length: \xb2",
        b"HTTP/1.1 200 OK\r\nContent-length: 8\r\nContent-length: 9",
        b"HTTP/1.1 200 OK\r\nContent-length: 9999999999999",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_head_that_is_none(head: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_head(head)


@pytest.mark.parametrize(
    "received",
    [
        b"HTTP/1.1 200 OK\r\nContent-length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 1001,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_HEAD // 6),
        b"a" * (MAX_HEAD + 1),
    ],
)
def test_the_limits_hold(received: bytes) -> None:
    with pytest.raises(LimitExceeded):
        content_of(received)


def test_the_largest_file_that_fits() -> None:
    assert content_of(b"HTTP/1.1 200 OK\r\nContent-length: 1000\r\n\r\n" + b"a" * 1000) == b"a" * 1000


# -- on a socket ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "detail"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-length: 7\r\n\r\nmissing", FetchStatus.NOT_FOUND, "404 Not Found"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", FetchStatus.ACCESS_ERROR, "403 Forbidden"),
        (b"HTTP/1.1 503 Busy\r\nContent-length: 0\r\n\r\n", FetchStatus.ERROR, "503 Busy"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n", FetchStatus.ERROR, "301 Moved"),
        (b"HTTP/1.1 200 OK\r\nContent-length: many\r\n\r\n", FetchStatus.ERROR, "no single length"),
        (b"HTTP/1.1 200 OK\r\nContent-length: 9999999\r\n\r\n", FetchStatus.ERROR, "larger than"),
    ],
)
async def test_answers_become_statuses(
    loopback: Callable[[], str], answer: bytes, status: FetchStatus, detail: str
) -> None:
    address = loopback()
    async with server(address, answer) as (port, _):
        attempt, content = await fetch_http(address, "a", port=port)
    assert (attempt.server, attempt.transport, attempt.status, content) == (address, "http", status, None)
    assert detail in attempt.detail


async def test_a_file_cut_short_is_an_error(loopback: Callable[[], str]) -> None:
    address = loopback()
    async with closing_server(address, CISCOS_HEAD + b"the fil") as port:
        attempt, content = await fetch_http(address, "a", port=port)
    assert (attempt.status, content) == (FetchStatus.ERROR, None)


async def test_a_server_that_hangs_up_at_once_is_an_error(loopback: Callable[[], str]) -> None:
    address = loopback()
    async with closing_server(address, b"") as port:
        attempt, _ = await fetch_http(address, "a", port=port)
    assert attempt.status is FetchStatus.ERROR


async def test_a_server_that_stalls_is_a_time_out(loopback: Callable[[], str]) -> None:
    address = loopback()
    async with server(address, CISCOS_HEAD + b"the", hang=True) as (port, _):
        attempt, content = await fetch_http(address, "a", port=port, deadline_s=0.05)
    assert (attempt.status, content) == (FetchStatus.TIMEOUT, None)


async def test_nobody_listening_is_an_error(loopback: Callable[[], str]) -> None:
    attempt, _ = await fetch_http(loopback(), "a", port=46_970)
    assert attempt.status is FetchStatus.ERROR


async def test_the_phones_own_address_is_used(loopback: Callable[[], str]) -> None:
    server_address, phone_address = loopback(), loopback()
    peers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        writer.write(CISCOS_HEAD + b"the file")
        await reader.read()

    async with stub_server(serve, server_address) as port:
        await fetch_http(server_address, "a", port=port, local_address=phone_address)
    assert peers == [phone_address]
