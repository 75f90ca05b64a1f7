"""Every listener of a lab has limits of size, time and number: a table of all, held against the code and the kernel.

A new way to listen that is not in `SITES`, or a listening socket that is not in `LISTENERS`, fails here.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import pytest
from api_on_sockets import make_running, serving
from lab_on_sockets import network_of

from cucm.errors import LabError
from cucm.net.listener import Limits, Listener
from cucm.net.tls import TlsProfile, client_context, open_stream
from cucm.roles import CertificateUnit
from lab import sftp_login, web_server
from lab.api import server as api_server
from lab.api.socket import SOCKET_NAME
from lab.running_lab import RunningLab
from lab.station_connection import CallManagerParts
from lab.web_server import NodeWeb
from tests.fuzz.targets import DISCOVER, READ_REQUEST
from tftp_server.http import HttpServer
from tftp_server.udp import TftpServer

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("cucm", "tvs_server", "tftp_server", "phone_agent", "lab", "pytest_cucmlab")
LISTENING: Final = {
    *("Listener", "Door", "bind_tcp", "bind_udp", "bind_interface", "bind", "listen", "run_server"),
    *("create_server", "create_unix_server", "create_datagram_endpoint", "start_server", "start_unix_server"),
    *("TCPSite", "UnixSite", "SockSite", "run_app", "serve_forever", "HTTPServer", "ThreadingHTTPServer"),
}
SITES: Final = {
    "cucm.net.door": "the socket of a Listener",
    "cucm.net.listener": "makes a Listener's door",
    "cucm.net.reachability": "a port that refuses: nobody is let in",
    "cucm.net.addresses": "binds for others, and tries ports out",
    "cucm.processes": "holds a port: nobody is let in",
    "cucm.net.broadcast": "binds for the DHCP server",
    "tvs_server.server": "TVS",
    "tftp_server.http": "HTTP",
    "tftp_server.request_port": "TFTP",
    "tftp_server.transfer_port": "a transfer's own port, counted and ended by TFTP",
    "tftp_server.packet_faults": "sends only",
    "lab.call_processing": "SIP",
    "lab.sftp_server": "SFTP",
    "lab.sftp_login": "SFTP, on a socket pair behind the Listener",
    "lab.web_server": "web",
    "lab.dhcp_server": "DHCP",
    "lab.dhcp_rogue": "sends only: what it answers came to the DHCP server",
    "lab.api.server": "API",
    "lab.network_claim": "a claim: nobody listens",
    "lab.cli.examinations": "tries ports out",
    "lab.cli.failures": "a class of another kind with this name",
    "phone_agent.dhcp_client": "a client, for as long as it waits for an answer",
    "phone_agent.tftp_client": "a client, for as long as it waits for an answer",
    "phone_agent.__main__": "tries an address out",
}
"""By module: which row of LISTENERS its calls are, or why they are none."""
MOST_TAKEN: Final = 12 * 1024 * 1024
"""Bytes of one request that a server and the kernel may take between them before the connection is cut."""
PATIENCE_S: Final = 30.0
SHORT_S: Final = 0.2
PIECE: Final = 16 * 1024


@dataclass(frozen=True)
class Row:
    """`begins` is how a request begins that has no end; `tls`: it is said inside TLS, without a client certificate."""

    name: str
    begins: bytes
    tls: bool = False


HELLO: Final = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"
REQUEST: Final = b"GET /v1/"
TCP: Final = {
    2445: (Row("TVS", HELLO), Row("TVS in TLS", b"", tls=True)),
    5060: (Row("SIP", b"REGISTER sip:x SIP/2.0\r\nX: "),),
    5061: (Row("SIP over TLS", HELLO),),
    6970: (Row("HTTP", REQUEST),),
    8443: (Row("web", HELLO), Row("web in TLS", REQUEST, tls=True)),
    api_server.DEFAULT_PORT: (Row("API", REQUEST),),
}


def short(limits: Limits) -> Limits:
    return replace(limits, idle_timeout_s=SHORT_S, handshake_timeout_s=SHORT_S, request_timeout_s=SHORT_S)


# --- the table against the code


def calls() -> Iterator[str]:
    """Modules that call something that listens."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = (
                getattr(node.func, "attr", getattr(node.func, "id", ""))
                for node in ast.walk(tree)
                if isinstance(node, ast.Call)
            )
            if LISTENING.intersection(names):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_every_place_that_listens_is_known() -> None:
    found = set(calls())
    assert found - set(SITES) == set(), "say in SITES what listens there, and give it a row"
    assert set(SITES) <= found


