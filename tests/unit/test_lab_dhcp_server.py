"""The lab's DHCP server on a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cucm.errors import AddressBusy, LabError, UsageError
from cucm.events import EventLog
from cucm.events.dhcp import (
    DhcpAcknowledged,
    DhcpIgnored,
    DhcpOffered,
    IgnoredReason,
    Option66Set,
    Option150Set,
)
from cucm.net.addresses import bind_udp
from cucm.net.reachability import Reachability
from cucm.wire.dhcp import DhcpMessage, Operation, decode_message, encode_message
from cucm.wire.dhcp_options import MessageType, OptionCode, address_option, type_option
from lab.dhcp_pools import DhcpPool
from lab.dhcp_server import REQUESTS_PER_TURN, DhcpServer

Draw = Callable[[], str]
PORT = 6767
PATIENCE_S = 20


class Relay:
    """A server and somebody who relays to it from an address of his own."""

    def __init__(self, loopback: Draw, state_file: Path | None = None) -> None:
        self.log = EventLog()
        self.news = asyncio.Event()
        self.log.subscribe(lambda _record: self.news.set())
        self.address, self.own = loopback(), loopback()
        self.pool = DhcpPool("Default", IPv4Network(f"{self.own}/24", strict=False), first=self.own, last=self.own)
        self.state_file = state_file
        self.socket = bind_udp(self.own, PORT)
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self.socket, lambda: self.received.put_nowait(self.socket.recv(4096)))
        self.server = self.new_server()

    def new_server(self) -> DhcpServer:
        emit = self.log.emitter("dhcp")
        return DhcpServer(self.address, port=PORT, pools=[self.pool], state_file=self.state_file, emit=emit)

    def message(self, kind: MessageType, mac: int = 1) -> DhcpMessage:
        wish = address_option(OptionCode.REQUESTED_ADDRESS, self.own)
        chosen = address_option(OptionCode.SERVER_IDENTIFIER, self.address)
        options = (type_option(kind), *((wish, chosen) if kind is MessageType.REQUEST else ()))
        return DhcpMessage(Operation.REQUEST, mac, mac.to_bytes(6, "big"), options, giaddr=self.own)

    def send(self, data: bytes | DhcpMessage) -> None:
        content = encode_message(data) if isinstance(data, DhcpMessage) else data
        self.socket.sendto(content, (self.address, PORT))

    async def ask(self, kind: MessageType, mac: int = 1) -> DhcpMessage:
        self.send(self.message(kind, mac))
        return decode_message(await asyncio.wait_for(self.received.get(), PATIENCE_S))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def kinds(self) -> list[type]:
        return [type(record.event) for record in self.log]


@asynccontextmanager
async def relaying(relay: Relay) -> AsyncIterator[Relay]:
    await relay.server.start()
    try:
        yield relay
    finally:
        await relay.server.stop()
        asyncio.get_running_loop().remove_reader(relay.socket)
        relay.socket.close()


async def test_what_the_events_tell_has_been_sent(loopback: Draw) -> None:
    async with relaying(Relay(loopback)) as relay:
        assert relay.server.is_running
        offer = await relay.ask(MessageType.DISCOVER)
        granted = await relay.ask(MessageType.REQUEST)
        assert (offer.message_type, granted.message_type) == (MessageType.OFFER, MessageType.ACK)
        assert relay.kinds() == [DhcpOffered, DhcpAcknowledged]
        assert relay.server.leases["000000000001"].address == relay.own


async def test_a_lease_outlives_kill_and_stop(loopback: Draw, tmp_path: Path) -> None:
    async with relaying(Relay(loopback, tmp_path / "dhcp.json")) as relay:
        await relay.ask(MessageType.REQUEST)
        relay.server.set_option_150(["10.0.0.9"])
        await relay.server.crash()
        assert not relay.server.is_running
        relay.server = relay.new_server()  # another process
        await relay.server.start()
        assert set(relay.server.leases) == {"000000000001"}
        assert (await relay.ask(MessageType.DISCOVER)).tftp_servers == ("10.0.0.9",)
        await relay.server.stop()
        await relay.server.stop()
        await relay.server.start()
        await relay.server.start()
        assert set(relay.server.leases) == {"000000000001"}


async def test_without_a_state_file_a_restart_forgets(loopback: Draw) -> None:
    async with relaying(Relay(loopback)) as relay:
        await relay.ask(MessageType.REQUEST)
        await relay.server.crash()
        await relay.server.start()
        assert relay.server.leases == {}


async def test_garbage_is_told_and_the_next_message_answered(loopback: Draw) -> None:
    async with relaying(Relay(loopback)) as relay:
        relay.send(b"")
        relay.send(b"garbage")
        relay.send(bytes(5000))
        await relay.ask(MessageType.DISCOVER)
        told = [record.event for record in relay.log][:-1]
        assert [event.reason for event in told if isinstance(event, DhcpIgnored)] == [IgnoredReason.MALFORMED] * 3


async def test_many_at_once_are_all_answered_with_few_writings(loopback: Draw, tmp_path: Path) -> None:
    phones = REQUESTS_PER_TURN + 20
    async with relaying(Relay(loopback, tmp_path / "dhcp.json")) as relay:
        network = relay.pool.network
        pool = replace(relay.pool, first=str(network[100]), last=str(network[100 + phones]))
        await relay.server.stop()
        relay.pool = pool
        relay.server = relay.new_server()
        await relay.server.start()
        for mac in range(phones):
            relay.send(relay.message(MessageType.DISCOVER, mac))
        offers = [decode_message(await asyncio.wait_for(relay.received.get(), PATIENCE_S)) for _ in range(phones)]
        assert len({offer.yiaddr for offer in offers}) == phones


async def test_a_reply_that_cannot_be_sent_is_told(loopback: Draw) -> None:
    """A giaddr that this machine has no way to; and one message that would be too long for its client."""
    async with relaying(Relay(loopback)) as relay:
        relay.pool = replace(relay.pool, network=IPv4Network("0.0.0.0/0"), first=None, last=None)
        relay.pool = replace(relay.pool, reservations={"000000000001": relay.own})
        await relay.server.stop()
        relay.server = relay.new_server()
        await relay.server.start()
        relay.send(replace(relay.message(MessageType.DISCOVER), giaddr="255.255.255.255"))
        await relay.until(lambda: DhcpIgnored in relay.kinds())
        (told,) = [record.event for record in relay.log]
        assert isinstance(told, DhcpIgnored)
        assert (told.reason, told.client) == (IgnoredReason.NOT_SENT, "000000000001")


async def test_options_are_told_and_checked(loopback: Draw) -> None:
    async with relaying(Relay(loopback)) as relay:
        relay.server.set_option_150(["10.0.0.9"], pool="Default")
        relay.server.set_option_66("tftp.example")
        assert [record.event for record in relay.log] == [
            Option150Set(("10.0.0.9",), "Default"),
            Option66Set("tftp.example"),
        ]
        pool = relay.server.pools["Default"]
        assert (pool.option_150, pool.option_66) == (("10.0.0.9",), "tftp.example")
        for wrong in (["phone"], ["10.0.0.1"] * 64):
            with pytest.raises(UsageError):
                relay.server.set_option_150(wrong)
        with pytest.raises(UsageError, match="no DHCP pool 'x'"):
            relay.server.set_option_66("", pool="x")


@pytest.mark.parametrize("stopped", [False, True])
async def test_refused_means_port_unreachable_and_unreachable_means_silence(loopback: Draw, stopped: bool) -> None:
    async with relaying(Relay(loopback)) as relay:
        if stopped:
            await relay.server.stop()
        relay.server.set_reachability(Reachability.REFUSE)
        if stopped:
            await relay.server.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
            connected.connect((relay.address, PORT))
            connected.settimeout(PATIENCE_S)
            connected.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                connected.recv(1)
            relay.server.set_reachability(Reachability.UNREACHABLE)
            relay.server.set_reachability(Reachability.UNREACHABLE)
            connected.send(b"x")  # no ICMP answer: neither this nor the next one fails
            connected.send(b"x")
        relay.send(relay.message(MessageType.DISCOVER))
        relay.server.set_reachability(Reachability.OPEN)
        assert (await relay.ask(MessageType.REQUEST)).message_type == MessageType.ACK
        assert relay.kinds() == [DhcpAcknowledged]  # what came meanwhile is lost


async def test_a_port_that_was_taken_meanwhile(loopback: Draw) -> None:
    relay = Relay(loopback)
    async with relaying(relay):
        relay.server.set_reachability(Reachability.REFUSE)
        with bind_udp(relay.address, PORT), pytest.raises(AddressBusy):
            relay.server.set_reachability(Reachability.OPEN)


async def test_leases_that_cannot_be_kept_are_not_granted(loopback: Draw, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    async with relaying(Relay(loopback, folder / "dhcp.json")) as relay:
        folder.rmdir()
        relay.send(relay.message(MessageType.REQUEST))
        await relay.until(lambda: DhcpIgnored in relay.kinds())
        assert relay.kinds() == [DhcpIgnored]
        folder.mkdir()
        assert (await relay.ask(MessageType.REQUEST)).message_type == MessageType.ACK


def test_servers_that_cannot_be(tmp_path: Path) -> None:
    pool = DhcpPool("Default", IPv4Network("127.0.11.0/24"))
    with pytest.raises(UsageError, match="two DHCP pools of one name"):
        DhcpServer("127.0.11.1", pools=[pool, pool])
    with pytest.raises(UsageError, match="needs an interface"):
        DhcpServer("127.0.11.1", pools=[pool], broadcast=True)
    (tmp_path / "dhcp.json").write_text("x")
    with pytest.raises(LabError, match="no state of a DHCP server"):
        DhcpServer("127.0.11.1", pools=[pool], state_file=tmp_path / "dhcp.json")
