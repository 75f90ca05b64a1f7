"""What a client meets at a port that is open, refuses, is lost, stopped or crashed; seen with plain sockets too."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from both_loops import on_both_loops
from what_is_missing import lacking

from cucm.certificates import Identity, node_certificate
from cucm.errors import AddressBusy
from cucm.key_store import KeyStore
from cucm.net import door, reachability
from cucm.net.listener import Limits, Listener
from cucm.net.reachability import Reachability, drop_packets, take_packets
from cucm.net.stream import Stream
from cucm.net.tls import client_context, open_stream, server_context
from cucm.roles import CertificateUnit

Draw = Callable[[], str]
SILENCE_S = 0.25
"""How long a client waits for what must not come; nothing but these tests' duration hangs on it."""
DEADLINE_S = 20
NO_FILTERS = pytest.param(True, id="accept queue")
ADDRESS_KINDS = pytest.mark.parametrize("address", [None, "::1"], ids=["127/8", "::1"])


@pytest.fixture(scope="module")
def identity() -> Identity:
    return node_certificate(KeyStore(), CertificateUnit.TVS, "ucm105pub", seed=1, not_before=1_700_000_000.0)


@pytest.fixture(params=[pytest.param(False, id="socket filter"), NO_FILTERS])
def no_filters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways to lose a SYN; the second is that of systems without socket filters."""
    if request.param:
        monkeypatch.setattr(door, "drop_packets", lambda _socket: False)
        monkeypatch.setattr(reachability, "drop_packets", lambda _socket: False)
    return bool(request.param)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


@asynccontextmanager
async def listening(address: str, **options: object) -> AsyncIterator[Listener]:
    listener = Listener(address, 0, echo, **options)  # type: ignore[arg-type]
    await listener.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield listener
    finally:
        await listener.stop()
        assert listener.connections == 0


async def connect(listener: Listener, *, timeout_s: float = 5.0, **options: object) -> Stream:
    stream = await open_stream(listener.address, listener.port, connect_timeout_s=timeout_s, **options)  # type: ignore[arg-type]
    stream.idle_timeout_s = DEADLINE_S
    return stream


async def said(stream: Stream, data: bytes = b"ping") -> bytes:
    stream.write(data)
    return await stream.read()


async def is_served(listener: Listener, **options: object) -> bool:
    async with await connect(listener, **options) as stream:
        return await said(stream) == b"ping"


async def is_silent(stream: Stream) -> bool:
    stream.idle_timeout_s = SILENCE_S
    with pytest.raises(TimeoutError):
        await said(stream)
    stream.idle_timeout_s = DEADLINE_S
    return True


async def is_reset(stream: Stream) -> bool:
    with pytest.raises(ConnectionResetError):
        await stream.read()
    return True


@ADDRESS_KINDS
@on_both_loops
async def test_refused_connections_are_reset_and_those_that_stand_go_on(loopback: Draw, address: str | None) -> None:
    async with listening(address or loopback()) as listener, await connect(listener) as standing:
        listener.set_reachability(Reachability.REFUSE)
        with pytest.raises(ConnectionRefusedError):
            await connect(listener)
        assert await said(standing) == b"ping"
        assert listener.is_listening
        listener.set_reachability(Reachability.OPEN)
        assert await said(standing) == b"ping"
        assert await is_served(listener)


@ADDRESS_KINDS
@on_both_loops
async def test_lost_packets_are_not_answered_and_connections_fall_silent(
    loopback: Draw, address: str | None, no_filters: bool
) -> None:
    async with listening(address or loopback()) as listener, await connect(listener) as standing:
        assert await said(standing) == b"ping"
        listener.set_reachability(Reachability.UNREACHABLE)
        with pytest.raises(TimeoutError, match="does not answer within"):
            await connect(listener, timeout_s=SILENCE_S)
        assert await is_silent(standing)
        listener.set_reachability(Reachability.OPEN)
        assert await is_reset(standing)
        assert await is_served(listener)


@on_both_loops
async def test_who_asks_again_gets_in_when_the_network_is_back(loopback: Draw, no_filters: bool) -> None:
    async with listening(loopback()) as listener:
        listener.set_reachability(Reachability.UNREACHABLE)
        asking = asyncio.create_task(is_served(listener))  # its kernel repeats the SYN after a second
        with pytest.raises(TimeoutError):
            await connect(listener, timeout_s=SILENCE_S)
        assert not asking.done()
        listener.set_reachability(Reachability.OPEN)
        assert await asking


@on_both_loops
async def test_a_handler_whose_deadline_passes_cannot_tell_a_lost_peer(loopback: Draw, identity: Identity) -> None:
    context = server_context(identity.certificate_der, identity.private_key_der)
    ended: asyncio.Queue[Stream] = asyncio.Queue()
    limits = Limits(idle_timeout_s=0.2)
    async with (
        listening(loopback(), limits=limits, context=context, on_closed=ended.put_nowait) as listener,
        await connect(listener, context=client_context()) as standing,
    ):
        assert await said(standing) == b"ping"  # the server too has ended the handshake
        listener.set_reachability(Reachability.UNREACHABLE)
        await ended.get()
        assert listener.connections == 0
        assert await is_silent(standing)  # no goodbye of TLS or TCP came through
        listener.set_reachability(Reachability.REFUSE)
        assert await is_reset(standing)


@on_both_loops
async def test_a_connection_that_comes_in_while_packets_vanish_is_silent_too(loopback: Draw) -> None:
    accepted: asyncio.Queue[Stream] = asyncio.Queue()
    async with listening(loopback(), on_accept=accepted.put_nowait) as listener:
        with socket.create_connection((listener.address, listener.port), timeout=SILENCE_S) as client:
            listener.set_reachability(Reachability.UNREACHABLE)  # the loop has not accepted it yet
            await accepted.get()
            client.sendall(b"ping")
            with pytest.raises(TimeoutError):
                client.recv(4)


@on_both_loops
async def test_a_lost_handshake_ends_by_the_clients_deadline(loopback: Draw, identity: Identity) -> None:
    context = server_context(identity.certificate_der, identity.private_key_der)
    async with listening(loopback(), context=context) as listener:
        lose = lambda _stream: listener.set_reachability(Reachability.UNREACHABLE)  # noqa: E731
        with pytest.raises(TimeoutError, match="no TLS handshake within"):
            await connect(listener, context=client_context(), on_connected=lose, handshake_timeout_s=SILENCE_S)
        listener.set_reachability(Reachability.OPEN)
        assert await is_served(listener, context=client_context())


@on_both_loops
async def test_a_crash_resets_and_a_stop_says_goodbye(loopback: Draw, identity: Identity) -> None:
    context = server_context(identity.certificate_der, identity.private_key_der)
    listener = Listener(loopback(), 0, echo, context=context)
    await listener.start()
    async with await connect(listener, context=client_context()) as stream:
        assert await said(stream) == b"ping"
        await listener.crash()
        assert not listener.is_listening
        assert listener.connections == 0
        assert await is_reset(stream)
    with pytest.raises(ConnectionRefusedError):
        await connect(listener)
    await listener.crash()  # nothing is there to die
    await listener.start()
    async with await connect(listener, context=client_context()) as stream:
        assert await said(stream) == b"ping"
        await listener.stop()
        assert await stream.read() == b""


@on_both_loops
async def test_a_crash_cuts_an_orderly_stop_short(loopback: Draw) -> None:
    stubborn = asyncio.Event()

    async def hold(stream: Stream) -> None:
        try:
            await stream.read()
        except asyncio.CancelledError:
            stubborn.set()
            await stream.read()  # goes on until its connection is gone

    listener = Listener(loopback(), 0, hold)
    await listener.start()
    async with asyncio.timeout(DEADLINE_S), await connect(listener) as stream:
        while not listener.connections:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(listener.stop())
        await stubborn.wait()
        await listener.crash()
        assert await is_reset(stream)
        await stopping


@on_both_loops
async def test_a_crash_within_a_lost_network_leaves_nothing(loopback: Draw) -> None:
    listener = Listener(loopback(), 0, echo)
    await listener.start()
    async with asyncio.timeout(DEADLINE_S), await connect(listener) as stream:
        assert await said(stream) == b"ping"
        listener.set_reachability(Reachability.UNREACHABLE)
        await listener.crash()
        assert listener.connections == 0
        assert await is_reset(stream)


@pytest.mark.parametrize("how", [Reachability.REFUSE, Reachability.UNREACHABLE])
@on_both_loops
async def test_the_state_is_kept_over_stop_and_start(loopback: Draw, how: Reachability) -> None:
    listener = Listener(loopback(), 0, echo)
    listener.set_reachability(how)
    assert listener.reachability is how
    for _ in range(2):
        await listener.start()
        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            await connect(listener, timeout_s=SILENCE_S)
        await listener.stop()
    listener.set_reachability(Reachability.OPEN)
    await listener.start()
    assert await is_served(listener)
    await listener.stop()


@on_both_loops
async def test_every_change_of_state_leads_where_it_says(loopback: Draw) -> None:
    states = list(Reachability)
    async with listening(loopback()) as listener:
        for before in states:
            for after in states:
                listener.set_reachability(before)
                listener.set_reachability(after)
                met = await asyncio.gather(connect(listener, timeout_s=SILENCE_S), return_exceptions=True)
                kind = {
                    Reachability.OPEN: Stream,
                    Reachability.REFUSE: ConnectionRefusedError,
                    Reachability.UNREACHABLE: TimeoutError,
                }
                assert isinstance(met[0], kind[after]), (before, after, met)
                if isinstance(met[0], Stream):
                    await met[0].close()


async def test_a_port_taken_while_it_refused_is_told(loopback: Draw) -> None:
    async with listening(loopback()) as listener:
        listener.set_reachability(Reachability.REFUSE)
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind((listener.address, listener.port))
            thief.listen()
            with pytest.raises(AddressBusy):
                listener.set_reachability(Reachability.OPEN)
            assert listener.reachability is Reachability.REFUSE
        listener.set_reachability(Reachability.OPEN)
        assert await is_served(listener)


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")
def test_a_datagram_socket_loses_and_takes_again(loopback: Draw) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind((loopback(), 0))
        server.settimeout(SILENCE_S)
        if not drop_packets(server):
            lacking("this system, or its sandbox, has no socket filters")
        client.sendto(b"lost", server.getsockname())
        with pytest.raises(TimeoutError):
            server.recv(10)
        take_packets(server)
        client.sendto(b"heard", server.getsockname())
        server.settimeout(DEADLINE_S)
        assert server.recv(10) == b"heard"
