"""Faults of `tcp.accept` as clients of a listener meet them, on both event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from both_loops import on_both_loops
from silent_client import all_of

from cucm.certificates import Identity, node_certificate
from cucm.errors import TlsError
from cucm.events import EventLog
from cucm.faults import FaultBoard, fault_of
from cucm.key_store import KeyStore
from cucm.net import between, tcp_faults
from cucm.net.listener import STOP_TIMEOUT_S, Limits, Listener
from cucm.net.reachability import Reachability
from cucm.net.stream import Stream
from cucm.net.tls import client_context, open_stream, server_context
from cucm.roles import CertificateUnit

DEADLINE_S = 20
Draw = Callable[[], str]


@pytest.fixture(scope="module")
def identity() -> Identity:
    return node_certificate(KeyStore(), CertificateUnit.TVS, "ucm105pub", seed=1, not_before=1_700_000_000.0)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


class Spoilt:
    """A listener with one fault, and what its service was told."""

    def __init__(self, address: str, action: str, handler: Any = echo, **options: Any) -> None:
        rule = {key: options.pop(key) for key in ("match", "times", "attributes") if key in options}
        self.log = EventLog()
        self.board = FaultBoard(self.log.emitter("lab:faults"))
        self.board.set(fault_of({"id": "it", "point": "tcp.accept", "action": action, **rule}))
        self.told: list[str] = []
        self.listener = Listener(
            address,
            0,
            handler,
            faults=self.board.at(service="TVS"),
            on_accept=lambda _stream: self.told.append("accepted"),
            on_handshake_failed=lambda _stream, _error: self.told.append("handshake failed"),
            on_closed=lambda _stream: self.told.append("closed"),
            **options,
        )

    @property
    def target(self) -> tuple[str, int]:
        return self.listener.address, self.listener.port

    @property
    def hits(self) -> int:
        return self.board.status("it").hits


@asynccontextmanager
async def spoilt(draw: Draw, action: str, *arguments: Any, **options: Any) -> AsyncIterator[Spoilt]:
    server = Spoilt(draw(), action, *arguments, **options)
    await server.listener.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield server
    finally:
        await server.listener.stop()
        assert server.listener.connections == 0


async def answers(server: Spoilt, **options: Any) -> bool:
    async with await open_stream(*server.target, **options) as stream:
        stream.write(b"ping")
        return await stream.read() == b"ping"


@on_both_loops
async def test_refused_before_a_byte_is_read_and_the_service_knows_nothing(loopback: Draw) -> None:
    async with spoilt(loopback, "refuse", times=1) as server:
        with pytest.raises(ConnectionResetError):  # which the client may meet before it hears that it was let in
            await all_of(*server.target)
        assert server.told == []
        assert await answers(server)
        assert server.hits == 1


@on_both_loops
async def test_reset_with_the_byte_that_brings_it(loopback: Draw) -> None:
    async with spoilt(loopback, "reset", attributes={"after_bytes": 5}) as server:
        stream = await open_stream(*server.target)
        stream.write(b"1234")
        assert await stream.read() == b"1234"
        stream.write(b"5")
        with pytest.raises(ConnectionResetError):
            await stream.read()
        await stream.close()
    assert server.told == ["accepted", "closed"]


@on_both_loops
async def test_stalled_until_the_client_hangs_up(loopback: Draw) -> None:
    async with spoilt(loopback, "stall", limits=Limits(idle_timeout_s=0.05)) as server:
        stream = await open_stream(*server.target)
        stream.idle_timeout_s = 0.3
        for _ in range(100):
            stream.write(bytes(50_000))  # it reads all that comes
            await stream.drain()
        with pytest.raises(TimeoutError):
            await stream.read()
        assert server.listener.connections == 1
        await stream.close()
    assert server.told == []


@on_both_loops
async def test_a_stalled_server_greets_nobody(loopback: Draw) -> None:
    async def greet(stream: Stream) -> None:
        stream.write(b"220 hello")
        await stream.read()

    async with spoilt(loopback, "stall", greet) as server, await open_stream(*server.target) as stream:
        stream.idle_timeout_s = 0.2
        with pytest.raises(TimeoutError):
            await stream.read()


@on_both_loops
async def test_what_is_held_ends_with_a_reset(loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_faults, "HOLD_S", 0.2)
    for action in ("stall", "blackhole"):
        async with spoilt(loopback, action) as server:
            stream = await open_stream(*server.target)
            stream.write(b"ping")
            with pytest.raises(ConnectionResetError):
                await stream.read()
            await stream.close()
            assert server.listener.connections == 0
        assert server.told == []


@on_both_loops
async def test_in_a_black_hole_nothing_is_acknowledged(loopback: Draw) -> None:
    async with spoilt(loopback, "blackhole", match={"service": "TVS"}) as server:
        stream = await open_stream(*server.target)
        while not server.hits:
            await asyncio.sleep(0)  # the kernel has let us in; the listener is about to
        stream.write(b"ping")
        stream.idle_timeout_s = 0.3
        with pytest.raises(TimeoutError):
            await stream.read()
        assert unacknowledged(stream) == 1
        stream.abort()
    assert server.told == []


def unacknowledged(stream: Stream) -> int:
    """`tcpi_unacked`: the seventh 32-bit word of Linux's struct tcp_info."""
    info = stream.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    return int.from_bytes(info[24:28], "little")


