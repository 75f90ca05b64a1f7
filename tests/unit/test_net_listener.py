"""The listener: limits, deadlines, isolation of connections, orderly stop."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from both_loops import on_both_loops
from OpenSSL import SSL

from cucm.certificates import Identity, node_certificate
from cucm.errors import AddressBusy, LimitExceeded, TlsError
from cucm.key_store import KeyStore
from cucm.net.listener import Attention, Limits, Listener
from cucm.net.stream import Address, Stream
from cucm.net.tls import TlsProfile, client_context, open_stream, server_context
from cucm.roles import CertificateUnit

NOT_BEFORE = 1_700_000_000.0
DEADLINE_S = 20

Draw = Callable[[], str]


@pytest.fixture(scope="module")
def identities() -> tuple[Identity, Identity]:
    keys = KeyStore()
    return (
        node_certificate(keys, CertificateUnit.TVS, "ucm105pub", seed=1, not_before=NOT_BEFORE),
        node_certificate(keys, CertificateUnit.TVS, "stranger", seed=1, not_before=NOT_BEFORE),
    )


def context_of(identity: Identity) -> Any:
    return server_context(identity.certificate_der, identity.private_key_der)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


class Watched(Listener):
    """A listener whose callbacks end up in queues."""

    def __init__(self, address: str, handler: Callable[[Stream], Awaitable[None]], **options: Any) -> None:
        self.accepted: asyncio.Queue[Stream] = asyncio.Queue()
        self.begun: asyncio.Queue[Stream] = asyncio.Queue()
        self.refused: asyncio.Queue[tuple[Address, str]] = asyncio.Queue()
        self.failures: asyncio.Queue[Exception] = asyncio.Queue()
        self.closed: asyncio.Queue[Stream] = asyncio.Queue()
        super().__init__(
            address,
            0,
            handler,
            on_accept=self.accepted.put_nowait,
            on_first_bytes=self.begun.put_nowait,
            on_refused=lambda peer, why: self.refused.put_nowait((peer, why)),
            on_handshake_failed=lambda _stream, error: self.failures.put_nowait(error),
            on_closed=self.closed.put_nowait,
            **options,
        )

    @property
    def target(self) -> Address:
        return self.address, self.port


@asynccontextmanager
async def listening(
    draw: Draw, handler: Callable[[Stream], Awaitable[None]] = echo, **options: Any
) -> AsyncIterator[Watched]:
    listener = Watched(draw(), handler, **options)
    await listener.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield listener
    finally:
        await listener.stop()
        assert listener.connections == 0


async def answers(target: Address, **options: Any) -> bool:
    async with await open_stream(*target, **options) as stream:
        stream.write(b"ping")
        return await stream.read() == b"ping"


@on_both_loops
async def test_plain_tcp_is_served_when_start_returns(loopback: Draw) -> None:
    async with listening(loopback) as listener:
        assert listener.port != 0
        assert listener.socket_number >= 0
        assert await answers(listener.target)
        stream = await listener.accepted.get()
        assert (stream.cipher, stream.tls_version, stream.peer_certificate) == ("", "", None)
        assert await listener.closed.get() is stream


@on_both_loops
async def test_what_is_sent_does_not_wait_for_nagle(loopback: Draw) -> None:
    seen: list[int] = []

    async def handler(stream: Stream) -> None:
        connection = stream.transport.get_extra_info("socket")
        seen.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    listener = Listener(loopback(), 0, handler)
    await listener.start()
    async with await open_stream(listener.address, listener.port) as stream:
        assert await stream.read() == b""
    await listener.stop()
    assert seen == [1]


@on_both_loops
async def test_a_client_that_ends_its_half_still_gets_the_answer(loopback: Draw) -> None:
    async def count(stream: Stream) -> None:
        total = 0
        while data := await stream.read():
            total += len(data)
        stream.write(str(total).encode())

    async with listening(loopback, count) as listener:
        reader, writer = await asyncio.open_connection(*listener.target)
        writer.write(bytes(100_000))
        writer.write_eof()
        assert await reader.read() == b"100000"
        writer.close()
        await writer.wait_closed()


@on_both_loops
async def test_a_taken_address_is_reported_and_not_adopted(loopback: Draw) -> None:
    async with listening(loopback) as first:
        second = Listener(first.address, first.port, echo)
        with pytest.raises(AddressBusy) as busy:
            await second.start()
        assert busy.value.where == f"{first.address} TCP port {first.port}"
        assert f":{first.port}" in (busy.value.mend or "")
        await second.stop()  # nothing was started: nothing to do
        assert await answers(first.target)
    again = Listener(*first.target, echo)
    await again.start()
    await again.stop()


@on_both_loops
async def test_the_limit_overall_refuses_and_tells(loopback: Draw) -> None:
    async with listening(loopback, limits=Limits(connections=2)) as listener:
        async with await open_stream(*listener.target) as one, await open_stream(*listener.target):
            async with await open_stream(*listener.target) as third:
                peer, why = await listener.refused.get()
                assert (peer, why) == (third.local_address, "2 connections are open already")
                with pytest.raises(ConnectionError):
                    raise_if_closed(await third.read())
            one.write(b"still served")
            assert await one.read() == b"still served"
        await listener.closed.get()
        await listener.closed.get()
        assert await answers(listener.target)


def raise_if_closed(data: bytes) -> None:
    if not data:
        raise ConnectionError


@on_both_loops
async def test_the_limit_per_address_leaves_others_alone(loopback: Draw, identities: tuple[Identity, Identity]) -> None:
    limits = Limits(connections_per_address=1)
    async with listening(loopback, context=context_of(identities[0]), limits=limits) as listener:
        greedy, modest = loopback(), loopback()
        context = client_context()
        async with await open_stream(*listener.target, context=context, local_address=greedy):
            with pytest.raises((TlsError, ConnectionError)):
                await open_stream(*listener.target, context=context, local_address=greedy)
            assert (await listener.refused.get())[0][0] == greedy
            assert await answers(listener.target, context=context, local_address=modest)
        while (await listener.closed.get()).peer_address[0] != greedy:
            pass
        assert await answers(listener.target, context=context, local_address=greedy)
        assert listener.failures.empty()  # a refused connection is told once


@on_both_loops
async def test_clients_that_stall_before_or_in_the_handshake_run_into_its_deadline(
    loopback: Draw, identities: tuple[Identity, Identity]
) -> None:
    limits = Limits(handshake_timeout_s=0.2)
    async with listening(loopback, context=context_of(identities[0]), limits=limits) as listener:
        for first_bytes in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            async with await open_stream(*listener.target) as stalled:
                stalled.write(first_bytes)
                assert await answers(listener.target, context=client_context())
                assert isinstance(await listener.failures.get(), TimeoutError)
                with pytest.raises(ConnectionError):
                    raise_if_closed(await stalled.read())


@on_both_loops
async def test_garbage_instead_of_a_handshake_is_refused_at_once(
    loopback: Draw, identities: tuple[Identity, Identity]
) -> None:
    limits = Limits(handshake_timeout_s=DEADLINE_S)
    async with listening(loopback, context=context_of(identities[0]), limits=limits) as listener:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x57\x01\x03" * 100, b"\x16\x03\x01\xff\xff" + bytes(70_000)):
            async with await open_stream(*listener.target) as rude:
                rude.write(garbage)
                assert isinstance(await listener.failures.get(), TlsError)
        async with await open_stream(*listener.target):
            pass
        assert "hung up" in str(await listener.failures.get())
        assert await answers(listener.target, context=client_context())


@on_both_loops
async def test_an_idle_client_is_let_go(loopback: Draw) -> None:
    async with (
        listening(loopback, limits=Limits(idle_timeout_s=0.1)) as listener,
        await open_stream(*listener.target) as idle,
    ):
        assert await idle.read() == b""


@on_both_loops
async def test_a_handler_that_fails_ends_its_own_connection_only(
    loopback: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: Stream) -> None:
        match await stream.read():
            case b"expected":
                raise LimitExceeded("too much")
            case b"bug":
                raise ZeroDivisionError
            case data:
                stream.write(data)

    async with listening(loopback, handler) as listener:
        for word in (b"expected", b"bug"):
            async with await open_stream(*listener.target) as stream:
                stream.write(word)
                assert await stream.read() == b""
        assert await answers(listener.target)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "ZeroDivisionError" in (errors[0].exc_text or "")


@on_both_loops
async def test_stop_ends_whatever_is_open(loopback: Draw, identities: tuple[Identity, Identity]) -> None:
    async with listening(loopback, context=context_of(identities[0])) as listener:
        ended = asyncio.Event()

        async def hold(stream: Stream) -> None:
            try:
                await stream.read()
            finally:
                ended.set()

        listener._handler = hold
        async with (
            await open_stream(*listener.target) as silent,
            await open_stream(*listener.target, context=client_context()) as served,
        ):
            await listener.accepted.get()
            await listener.accepted.get()
            await listener.begun.get()
            await listener.stop()
            assert ended.is_set()
            assert listener.connections == 0
            assert await served.read() == b""  # an orderly end: close_notify, not a reset
            with pytest.raises(ConnectionError):
                raise_if_closed(await silent.read())
            with pytest.raises(ConnectionRefusedError):
                await open_stream(*listener.target)
        await listener.stop()  # a second time does nothing


@on_both_loops
async def test_a_second_stop_waits_for_the_first(loopback: Draw) -> None:
    async with listening(loopback) as listener, await open_stream(*listener.target):
        await listener.accepted.get()
        first = asyncio.create_task(listener.stop())
        await asyncio.sleep(0)
        await listener.stop()
        assert listener.connections == 0
        assert not listener.is_listening
        await first


@on_both_loops
async def test_a_stop_that_is_cancelled_cuts_off_and_can_be_called_again(loopback: Draw) -> None:
    stopping = asyncio.Event()

    async def stubborn(stream: Stream) -> None:
        try:
            await stream.read()
        finally:
            stopping.set()
            await stream.read()

    async with listening(loopback, stubborn) as listener, await open_stream(*listener.target) as client:
        await listener.accepted.get()
        await asyncio.sleep(0)
        stop = asyncio.create_task(listener.stop())
        await stopping.wait()
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
        with pytest.raises(ConnectionError):
            raise_if_closed(await client.read())
        with pytest.raises(ConnectionRefusedError):
            await open_stream(*listener.target)
        await listener.stop()
        assert listener.connections == 0


@on_both_loops
async def test_a_start_that_is_cancelled_leaves_the_port_free(loopback: Draw) -> None:
    listener = Listener(loopback(), 0, echo)
    start = asyncio.create_task(listener.start())
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait([start])
    assert start.cancelled() is not listener.is_listening  # uvloop starts without a pause: nothing to cancel
    await listener.stop()
    with pytest.raises(ConnectionRefusedError):
        await open_stream(listener.address, listener.port)


async def last_flight(target: Address) -> tuple[socket.socket, bytes]:
    """A TLS 1.2 client's connection to `target`, and the bytes that would complete its handshake."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, target)
    connection = SSL.Connection(client_context(profile=TlsProfile.AES256_SHA), None)
    connection.set_connect_state()
    while True:
        with suppress(SSL.WantReadError):
            connection.do_handshake()
        with suppress(SSL.WantReadError):
            data = connection.bio_read(65_536)
            if data[:1] != b"\x16" or data[5:6] != b"\x01":  # no ClientHello any more
                return client, data
            await loop.sock_sendall(client, data)
        connection.bio_write(await loop.sock_recv(client, 65_536))


