"""Faults of DHCP as the phone's client meets them, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from random import Random
from typing import Any

import pytest

from cucm.events import EventLog
from cucm.events.dhcp import DhcpOffered, LeaseNotObtained, LeaseRefused, RogueServerAnswered
from cucm.faults import FaultBoard, fault_of
from lab.dhcp_pools import DhcpPool
from lab.dhcp_server import DhcpServer
from phone_agent.dhcp_client import DhcpClient
from phone_agent.dhcp_lease import DhcpDeadlines

Draw = Callable[[], str]
PORT = 6767
MAC = "B000B4BA0AEE"
RIGHT = "127.0.0.1"


class Bench:
    """A server with faults, and a phone that asks it."""

    def __init__(self, loopback: Draw) -> None:
        self.log = EventLog()
        own = loopback()
        self.network = IPv4Network(f"{own}/24", strict=False)
        self.board = FaultBoard(self.log.emitter("faults"), {own: f"SEP{MAC}"})
        emit = self.log.emitter("dhcp")
        pool = DhcpPool("Default", self.network, reservations={MAC: own}, option_150=(RIGHT,))
        self.server = DhcpServer(loopback(), port=PORT, pools=[pool], emit=emit, faults=self.board)
        self.phone = DhcpClient(
            MAC,
            "CP-8861",
            server=(self.server.address, PORT),
            local_address=own,
            port=PORT,
            deadlines=DhcpDeadlines(first_s=0.2, attempts=2, confirm_attempts=1),
            randomness=Random(1),
            emit=self.log.emitter("phone"),
        )

    def set(self, action: str, match: Mapping[str, str] | None = None, **attributes: Any) -> None:
        self.board.set(
            fault_of({"point": "dhcp.request", "action": action, "match": match or {}, "attributes": attributes})
        )

    def told(self, kind: type) -> list[Any]:
        return [record.event for record in self.log if isinstance(record.event, kind)]


@asynccontextmanager
async def bench(loopback: Draw) -> AsyncIterator[Bench]:
    made = Bench(loopback)
    await made.server.start()
    try:
        yield made
    finally:
        await made.phone.close(release=False)
        await made.server.stop()


async def test_without_a_fault_the_phone_learns_the_servers(loopback: Draw) -> None:
    async with bench(loopback) as here:
        assert await here.phone.tftp_servers() == (RIGHT,)


async def test_no_answer(loopback: Draw) -> None:
    async with bench(loopback) as here:
        here.set("no-answer", {"phone": f"SEP{MAC}"})
        assert await here.phone.tftp_servers() is None
        assert here.told(LeaseNotObtained)
        assert not here.told(DhcpOffered)
        here.board.end_all()
        assert await here.phone.tftp_servers() == (RIGHT,)


@pytest.mark.parametrize("servers", [[], ["127.0.0.9", "127.0.0.10"]])
async def test_a_wrong_option_150_is_told_as_it_was_sent(loopback: Draw, servers: list[str]) -> None:
    async with bench(loopback) as here:
        here.set("wrong-option-150", servers=servers)
        expected = tuple(servers) or (str(here.network[-2]),)
        assert await here.phone.tftp_servers() == expected
        assert here.told(DhcpOffered)[0].option_150 == expected
        assert here.server.pools["Default"].option_150 == (RIGHT,), "the pool itself is as it was"


async def test_a_nak_makes_the_phone_begin_anew(loopback: Draw) -> None:
    async with bench(loopback) as here:
        here.board.set(
            fault_of({"point": "dhcp.request", "action": "nak", "match": {"message": "request"}, "times": 1})
        )
        assert await here.phone.tftp_servers() == (RIGHT,)
        assert len(here.told(LeaseRefused)) == 1
        assert len(here.told(DhcpOffered)) == 2


async def test_a_rogue_server_is_chosen_because_it_is_first(loopback: Draw) -> None:
    async with bench(loopback) as here:
        here.set("rogue-server", {"message": "discover"}, servers=["127.0.0.66"])
        assert await here.phone.tftp_servers() == ("127.0.0.66",)
        rogue = str(here.network[-3])
        assert [(told.message, told.server) for told in here.told(RogueServerAnswered)] == [
            ("offer", rogue),
            ("ack", rogue),
        ]
        assert here.phone.lease is not None
        assert here.phone.lease.server == rogue


async def test_a_rogue_confirms_the_lease_of_the_other_and_names_its_own_servers(loopback: Draw) -> None:
    async with bench(loopback) as here:
        await here.phone.tftp_servers()
        here.set("rogue-server", servers=["127.0.0.66"])
        assert await here.phone.tftp_servers() == ("127.0.0.66",)
        assert [told.message for told in here.told(RogueServerAnswered)] == ["ack"]


async def test_the_rogue_goes_with_its_fault_and_its_address_is_free_again(loopback: Draw) -> None:
    async with bench(loopback) as here:
        here.set("rogue-server", {"message": "discover"})
        await here.phone.tftp_servers()
        here.board.end_all()
        await here.phone.close(release=False)
        here.phone.lease = None
        assert await here.phone.tftp_servers() == (RIGHT,)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=(str(here.network[-3]), PORT)
        )
        transport.close()


async def test_a_rogue_whose_address_is_taken_is_told_and_changes_nothing(loopback: Draw) -> None:
    async with bench(loopback) as here:
        here.set("rogue-server", address=here.server.address)
        assert await here.phone.tftp_servers() == (RIGHT,)
        assert any("rogue" in str(record.event).lower() or "taken" in str(record.event) for record in here.log)