@on_both_loops
@pytest.mark.parametrize("secure", [False, True])
async def test_slow_is_a_pace_with_bounded_buffers(loopback: Draw, identity: Identity, secure: bool) -> None:
    sent = 0

    async def flood(stream: Stream) -> None:
        nonlocal sent
        await stream.read()
        for _ in range(200):
            stream.write(bytes(4000))
            sent += 4000
            await stream.drain()

    contexts = (server_context(identity.certificate_der, identity.private_key_der), client_context())
    context, of_client = contexts if secure else (None, None)
    rate = {"bytes_per_s": 40_000}
    async with spoilt(loopback, "slow", flood, attributes=rate, context=context) as server:
        loop = asyncio.get_running_loop()
        async with await open_stream(*server.target, context=of_client) as stream:
            stream.write(b"go")
            began, got = loop.time(), 0
            while got < 40_000:
                piece = await stream.read()
                assert piece
                got += len(piece)
            # a second; room for a busy machine, but not for a pace ten times too slow, which takes ten
            assert 0.7 < loop.time() - began < 7
            assert sent - got <= between.PACED_HIGH_WATER + 2 * 4000
            stream.abort()


@on_both_loops
async def test_slow_sends_all_before_it_closes(loopback: Draw, identity: Identity) -> None:
    async def tell(stream: Stream) -> None:
        stream.write(b"x" * 9000)

    attributes = {"bytes_per_s": 3000, "delay_s": 0.2}
    context = server_context(identity.certificate_der, identity.private_key_der)
    async with spoilt(loopback, "slow", tell, attributes=attributes, context=context) as server:
        began = asyncio.get_running_loop().time()
        async with await open_stream(*server.target, context=client_context()) as stream:
            got = b""
            while data := await stream.read():
                got += data
        assert got == b"x" * 9000
        assert asyncio.get_running_loop().time() - began > 9000 / 3000  # more than `close` waits otherwise


@on_both_loops
async def test_a_single_byte_at_a_time(loopback: Draw) -> None:
    pace = {"bytes_per_s": 20}
    async with spoilt(loopback, "slow", attributes=pace) as server, await open_stream(*server.target) as stream:
        stream.write(b"0123456789")
        assert await stream.read() == b"0"
        assert await stream.read() == b"1"


@on_both_loops
async def test_stopping_ends_what_is_spoilt(loopback: Draw) -> None:
    for action in ("stall", "blackhole", "slow"):
        async with spoilt(loopback, action, attributes={"bytes_per_s": 1} if action == "slow" else {}) as server:
            stream = await open_stream(*server.target)
            stream.write(b"0123456789")
            while not server.listener.connections:
                await asyncio.sleep(0)
            before = asyncio.get_running_loop().time()
            await server.listener.stop()
            assert asyncio.get_running_loop().time() - before < STOP_TIMEOUT_S + 2
            await stream.close()


@on_both_loops
async def test_a_crash_resets_what_is_spoilt(loopback: Draw) -> None:
    for action in ("stall", "blackhole", "slow"):
        async with spoilt(loopback, action, attributes={"bytes_per_s": 1} if action == "slow" else {}) as server:
            stream = await open_stream(*server.target)
            stream.write(b"0123456789")
            while not server.hits:
                await asyncio.sleep(0)
            before = asyncio.get_running_loop().time()
            await server.listener.crash()
            assert asyncio.get_running_loop().time() - before < 1
            with pytest.raises(ConnectionResetError):
                await to_the_end(stream)
            await stream.close()


async def to_the_end(stream: Stream) -> None:
    while await stream.read():
        pass


@on_both_loops
async def test_what_waits_for_its_turn_is_lost_with_the_network(loopback: Draw) -> None:
    pace = {"bytes_per_s": 20}
    async with spoilt(loopback, "slow", attributes=pace) as server, await open_stream(*server.target) as stream:
        stream.write(b"0123456789")
        assert await stream.read() == b"0"
        server.listener.set_reachability(Reachability.UNREACHABLE)
        stream.idle_timeout_s = 0.3
        with pytest.raises(TimeoutError):
            await stream.read()
        stream.abort()


@on_both_loops
async def test_what_is_held_counts_for_the_limits(loopback: Draw) -> None:
    async with spoilt(loopback, "stall", limits=Limits(connections=1)) as server:
        held = await open_stream(*server.target)
        reader, writer = await asyncio.open_connection(*server.target)
        assert await reader.read() == b""
        writer.close()
        await held.close()


@on_both_loops
async def test_an_unreachable_port_meets_no_fault(loopback: Draw) -> None:
    async with spoilt(loopback, "refuse") as server:
        server.listener.set_reachability(Reachability.UNREACHABLE)
        with pytest.raises(TimeoutError):
            await open_stream(*server.target, connect_timeout_s=0.1)
        assert server.hits == 0


@on_both_loops
async def test_a_tls_client_learns_of_a_reset_in_its_handshake(loopback: Draw, identity: Identity) -> None:
    context = server_context(identity.certificate_der, identity.private_key_der)
    async with spoilt(loopback, "reset", context=context) as server:
        with pytest.raises((ConnectionResetError, TlsError)):
            await open_stream(*server.target, context=client_context())
    assert server.told == ["accepted", "handshake failed", "closed"]
