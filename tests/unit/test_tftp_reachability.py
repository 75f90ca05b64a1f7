"""The file service behind a firewall, behind a dead network and killed; raw sockets on the other side."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from test_tftp_udp import QUICK, Client, Served, client, on_both_loops, serving

from cucm.errors import AddressBusy
from cucm.events import EventLog
from cucm.events.files import FileServed, FileServerStarted, TransferFailed
from cucm.net.reachability import Reachability
from tftp_server.file_store import MappingStore
from tftp_server.server import FileServer
from tftp_server.udp import TftpLimits

Draw = Callable[[], str]
SILENCE_S = 0.25


async def hears_nothing(phone: Client) -> bool:
    phone.socket.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        await phone.receive()
    phone.socket.settimeout(20)
    return True


def request_from(phone: Client, served: Served) -> None:
    """A connected socket is told of ICMP errors; it hears nobody but the requests' port."""
    phone.socket.connect(served.address)
    phone.socket.send(b"\0\1a\0octet\0")


async def finish(phone: Client, served: Served) -> None:
    phone.acknowledge(1)
    while (await phone.receive())[:4] != b"\0\3\0\2":
        pass
    phone.acknowledge(2)
    assert (await served.next(FileServed)).size == 700


@on_both_loops
async def test_requests_are_refused_and_transfers_go_on(loopback: Draw) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone, client(loopback()) as late:
            assert await phone.ask(served.address, "a")
            served.server.set_reachability(Reachability.REFUSE)
            request_from(late, served)
            with pytest.raises(ConnectionRefusedError):
                await late.receive()
            await finish(phone, served)
            served.server.set_reachability(Reachability.OPEN)
            with client(loopback()) as again:
                assert await again.ask(served.address, "b") == b"\0\3\0\1" + b"b" * 100


@on_both_loops
async def test_a_transfer_survives_a_network_that_comes_back(loopback: Draw) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone, client(loopback()) as late:
            assert await phone.ask(served.address, "a")
            served.server.set_reachability(Reachability.UNREACHABLE)
            request_from(late, served)
            assert await hears_nothing(late)
            phone.acknowledge(1)
            assert await hears_nothing(phone)
            served.server.set_reachability(Reachability.OPEN)
            await finish(phone, served)


@on_both_loops
async def test_a_transfer_that_gives_up_meanwhile_tells_nobody(loopback: Draw) -> None:
    async with serving(loopback(), limits=TftpLimits(transfer=QUICK)) as served:
        with client(loopback()) as phone:
            assert await phone.ask(served.address, "a")
            served.server.set_reachability(Reachability.UNREACHABLE)
            await served.next(TransferFailed)
            assert served.server.transfers == 0
            while not phone.is_silent():
                pass  # repetitions from before
            phone.socket.connect(phone.transfer)
            phone.socket.send(b"\0\4\0\1")
            assert await hears_nothing(phone)  # not even `port unreachable`
            served.server.set_reachability(Reachability.OPEN)
            phone.socket.send(b"\0\4\0\1")
            with pytest.raises(ConnectionRefusedError):
                await phone.receive()


@pytest.mark.parametrize("how", [Reachability.OPEN, Reachability.UNREACHABLE])
@on_both_loops
async def test_a_crash_says_nothing(loopback: Draw, how: Reachability) -> None:
    async with serving(loopback()) as served:
        with client(loopback()) as phone:
            assert await phone.ask(served.address, "a")
            served.server.set_reachability(how)
            phone.socket.connect(phone.transfer)
            served.server.crash()
            served.server.crash()
            assert phone.is_silent()
            phone.socket.send(b"\0\4\0\1")
            with pytest.raises(ConnectionRefusedError):
                await phone.receive()


@on_both_loops
async def test_the_state_is_kept_and_a_taken_port_is_told(loopback: Draw) -> None:
    async with serving(loopback()) as served:
        served.server.set_reachability(Reachability.REFUSE)
        served.server.stop()
        served.server.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.bind(served.address)  # free, as a firewall's refusal is told
            with pytest.raises(AddressBusy):
                served.server.set_reachability(Reachability.OPEN)
        served.server.set_reachability(Reachability.OPEN)
        with client(loopback()) as phone:
            assert await phone.ask(served.address, "b")


@asynccontextmanager
async def file_server(address: str) -> AsyncIterator[tuple[FileServer, EventLog]]:
    log = EventLog()
    server = FileServer(address, MappingStore({"a": b"a"}), tftp_port=0, http_port=0, emit=log.emitter("tftp"))
    await server.start()
    try:
        async with asyncio.timeout(20):
            yield server, log
    finally:
        await server.stop()


@on_both_loops
async def test_both_ports_share_their_fate(loopback: Draw) -> None:
    async with file_server(loopback()) as (server, _):
        with client(loopback()) as phone:
            server.set_reachability(Reachability.UNREACHABLE)
            phone.socket.sendto(b"\0\1a\0octet\0", (server.address, server.tftp_port))
            assert await hears_nothing(phone)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.open_connection(server.address, server.http_port), SILENCE_S)
            server.set_reachability(Reachability.OPEN)
            assert await phone.ask((server.address, server.tftp_port), "a") == b"\0\3\0\1a"


@on_both_loops
async def test_a_killed_service_writes_no_trace_and_can_be_started_again(loopback: Draw) -> None:
    async with file_server(loopback()) as (server, log):
        reader, writer = await asyncio.open_connection(server.address, server.http_port)
        writer.write(b"GET /a HTTP/1.1\r\n")
        await writer.drain()
        while not server.transfers:
            await asyncio.sleep(0)
        with client(loopback()) as phone:
            await phone.ask((server.address, server.tftp_port), "a")
            told = len(log)
            await server.crash()
            assert len(log) == told
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert server.transfers == 0
            await server.start()
            assert isinstance(next(reversed(list(log))).event, FileServerStarted)
