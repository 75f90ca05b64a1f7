"""Sockets behind one reader: called back, redirected, taken away; with an epoll of their own and without."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from cucm.net.readers import Readers

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@contextmanager
def polled(new_loop: NewLoop, has_epoll: bool) -> Iterator[tuple[asyncio.AbstractEventLoop, Readers, list[str]]]:
    """A readers that notes "turn" before each of its turns."""
    loop = new_loop()
    told: list[str] = []
    readers = Readers(loop, lambda: told.append("turn"))
    readers._has_epoll = has_epoll
    try:
        yield loop, readers, told
    finally:
        readers.close()
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
    with polled(new_loop, has_epoll) as (loop, readers, told):
        for near, far in pairs:
            readers.add(near.fileno(), lambda near=near: told.append(near.recv(9).decode()))  # type: ignore[misc]
            far.send(b"data")
        run_some_turns(loop)
        assert told.count("data") == 3
        assert told[0] == "turn"
        if has_epoll:
            assert told.count("turn") == 1


@pytest.mark.parametrize("has_epoll", [True, False], ids=["epoll", "readers"])
def test_one_that_is_taken_away_is_not_called(new_loop: NewLoop, pairs: Pairs, has_epoll: bool) -> None:
    with polled(new_loop, has_epoll) as (loop, readers, told):

        def taken(near: socket.socket) -> None:
            told.append(near.recv(9).decode())
            for other, _ in pairs:
                if other is not near:
                    readers.remove(other.fileno())
                    readers.remove(other.fileno())

        for number, (near, far) in enumerate(pairs):
            readers.add(near.fileno(), lambda near=near: taken(near))  # type: ignore[misc]
            far.send(b"%d" % number)
        run_some_turns(loop)
        assert len([word for word in told if word != "turn"]) == 1


def test_a_redirected_socket_calls_the_other(new_loop: NewLoop, pairs: Pairs) -> None:
    with polled(new_loop, True) as (loop, readers, told):
        near, far = pairs[0]
        readers.add(near.fileno(), lambda: told.append("first"))
        readers.redirect(near.fileno(), lambda: told.append(near.recv(9).decode()))
        far.send(b"second")
        run_some_turns(loop)
        assert told == ["turn", "second"]


def test_without_sockets_nothing_is_open_and_it_begins_anew(new_loop: NewLoop, pairs: Pairs) -> None:
    with polled(new_loop, True) as (loop, readers, told):
        near, far = pairs[0]
        for word in ("first", "second"):
            assert readers._epoll is None
            readers.add(near.fileno(), lambda: told.append(near.recv(9).decode()))
            far.send(word.encode())
            run_some_turns(loop)
            readers.remove(near.fileno())
        assert told == ["turn", "first", "turn", "second"]


def test_one_that_fails_keeps_nobody_from_being_served(new_loop: NewLoop, pairs: Pairs) -> None:
    with polled(new_loop, True) as (loop, readers, told):
        loop.set_exception_handler(lambda _loop, context: told.append(str(context["exception"])))

        def fail(near: socket.socket) -> None:
            raise ValueError(near.recv(9).decode())

        for near, far in pairs:
            readers.add(near.fileno(), lambda near=near: fail(near))  # type: ignore[misc]
            far.send(b"broken")
        run_some_turns(loop)
        assert told == ["turn", "broken", "broken", "broken"]


def test_what_cannot_be_watched_leaves_nothing_open(new_loop: NewLoop) -> None:
    loop = new_loop()
    readers = Readers(loop)
    with Path(__file__).open() as file:
        before = len(tuple(Path("/proc/self/fd").iterdir()))
        with pytest.raises(PermissionError):  # a file is always ready, says the kernel
            readers.add(file.fileno(), lambda: None)
        assert len(tuple(Path("/proc/self/fd").iterdir())) == before
    loop.close()
