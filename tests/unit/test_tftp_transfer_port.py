"""Transfer IDs: a port leads to one client, others are told apart, and a port rests before it is taken again."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cucm.net.readers import Readers
from cucm.net.timer_wheel import TimerWheel
from tftp_server import transfer_port
from tftp_server.request_port import Peer
from tftp_server.transfer_port import MAX_IDLE_PORTS, MAX_STALE, RESTING_PORTS, TransferPort, TransferPorts, most_kept

Draw = Callable[[], str]


@contextmanager
def ports_of_a_loop() -> Iterator[tuple[asyncio.AbstractEventLoop, TransferPorts]]:
    loop = asyncio.new_event_loop()
    readers = Readers(loop)
    wheel = TimerWheel(loop)
    ports = TransferPorts(readers, wheel)
    try:
        yield loop, ports
    finally:
        ports.close()
        wheel.close()
        readers.close()
        loop.close()


@contextmanager
def client(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind((address, 0))
        own.settimeout(20)
        yield own


def has_come(port: TransferPort) -> bytes:
    """The next datagram of the port's client, waited for."""
    readable, _, _ = select.select([port._socket], [], [], 20)
    assert readable
    return port.receive(100)


def test_it_leads_to_one_client_and_hears_of_others(loopback: Draw) -> None:
    with ports_of_a_loop() as (loop, ports), client(loopback()) as phone, client(loopback()) as stranger:
        port = ports.take(loopback(), phone.getsockname())
        heard: list[tuple[bytes, Peer]] = []
        came = asyncio.Event()

        def tell(datagram: bytes, sender: Peer) -> None:
            heard.append((datagram, sender))
            came.set()

        port.on_stranger = tell
        port.send(b"data")
        datagram, transfer_id = phone.recvfrom(100)
        assert datagram == b"data"
        stranger.sendto(b"intruding", transfer_id)
        phone.sendto(b"acknowledged", transfer_id)
        assert has_come(port) == b"acknowledged"
        loop.run_until_complete(asyncio.wait_for(came.wait(), 20))
        assert heard == [(b"intruding", stranger.getsockname())]
        port.send_to(b"wrong", stranger.getsockname())
        assert stranger.recvfrom(100) == (b"wrong", transfer_id)
        port.close()


def test_nobody_else_can_take_part_of_the_port(loopback: Draw) -> None:
    with ports_of_a_loop() as (_, ports), client(loopback()) as phone:
        port = ports.take(loopback(), phone.getsockname())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                thief.bind(port._socket.getsockname())
        port.close()


def test_a_port_rests_before_it_is_taken_again(loopback: Draw) -> None:
    own = loopback()
    with ports_of_a_loop() as (_, ports), client(loopback()) as phone:
        numbers = []
        for _ in range(3 * RESTING_PORTS):
            port = ports.take(own, phone.getsockname())
            numbers.append(port._socket.getsockname()[1])
            ports.give_back(port)
        for at, number in enumerate(numbers):
            assert number not in numbers[at + 1 : at + 1 + RESTING_PORTS]
        assert len(set(numbers)) == RESTING_PORTS + 1


def test_what_came_late_for_the_transfer_before_meets_nobody(loopback: Draw) -> None:
    own = loopback()
    with ports_of_a_loop() as (_, ports), client(loopback()) as before, client(loopback()) as now:
        first = ports.take(own, before.getsockname())
        before.sendto(b"unread", first._socket.getsockname())
        heard: list[bytes] = []
        ports.give_back(first)
        for _ in range(RESTING_PORTS):
            ports.give_back(ports.take(own, before.getsockname()))
        again = ports.take(own, now.getsockname())
        assert again is first
        again.on_stranger = lambda datagram, _: heard.append(datagram)
        before.sendto(b"late", again._socket.getsockname())
        now.sendto(b"mine", again._socket.getsockname())
        assert has_come(again) == b"mine"
        again._on_stranger()
        assert heard == []
        again.close()


