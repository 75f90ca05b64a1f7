"""Our transport on real sockets, on both loops, with the epoll set and without one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from both_loops import on_both_loops

from cucm.net import connection_poller
from cucm.net.connection_poller import READ, ConnectionPoller
from cucm.net.transport import SocketTransport

DEADLINE_S = 20
MUCH = bytes(range(256)) * 8192
"""More than a socket takes at once."""


@pytest.fixture(params=[True, False], ids=["epoll", "no epoll"], autouse=True)
def has_epoll(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_poller, "HAS_EPOLL", request.param)


class Told(asyncio.BufferedProtocol):
    """Writes down what it is told; `something` is set by each."""

    def __init__(self, *, pauses: bool = False, half_open: bool = True) -> None:
        self.buffer = memoryview(bytearray(4096))
        self.came = b""
        self.said: list[object] = []
        self.something = asyncio.Event()
        self.pauses = pauses
        self.half_open = half_open

    def _say(self, what: object) -> None:
        self.said.append(what)
        self.something.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SocketTransport)
        if self.pauses:
            transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.came += self.buffer[:nbytes]
        self.something.set()

    def eof_received(self) -> bool:
        self._say("end of input")
        return self.half_open

    def pause_writing(self) -> None:
        self._say("pause")

    def resume_writing(self) -> None:
        self._say("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._say(("lost", type(exc)))

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                self.something.clear()
                await self.something.wait()


@contextmanager
def connected(told: Told) -> Iterator[tuple[SocketTransport, socket.socket, ConnectionPoller]]:
    """The transport, the peer's socket, and the poller, which is released at the end."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    poller = ConnectionPoller(asyncio.get_running_loop())
    transport = SocketTransport(ours, None, poller, told)
    transport.start()
    try:
        yield transport, peer, poller
    finally:
        transport.abort()
        peer.close()
        poller.release()


async def all_of(peer: socket.socket, count: int) -> bytes:
    """So many bytes, or what comes before the end."""
    loop, came = asyncio.get_running_loop(), b""
    async with asyncio.timeout(DEADLINE_S):
        while len(came) < count and (some := await loop.sock_recv(peer, 65536)):
            came += some
    return came


async def a_turn() -> None:
    """Whatever was ready has been served when it is over."""
    for _ in range(5):
        await asyncio.sleep(0)


@on_both_loops
async def test_who_pauses_as_he_learns_of_his_connection_is_left_alone() -> None:
    told = Told(pauses=True)
    with connected(told) as (transport, peer, _):
        peer.send(b"early")
        await a_turn()
        assert (told.came, transport.is_reading()) == (b"", False)
        transport.resume_reading()
        await told.until(lambda: told.came == b"early")


@on_both_loops
async def test_more_than_the_system_takes_goes_out_in_order_and_the_writer_is_told() -> None:
    told = Told()
    with connected(told) as (transport, peer, _):
        transport.write(MUCH)
        assert told.said == ["pause"]
        assert transport.get_write_buffer_size() > 0
        transport.write(b"the end")
        assert await all_of(peer, len(MUCH) + 7) == MUCH + b"the end"
        await told.until(lambda: "resume" in told.said)
        assert transport.get_write_buffer_size() == 0


@on_both_loops
async def test_closing_sends_what_waits_first() -> None:
    told = Told()
    with connected(told) as (transport, peer, _):
        transport.write(MUCH)
        transport.close()
        assert await all_of(peer, len(MUCH) + 1) == MUCH
        await told.until(lambda: ("lost", type(None)) in told.said)


@on_both_loops
async def test_a_peer_that_has_said_all_still_hears_and_learns_of_the_end() -> None:
    told = Told()
    with connected(told) as (transport, peer, _):
        peer.send(b"question")
        peer.shutdown(socket.SHUT_WR)
        await told.until(lambda: told.said == ["end of input"])
        transport.write(MUCH)
        transport.write_eof()
        assert await all_of(peer, len(MUCH) + 1) == MUCH
        assert told.came == b"question"
        assert not transport.is_closing()


@on_both_loops
async def test_a_poller_that_is_released_still_serves_those_who_were_silent() -> None:
    """A service stops: a connection that nobody watches at the moment sends its last words all the same."""
    told = Told()
    with connected(told) as (transport, peer, poller):
        peer.shutdown(socket.SHUT_WR)
        await told.until(lambda: told.said == ["end of input"])
        poller.release()
        transport.write(MUCH)
        transport.close()
        assert await all_of(peer, len(MUCH) + 1) == MUCH
        await told.until(lambda: ("lost", type(None)) in told.said)


@on_both_loops
async def test_a_peer_that_is_gone_breaks_the_connection_once() -> None:
    told = Told()
    with connected(told) as (transport, peer, _):
        transport.write(MUCH)
        peer.close()
        await told.until(lambda: told.said[-1] in [("lost", BrokenPipeError), ("lost", ConnectionResetError)])
        transport.write(b"nobody hears it")
        transport.abort()
        await a_turn()
        assert [what for what in told.said if isinstance(what, tuple)] == told.said[-1:]


@on_both_loops
async def test_one_that_fails_does_not_keep_others_from_being_served() -> None:
    loop, troubles = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    poller, served = ConnectionPoller(loop), asyncio.Event()
    pairs = [socket.socketpair() for _ in range(2)]

    def fail(_events: int) -> None:
        pairs[0][0].recv(1)
        raise ZeroDivisionError

    poller.watch(pairs[0][0].fileno(), READ, fail)
    poller.watch(pairs[1][0].fileno(), READ, lambda _events: served.set())
    for _, other in pairs:
        other.send(b"x")
    async with asyncio.timeout(DEADLINE_S):
        await served.wait()
    for pair in pairs:
        poller.forget(pair[0].fileno())
        pair[0].close()
        pair[1].close()
    poller.release()
    assert [type(trouble["exception"]) for trouble in troubles] == [ZeroDivisionError]


@on_both_loops
async def test_who_is_taken_away_by_one_before_it_is_not_called() -> None:
    loop, troubles, calls = asyncio.get_running_loop(), list[dict[str, Any]](), list[int]()
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    poller = ConnectionPoller(loop)
    pairs = [socket.socketpair() for _ in range(2)]
    numbers = [pair[0].fileno() for pair in pairs]

    def take_the_other_away(at: int) -> Callable[[int], None]:
        def ready(_events: int) -> None:
            calls.append(at)
            for number in numbers:
                poller.forget(number)

        return ready

    for at, number in enumerate(numbers):
        poller.watch(number, READ, take_the_other_away(at))
    for _, other in pairs:
        other.send(b"x")
    await a_turn()
    for pair in pairs:
        pair[0].close()
        pair[1].close()
    poller.release()
    assert (len(calls), troubles) == (1, [])
