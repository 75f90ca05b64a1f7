"""The door of a listener when the system has nothing left, and with many at once."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - what uvloop would import when nothing can be opened
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from both_loops import on_both_loops

from cucm.errors import AddressBusy
from cucm.machine import raise_descriptor_limit
from cucm.net import door
from cucm.net.listener import Listener
from cucm.net.reachability import Reachability
from cucm.net.stream import Stream

Draw = Callable[[], str]
DEADLINE_S = 20


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """The process can open nothing more: accept fails with EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Warned(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.once = asyncio.Event()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.once.set()


@on_both_loops
async def test_who_comes_when_nothing_is_left_is_let_in_later(loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "EXHAUSTED_PAUSE_S", 0.05)
    listener = Listener(loopback(), 0, echo)
    await listener.start()
    loop = asyncio.get_running_loop()
    warned = Warned()
    logging.getLogger(door.__name__).addHandler(warned)
    try:
        async with asyncio.timeout(DEADLINE_S):
            with socket.socket() as client:
                client.setblocking(False)
                with no_descriptors_left():
                    await loop.sock_connect(client, (listener.address, listener.port))
                    await warned.once.wait()
                    assert listener.connections == 0
                await loop.sock_sendall(client, b"ping")
                assert await loop.sock_recv(client, 10) == b"ping"
    finally:
        logging.getLogger(door.__name__).removeHandler(warned)
        await listener.stop()
    assert "nobody is let in for a while" in warned.records[0].getMessage()


@on_both_loops
async def test_stopping_while_nobody_is_let_in_ends_the_pause(loopback: Draw) -> None:
    listener = Listener(loopback(), 0, echo)
    await listener.start()
    loop = asyncio.get_running_loop()
    warned = Warned()
    logging.getLogger(door.__name__).addHandler(warned)
    try:
        async with asyncio.timeout(DEADLINE_S):
            with socket.socket() as client:
                client.setblocking(False)
                with no_descriptors_left():
                    await loop.sock_connect(client, (listener.address, listener.port))
                    await warned.once.wait()
                await listener.stop()
                with pytest.raises(ConnectionResetError):
                    await loop.sock_recv(client, 10)
    finally:
        logging.getLogger(door.__name__).removeHandler(warned)


@on_both_loops
async def test_more_at_once_than_one_turn_lets_in(loopback: Draw) -> None:
    raise_descriptor_limit()
    listener = Listener(loopback(), 0, echo)
    await listener.start()
    clients = [socket.socket() for _ in range(3 * door.ACCEPTS_PER_TURN)]
    try:
        for client in clients:  # all wait in the kernel before the loop turns
            client.connect((listener.address, listener.port))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE_S):
            for client in clients:
                client.setblocking(False)
                await loop.sock_sendall(client, b"ping")
            assert {await loop.sock_recv(client, 10) for client in clients} == {b"ping"}
        assert listener.connections == len(clients)
    finally:
        for client in clients:
            client.close()
        await listener.stop()


def open_descriptors() -> int:
    return len(tuple(Path("/proc/self/fd").iterdir()))


@on_both_loops
async def test_a_port_that_cannot_be_had_leaves_no_descriptor_open(loopback: Draw) -> None:
    listener = Listener(loopback(), 0, echo)
    await listener.start()
    before = open_descriptors()
    for how in (Reachability.OPEN, Reachability.REFUSE, Reachability.UNREACHABLE):
        another = Listener(listener.address, listener.port, echo)
        another.set_reachability(how)
        with pytest.raises(AddressBusy):
            await another.start()
    assert open_descriptors() == before
    await listener.stop()


@on_both_loops
async def test_a_door_that_cannot_be_set_is_closed(loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    address, before = loopback(), open_descriptors()

    def taken(address: str, port: int) -> socket.socket:
        raise AddressBusy("another program holds this address and port", where=f"{address} TCP port {port}")

    monkeypatch.setattr(door, "bind_silent_tcp", taken)  # another program was quicker: that cannot be had for sure
    with pytest.raises(AddressBusy):
        door.Door(address, 0, asyncio.BufferedProtocol, Reachability.REFUSE)
    assert open_descriptors() == before