def test_a_flood_for_the_transfer_before_does_not_pass_for_the_next_clients(loopback: Draw) -> None:
    own = loopback()
    with ports_of_a_loop() as (_, ports), client(loopback()) as before, client(loopback()) as now:
        first = ports.take(own, before.getsockname())
        ports.give_back(first)
        for _ in range(RESTING_PORTS):
            ports.give_back(ports.take(own, before.getsockname()))
        for _ in range(MAX_STALE + 1):
            before.sendto(b"\0\5\0\0I give up\0", first._socket.getsockname())
        port = ports.take(own, now.getsockname())
        port.send(b"data")
        _, transfer_id = now.recvfrom(100)
        now.sendto(b"mine", transfer_id)
        assert has_come(port) == b"mine"
        port.close()


def test_a_clients_closed_port_is_no_error_of_the_next_transfer(loopback: Draw) -> None:
    own = loopback()
    with ports_of_a_loop() as (_, ports), client(loopback()) as phone:
        with client(loopback()) as gone:
            port = ports.take(own, gone.getsockname())
        port.send(b"to a closed port")
        port.lead_to(phone.getsockname())
        port.send(b"data")
        assert phone.recv(100) == b"data"
        port.close()


def test_ports_that_nobody_needs_are_closed_but_for_those_that_rest(loopback: Draw) -> None:
    own = loopback()
    with ports_of_a_loop() as (_, ports), client(loopback()) as phone:
        taken = [ports.take(own, phone.getsockname()) for _ in range(RESTING_PORTS + 20)]
        for port in taken:
            ports.give_back(port)
        needed = [ports.take(own, phone.getsockname()) for _ in range(5)]
        for port in needed:
            ports.give_back(port)
        ports.time_is_up()
        assert len(ports._idle) == RESTING_PORTS + 20
        for port in [ports.take(own, phone.getsockname()) for _ in range(5)]:
            ports.give_back(port)
        ports.time_is_up()
        assert len(ports._idle) == RESTING_PORTS + 5
        ports.time_is_up()
        assert len(ports._idle) == RESTING_PORTS
        assert not ports._waits


@pytest.mark.parametrize("limit", [256, 2048, 20_000])
def test_idle_ports_are_bounded_and_closed_in_the_end(
    loopback: Draw, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(transfer_port, "descriptor_limit", lambda: limit)
    own, most = loopback(), RESTING_PORTS + 1 + most_kept(limit)
    with ports_of_a_loop() as (_, ports), client(loopback()) as phone:
        taken = [ports.take(own, phone.getsockname()) for _ in range(most + 5)]
        for port in taken:
            ports.give_back(port)
        assert sum(port._socket.fileno() >= 0 for port in taken) == most
    assert all(port._socket.fileno() < 0 for port in taken)


def test_no_more_ports_are_kept_than_the_files_that_may_be_open_allow() -> None:
    assert [most_kept(limit) for limit in (256, 1024, 2048, 20_000)] == [0, 0, 31, MAX_IDLE_PORTS - RESTING_PORTS - 1]


def test_all_servers_of_a_process_keep_so_many_ports_together(loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_port, "descriptor_limit", lambda: 2048)
    before = TransferPorts.kept
    with ports_of_a_loop() as (_, first), ports_of_a_loop() as (_, second), client(loopback()) as phone:
        for ports in (first, second):
            for port in [ports.take(loopback(), phone.getsockname()) for _ in range(RESTING_PORTS + 21)]:
                ports.give_back(port)
        assert [len(ports._idle) for ports in (first, second)] == [RESTING_PORTS + 21, RESTING_PORTS + 1 + 31 - 20]
        assert TransferPorts.kept == 31
    assert TransferPorts.kept == before


def test_a_server_on_all_addresses_answers_from_each(loopback: Draw) -> None:
    here, there = loopback(), loopback()
    with ports_of_a_loop() as (_, ports), client(loopback()) as phone:
        for _ in range(RESTING_PORTS + 1):
            ports.give_back(ports.take(here, phone.getsockname()))
        port = ports.take(there, phone.getsockname())
        assert port._socket.getsockname()[0] == there
        port.close()
