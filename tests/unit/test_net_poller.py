"""Sockets behind one reader: called back, redirected, taken away; with an epoll of their own and without."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop

from cucm.net.poller import Poller

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@contextmanager
def polled(new_loop: NewLoop, has_epoll: bool) -> Iterator[tuple[asyncio.AbstractEventLoop, Poller, list[str]]]:
    """A poller that notes "turn" before each of its turns."""
    loop = new_loop()
    told: list[str] = []
    poller = Poller(loop, lambda: told.append("turn"))
    poller._has_epoll = has_epoll
    try:
        yield loop, poller, told
    finally:
        poller.close()
        loop.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    chosen: NewLoop = request.param
    return chosen


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3)]
    yield made
    for pair in made:
        for one in pair:
            one.close()


def run_some_turns(loop: asyncio.AbstractEventLoop) -> None:
    async def turns() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    loop.run_until_complete(turns())


Pairs = list[tuple[socket.socket, socket.socket]]


@pytest.mark.parametrize("has_epoll", [True, False], ids=["epoll", "readers"])
def test_what_came_is_taken_in_one_turn(new_loop: NewLoop, pairs: Pairs, has_epoll: bool) -> None:
    with polled(new_loop, has_epoll) as (loop, poller, told):
        for near, far in pairs:
            poller.add(near.fileno(), lambda near=near: told.append(near.recv(9).decode()))  # type: ignore[misc]
            far.send(b"data")
        run_some_turns(loop)
        assert told.count("data") == 3
        assert told[0] == "turn"
        if has_epoll:
            assert told.count("turn") == 1


@pytest.mark.parametrize("has_epoll", [True, False], ids=["epoll", "readers"])
def test_one_that_is_taken_away_is_not_called(new_loop: NewLoop, pairs: Pairs, has_epoll: bool) -> None:
    with polled(new_loop, has_epoll) as (loop, poller, told):

        def taken(near: socket.socket) -> None:
            told.append(near.recv(9).decode())
            for other, _ in pairs:
                if other is not near:
                    poller.remove(other.fileno())
                    poller.remove(other.fileno())

        for number, (near, far) in enumerate(pairs):
            poller.add(near.fileno(), lambda near=near: taken(near))  # type: ignore[misc]
            far.send(b"%d" % number)
        run_some_turns(loop)
        assert len([word for word in told if word != "turn"]) == 1


def test_a_redirected_socket_calls_the_other(new_loop: NewLoop, pairs: Pairs) -> None:
    with polled(new_loop, True) as (loop, poller, told):
        near, far = pairs[0]
        poller.add(near.fileno(), lambda: told.append("first"))
        poller.redirect(near.fileno(), lambda: told.append(near.recv(9).decode()))
        far.send(b"second")
        run_some_turns(loop)
        assert told == ["turn", "second"]


def test_without_sockets_nothing_is_open_and_it_begins_anew(new_loop: NewLoop, pairs: Pairs) -> None:
    with polled(new_loop, True) as (loop, poller, told):
        near, far = pairs[0]
        for word in ("first", "second"):
            assert poller._epoll is None
            poller.add(near.fileno(), lambda: told.append(near.recv(9).decode()))
            far.send(word.encode())
            run_some_turns(loop)
            poller.remove(near.fileno())
        assert told == ["turn", "first", "turn", "second"]