# --- the table against the kernel


@pytest.fixture
async def running(tmp_path: Path, loopback: Callable[[], str]) -> AsyncIterator[RunningLab]:
    """With all there is beside: a plain call server, the web ports of `exec`, the API."""
    running = make_running(tmp_path / "lab", network_of(loopback), "plain-server")
    async with serving(running), AsyncExitStack() as beside:
        await beside.enter_async_context(web_ports(running))
        yield running


@asynccontextmanager
async def web_ports(running: RunningLab) -> AsyncIterator[None]:
    node = next(iter(running.lab.clusters.values())).publisher
    web = NodeWeb(node.name, node.address, node.identity(CertificateUnit.TOMCAT), running.lab.ports)
    await web.start()
    try:
        yield
    finally:
        await web.stop()


def listening(running: RunningLab) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Addresses and ports of TCP that take connections, and of UDP, that this process has in the lab's network."""
    own = {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    found = []
    for table, state in (("tcp", "0A"), ("udp", "07")):
        rows = [line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]]
        places = [row[1].split(":") for row in rows if row[3] == state and f"socket:[{row[9]}]" in own]
        where = [(str(IPv4Address(bytes.fromhex(host)[::-1])), int(port, 16)) for host, port in places]
        found.append([one for one in where if IPv4Address(one[0]) in running.lab.options.network])
    return found[0], found[1]


def rows_of(running: RunningLab) -> dict[int, tuple[Row, ...]]:
    ports = running.lab.ports
    return TCP | {
        ports.sftp: (Row("SFTP", b"SSH-2.0-"),),
        ports.http: (Row("web", REQUEST),),
        ports.https: (Row("web", HELLO), Row("web in TLS", REQUEST, tls=True)),
    }


async def test_every_listening_socket_is_in_the_table(running: RunningLab) -> None:
    over_tcp, over_udp = listening(running)
    assert {port for _, port in over_tcp} == set(rows_of(running))
    assert {port for _, port in over_udp} == {running.lab.ports.tftp, running.lab.ports.dhcp}


async def test_every_listener_has_numbers(running: RunningLab) -> None:
    """But for the API, which has its own, each socket of TCP is a Listener's."""
    over_tcp, _ = listening(running)
    limits = {(one.address, one.port): one.limits for one in listeners(running)}
    assert {place for place in over_tcp if place[1] != api_server.DEFAULT_PORT} == set(limits)
    for place, one in limits.items():
        assert 0 < one.connections_per_address <= one.connections <= 4096, place
        for seconds in (one.handshake_timeout_s, one.idle_timeout_s, one.request_timeout_s):
            assert 0 < seconds <= 600, place


def objects(kind: type) -> list:
    return [one for one in gc.get_objects() if isinstance(one, kind)]


def listeners(running: RunningLab) -> list[Listener]:
    network = running.lab.options.network
    return [one for one in objects(Listener) if one.is_listening and IPv4Address(one.address) in network]


# --- each on the wire