@on_both_loops
async def test_a_client_that_resets_with_its_last_handshake_bytes_is_not_handed_over(
    loopback: Draw, identities: tuple[Identity, Identity]
) -> None:
    served: list[Stream] = []

    async def handler(stream: Stream) -> None:
        served.append(stream)

    context = server_context(
        identities[0].certificate_der, identities[0].private_key_der, profile=TlsProfile.AES256_SHA
    )
    async with listening(loopback, handler, context=context) as listener:
        client, data = await last_flight(listener.target)
        with client:  # both before the server's next look at its sockets
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.send(data)
        gone = await listener.closed.get()
    assert gone.tls_version == "TLSv1.2"
    assert listener.failures.empty()
    assert served == []


@on_both_loops
async def test_stop_while_clients_stream_in(loopback: Draw) -> None:
    async with listening(loopback) as listener:
        clients = [socket.socket() for _ in range(100)]
        try:
            for client in clients:
                client.setblocking(False)
                client.connect_ex(listener.target)
            await listener.accepted.get()
            await listener.stop()
        finally:
            for client in clients:
                client.close()


@on_both_loops
async def test_stop_does_not_wait_for_a_client_that_takes_nothing(
    loopback: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cucm.net.stream.CLOSE_TIMEOUT_S", 0.1)

    async def flood(stream: Stream) -> None:
        while True:
            stream.write(bytes(100_000))
            await stream.drain()

    async with listening(loopback, flood) as listener:
        with socket.create_connection(listener.target):
            await listener.accepted.get()
            await listener.stop()


@on_both_loops
async def test_a_new_context_is_used_for_new_connections(loopback: Draw, identities: tuple[Identity, Identity]) -> None:
    before, after = identities
    async with (
        listening(loopback, context=context_of(before)) as listener,
        await open_stream(*listener.target, context=client_context()) as old,
    ):
        listener.set_context(context_of(after))
        async with await open_stream(*listener.target, context=client_context()) as new:
            assert old.peer_certificate == before.certificate_der
            assert new.peer_certificate == after.certificate_der


@on_both_loops
async def test_many_clients_at_once_are_all_served(loopback: Draw, identities: tuple[Identity, Identity]) -> None:
    context = client_context()
    async with listening(loopback, context=context_of(identities[0])) as listener:
        done = await asyncio.gather(*(answers(listener.target, context=context) for _ in range(100)))
        assert all(done)


@on_both_loops
async def test_flush_waits_until_the_last_byte_has_left(loopback: Draw) -> None:
    """Also where the rest is too little to make `drain` wait."""
    flushed = asyncio.Event()
    flushing = asyncio.Event()
    written = 0

    async def fill(stream: Stream) -> None:
        nonlocal written
        while stream._transport.get_write_buffer_size() == 0:
            stream.write(bytes(4096))
            written += 4096
            await asyncio.sleep(0)
        await stream.drain()
        flushing.set()
        await stream.flush()
        assert stream._transport.get_write_buffer_size() == 0
        flushed.set()

    listener = Watched(loopback(), fill)
    await listener.start()
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await loop.sock_connect(client, (listener.address, listener.port))
            await flushing.wait()
            assert not flushed.is_set()
            received = 0
            while data := await loop.sock_recv(client, 65536):
                received += len(data)
            await flushed.wait()
        assert received == written
    finally:
        client.close()
        await listener.stop()


async def nobody(_stream: Stream) -> None:
    pytest.fail("the attendant serves alone")


@on_both_loops
async def test_who_has_left_is_not_told_that_he_was_idle(loopback: Draw) -> None:
    idle, told = asyncio.Queue[int](), list[dict[str, Any]]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    closed = asyncio.Queue[Stream]()
    listener = Listener(
        loopback(),
        0,
        nobody,
        limits=Limits(idle_timeout_s=0.2),
        attendant=lambda stream: Attention.END if stream.has_ended else Attention.WAIT,
        on_idle=lambda stream: idle.put_nowait(stream.peer_address[1]),
        on_closed=closed.put_nowait,
    )
    await listener.start()
    async with asyncio.timeout(20):
        gone = await open_stream(listener.address, listener.port)
        async with await open_stream(listener.address, listener.port) as stays:
            gone.reset()  # no end of input that the attendant would see
            await closed.get()
            assert await idle.get() == stays.local_address[1]
            assert await stays.read() == b""
    await listener.stop()
    assert (idle.empty(), told) == (True, [])


@on_both_loops
async def test_a_client_that_takes_no_answer_is_cut_when_the_attendant_ends(loopback: Draw) -> None:
    closed = asyncio.Queue[Stream]()

    def answer_all(stream: Stream) -> Attention:
        stream.close_timeout_s = 0.05
        stream.write(bytes(16 * 1024 * 1024))
        assert stream.unsent_bytes() > 0
        return Attention.END

    listener = Listener(loopback(), 0, nobody, attendant=answer_all, on_closed=closed.put_nowait)
    await listener.start()
    with socket.socket() as client:
        client.setblocking(False)
        async with asyncio.timeout(20):
            await asyncio.get_running_loop().sock_connect(client, (listener.address, listener.port))
            await closed.get()
    assert listener.connections == 0
    await listener.stop()


@on_both_loops
async def test_what_is_to_be_done_soon_is_done_when_all_that_came_together_has_been_read(loopback: Draw) -> None:
    order: list[str] = []
    done = asyncio.Event()

    def look(stream: Stream) -> Attention:
        if stream.received:
            order.append("read")
            asyncio.get_running_loop().call_soon(order.append, "a turn later")
            asyncio.get_running_loop().call_soon(done.set)
            listener.soon(lambda: order.append("soon"))
            stream.received.clear()
        return Attention.END if stream.has_ended else Attention.WAIT

    listener = Listener(loopback(), 0, nobody, attendant=look)
    await listener.start()
    async with asyncio.timeout(DEADLINE_S):
        streams = [await open_stream(listener.address, listener.port) for _ in range(2)]
        for stream in streams:
            stream.write(b"?")  # both before the loop, which is the listener's too, looks again
        await done.wait()
        await asyncio.sleep(0)
    for stream in streams:
        await stream.close()
    await listener.stop()
    assert order[:4] == ["read", "read", "soon", "soon"]
    listener.soon(lambda: order.append("nobody is there any more"))
    assert "nobody is there any more" not in order