async def until_cut(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while await reader.read(PIECE):
            pass


async def ended(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def test_who_says_nothing_is_cut(running: RunningLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp_login, "LOGIN_TIMEOUT_S", SHORT_S)
    monkeypatch.setattr(web_server, "LIMITS", short(web_server.LIMITS))
    monkeypatch.setattr(api_server, "FIRST_REQUEST_S", SHORT_S)
    for listener in listeners(running):
        listener.limits = short(listener.limits)
    for server in objects(HttpServer):
        server._limits = short(server._limits)
    for parts in objects(CallManagerParts):
        object.__setattr__(parts, "limits", short(parts.limits))

    async def be_silent(open_connection: Callable, *where: object) -> None:
        reader, writer = await open_connection(*where)
        await until_cut(reader)
        await ended(writer)

    over_tcp, _ = listening(running)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as silent:
        for place in over_tcp:
            silent.create_task(be_silent(asyncio.open_connection, *place), name=str(place))
        control = running.lab.options.directory / SOCKET_NAME
        silent.create_task(be_silent(asyncio.open_unix_connection, str(control)), name="control")


async def say_without_end(host: str, port: int, row: Row) -> int:
    """How many bytes were taken before the connection was cut."""
    context = client_context(profile=TlsProfile.AES256_SHA) if row.tls else None
    stream = await open_stream(host, port, context=context)
    sent = 0
    try:
        stream.write(row.begins)
        while sent < 4 * MOST_TAKEN:
            stream.write(b"a" * PIECE)
            await stream.drain()
            sent += PIECE
    except (OSError, LabError):
        pass
    finally:
        stream.abort()
    return sent


async def test_who_says_too_much_is_cut(running: RunningLab) -> None:
    over_tcp, _ = listening(running)
    for host, port in over_tcp:
        for row in rows_of(running)[port]:
            async with asyncio.timeout(PATIENCE_S):
                assert await say_without_end(host, port, row) < MOST_TAKEN, (row.name, host, port)


async def test_one_too_many_is_turned_away(running: RunningLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "MAX_CONNECTIONS", 2)
    for listener in listeners(running):
        listener.limits = replace(listener.limits, connections_per_address=2)
    over_tcp, _ = listening(running)
    for place in over_tcp:
        first = [await asyncio.open_connection(*place) for _ in range(2)]
        reader, writer = await asyncio.open_connection(*place)
        async with asyncio.timeout(PATIENCE_S):
            await until_cut(reader)
        assert not [one for one, _ in first if one.at_eof()], place
        for one in (writer, *(other for _, other in first)):
            await ended(one)


@pytest.fixture
def client(running: RunningLab) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((running.lab.address(99), 0))
        client.setblocking(False)
        yield client


async def answer(client: socket.socket) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.get_running_loop().sock_recv(client, 65536)


async def test_tftp(running: RunningLab, client: socket.socket) -> None:
    publisher = next(iter(running.lab.clusters.values())).publisher
    server = next(one for one in objects(TftpServer) if one.address == publisher.address)
    place = (server.address, server.port)
    client.sendto(b"\0\1" + b"a" * 60_000, place)
    assert (await answer(client)).startswith(b"\0\5"), "a request that is too long"
    quick = replace(server.limits.transfer, tries=2, first_timeout_s=SHORT_S, longest_timeout_s=SHORT_S)
    server.limits = replace(server.limits, transfers_per_address=1, transfer=quick)
    request = READ_REQUEST.replace(b"CTLFile.tlv", b"ITLFile.tlv")
    client.sendto(request, place)
    assert (await answer(client)).startswith(b"\0\6")
    assert server.transfers == 1
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind((client.getsockname()[0], 0))
        other.setblocking(False)
        other.sendto(request, place)
        assert b"Too many transfers" in await answer(other)
    async with asyncio.timeout(PATIENCE_S):
        while server.transfers:  # who acknowledges nothing is given up
            await asyncio.sleep(0)


async def test_dhcp(running: RunningLab, client: socket.socket) -> None:
    """It keeps leases only, of addresses that it has: strangers get none."""
    server = running.lab.dhcp
    place = (server.address, server.port)
    client.sendto(DISCOVER + bytes(60_000), place)
    for number in range(600):
        client.sendto(DISCOVER[:28] + number.to_bytes(6) + DISCOVER[34:], place)
        await asyncio.sleep(0)
    phone = next(iter(running.lab.phones.values()))
    async with asyncio.timeout(PATIENCE_S):
        await phone.boot()
    assert set(server.leases) == {phone.model.name.removeprefix("SEP")}
