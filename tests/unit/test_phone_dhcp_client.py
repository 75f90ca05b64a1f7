"""The phone's DHCP client on real sockets, against the lab's server and against scripted ones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from ipaddress import IPv4Network
from random import Random

import pytest

from cucm.clock import MovableClock
from cucm.errors import EnvironmentProblem, UsageError
from cucm.events import Event, EventLog
from cucm.events.dhcp import (
    LeaseAcknowledged,
    LeaseExpired,
    LeaseMessageIgnored,
    LeaseNotObtained,
    LeaseRefused,
    LeaseReleased,
    LeaseStep,
)
from cucm.net.addresses import bind_udp
from cucm.net.broadcast import bind_interface
from cucm.net.reachability import Reachability
from cucm.wire.dhcp import INFINITE_LEASE_S, NO_ADDRESS, DhcpMessage, Operation, decode_message, encode_message
from cucm.wire.dhcp_options import MessageType, address_option, type_option
from lab.dhcp_pools import DhcpPool
from lab.dhcp_server import DhcpServer
from phone_agent.dhcp_client import DhcpClient, DhcpForm
from phone_agent.dhcp_lease import DhcpDeadlines

Draw = Callable[[], str]
MAC = "B000B4BA0AEE"
OLD, NEW = ("10.0.0.1", "10.0.0.2"), ("10.0.0.3",)
PORT = 6767
QUICK = DhcpDeadlines(first_s=0.02, attempts=2, confirm_attempts=1, decline_s=0.02, check_s=0.01)
PATIENT = replace(QUICK, first_s=10.0)
LEASE_S = 1000


class Network:
    """A DHCP server and one phone, whose clock stands still until it is moved."""

    def __init__(self, loopback: Draw, deadlines: DhcpDeadlines = PATIENT, lease_s: int = LEASE_S) -> None:
        self.clock = MovableClock(1_000_000.0, frozen=True)
        self.log = EventLog(self.clock)
        self._news = asyncio.Event()
        self.log.subscribe(lambda _record: self._news.set())
        server, self.phone_address = loopback(), loopback()
        network = IPv4Network(f"{server}/24", strict=False)
        pool = DhcpPool("Default", network, {MAC: self.phone_address}, lease_s=lease_s, option_150=OLD)
        self.server = DhcpServer(server, port=PORT, pools=[pool], clock=self.clock, emit=self.log.emitter("dhcp"))
        self.client = DhcpClient(
            MAC,
            "CP-8861",
            server=(server, PORT),
            local_address=self.phone_address,
            port=PORT,
            deadlines=deadlines,
            clock=self.clock,
            randomness=Random(1),
            emit=self.log.emitter("phone"),
        )

    def told(self, kind: type[Event]) -> list[Event]:
        return [record.event for record in self.log if isinstance(record.event, kind)]

    def steps(self) -> list[LeaseStep]:
        return [record.event.step for record in self.log if isinstance(record.event, LeaseAcknowledged)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def running(network: Network) -> AsyncIterator[Network]:
    await network.server.start()
    try:
        yield network
    finally:
        await network.client.close(release=False)
        await network.server.stop()


async def test_a_reboot_learns_what_has_changed(loopback: Draw) -> None:
    async with running(Network(loopback)) as network:
        assert await network.client.tftp_servers() == OLD
        network.server.set_option_150(NEW)
        assert network.client.lease is not None
        assert network.client.lease.tftp_servers == OLD
        assert await network.client.tftp_servers() == NEW
        assert network.steps() == [LeaseStep.REQUESTING, LeaseStep.REBOOTING]
        network.server.set_option_150([])
        assert await network.client.tftp_servers() == ()


async def test_the_lease_is_renewed_and_rebound_by_the_labs_clock(loopback: Draw) -> None:
    async with running(Network(loopback)) as network:
        await network.client.tftp_servers()
        network.clock.move(LEASE_S / 2)
        await network.until(lambda: LeaseStep.RENEWING in network.steps())
        assert network.client.lease is not None
        assert network.client.lease.expiry == network.clock.now() + LEASE_S
        network.clock.move(LEASE_S * 0.875)
        await network.until(lambda: LeaseStep.REBINDING in network.steps())
        assert network.client.lease.expiry == network.clock.now() + LEASE_S


async def test_a_lease_without_end_is_not_renewed(loopback: Draw) -> None:
    async with running(Network(loopback, lease_s=INFINITE_LEASE_S)) as network:
        await network.client.tftp_servers()
        network.clock.move(10 * 365 * 86_400)
        assert await network.client.tftp_servers() == OLD  # confirmed: it still runs
        assert network.steps() == [LeaseStep.REQUESTING, LeaseStep.REBOOTING]


async def test_a_lease_that_runs_out_is_sought_anew_until_somebody_answers(loopback: Draw) -> None:
    async with running(Network(loopback, replace(QUICK, retry_s=0.0))) as network:
        await network.client.tftp_servers()
        network.server.set_reachability(Reachability.UNREACHABLE)
        network.clock.move(LEASE_S / 2)
        await network.until(lambda: len(network.told(LeaseNotObtained)) > 0)
        assert network.client.lease is not None
        network.clock.move(LEASE_S)
        await network.until(lambda: len(network.told(LeaseExpired)) == 1)
        assert network.client.lease is None
        network.server.set_reachability(Reachability.OPEN)
        await network.until(lambda: network.steps()[-1] is LeaseStep.REQUESTING and len(network.steps()) == 2)
        assert len(network.told(LeaseExpired)) == 1


async def test_a_failed_renewal_is_tried_again_after_a_while_of_the_labs_time(loopback: Draw) -> None:
    async with running(Network(loopback, QUICK)) as network:
        await network.client.tftp_servers()
        network.server.set_reachability(Reachability.REFUSE)
        network.clock.move(LEASE_S / 2)
        await network.until(lambda: len(network.told(LeaseNotObtained)) == 1)
        network.clock.move(QUICK.retry_s)
        await network.until(lambda: len(network.told(LeaseNotObtained)) == 2)
        steps = [event.step for event in network.told(LeaseNotObtained) if isinstance(event, LeaseNotObtained)]
        assert steps == [LeaseStep.RENEWING] * 2


async def test_a_refused_renewal_costs_the_lease(loopback: Draw) -> None:
    async with running(Network(loopback)) as network:
        await network.client.tftp_servers()
        pool = network.server.pools["Default"]
        other = str(next(pool.network.hosts()))
        await network.server.stop()
        network.server = DhcpServer(
            network.server.address,
            port=PORT,
            pools=[replace(pool, reservations={MAC: other})],
            clock=network.clock,
            emit=network.log.emitter("dhcp"),
        )
        await network.server.start()
        network.clock.move(LEASE_S / 2)
        await network.until(lambda: len(network.told(LeaseRefused)) == 1)
        assert network.client.lease is None


@pytest.mark.parametrize("how", [Reachability.REFUSE, Reachability.UNREACHABLE])
async def test_nobody_answers(loopback: Draw, how: Reachability) -> None:
    async with running(Network(loopback, QUICK)) as network:
        network.server.set_reachability(how)
        assert await network.client.tftp_servers() is None
        assert network.client.lease is None
        assert network.told(LeaseNotObtained) == [LeaseNotObtained(LeaseStep.SELECTING, "no DHCP server answered")]


async def test_a_lease_that_nobody_confirms_is_kept(loopback: Draw) -> None:
    """RFC 2131, 3.2: it may be used for the rest of its time; the boot goes on with the servers it knew."""
    async with running(Network(loopback, QUICK)) as network:
        await network.client.tftp_servers()
        await network.server.crash()
        assert await network.client.tftp_servers() is None
        assert network.client.lease is not None


async def test_an_orderly_end_gives_the_lease_back(loopback: Draw) -> None:
    async with running(Network(loopback)) as network:
        await network.client.tftp_servers()
        await network.client.close(release=True)
        assert network.client.lease is None
        await network.until(lambda: not network.server.leases)
        assert len(network.told(LeaseReleased)) == 1
        await network.client.close(release=True)
        assert len(network.told(LeaseReleased)) == 1
        assert await network.client.tftp_servers() == OLD  # a phone that boots again asks again


async def test_power_off_keeps_the_lease_and_stops_renewal(loopback: Draw) -> None:
    async with running(Network(loopback)) as network:
        await network.client.tftp_servers()
        await network.client.close(release=False)
        network.clock.move(LEASE_S / 2)
        assert await network.client.tftp_servers() == OLD
        assert network.steps() == [LeaseStep.REQUESTING, LeaseStep.REBOOTING]
        await network.client.close(release=False)
        network.clock.move(LEASE_S)
        await network.client.close(release=True)  # run out: nothing to give back
        assert network.told(LeaseReleased) == []


async def test_a_boot_that_is_cut_leaves_the_port_free(loopback: Draw) -> None:
    network = Network(loopback)
    booting = asyncio.create_task(network.client.tftp_servers())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    booting.cancel()
    await asyncio.wait([booting])
    bind_udp(network.phone_address, PORT).close()


async def test_a_taken_port_is_told_and_is_no_lease(loopback: Draw) -> None:
    async with running(Network(loopback)) as network:
        with closing(bind_udp(network.phone_address, PORT)):
            assert await network.client.tftp_servers() is None
        (told,) = network.told(LeaseNotObtained)
        assert isinstance(told, LeaseNotObtained)
        assert "another program holds this address" in told.detail


async def test_garbage_and_strangers_do_not_disturb(loopback: Draw) -> None:
    """A scripted server sends garbage and another's answer before it is silent; then the real one is there."""
    network = Network(loopback, PATIENT)
    loop = asyncio.get_running_loop()
    script = bind_udp(network.server.address, PORT)
    asked: asyncio.Future[bytes] = loop.create_future()
    loop.add_reader(script, lambda: asked.done() or asked.set_result(script.recv(4096)))
    booting = asyncio.create_task(network.client.tftp_servers())
    request = decode_message(await asyncio.wait_for(asked, 10))
    loop.remove_reader(script)
    assert request.giaddr == network.phone_address
    phone = (network.phone_address, PORT)
    script.sendto(b"garbage", phone)
    script.sendto(encode_message(replace(request, op=Operation.REPLY, xid=request.xid ^ 1)), phone)
    await network.until(lambda: len(network.told(LeaseMessageIgnored)) == 2)
    script.close()
    await network.server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:  # the repetition, without waiting for it
        again.sendto(encode_message(request), (network.server.address, PORT))
    assert await asyncio.wait_for(booting, 10) == OLD
    await network.client.close(release=False)
    await network.server.stop()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"server": None}, "needs the server's address"),
        ({"server": None, "form": DhcpForm.BROADCAST}, "needs an interface"),
        ({"mac": "x"}, "no MAC address"),
    ],
)
def test_a_client_that_cannot_be(arguments: dict[str, object], what: str) -> None:
    given = {"mac": MAC, "model": "CP-8861", "server": ("127.0.0.1", 67), "local_address": "127.0.0.2"} | arguments
    with pytest.raises(UsageError, match=what):
        DhcpClient(given.pop("mac"), given.pop("model"), **given)  # type: ignore[arg-type]


def test_an_interface_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no network interface 'nothere0'"):
        bind_interface("nothere0", 68)


def test_the_loopback_interface_can_be_bound_or_is_said_to_need_rights() -> None:
    try:
        bound = bind_interface("lo", 0)
    except EnvironmentProblem as error:
        assert "root" in (error.mend or "")  # noqa: PT017
    else:
        with bound:
            assert bound.getsockname()[0] == NO_ADDRESS


async def test_a_scripted_nak_leads_to_a_new_discover(loopback: Draw) -> None:
    """Message by message, so that what travels is seen: DISCOVER, REQUEST, then DISCOVER again after the NAK."""
    network = Network(loopback, PATIENT)
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    script = bind_udp(network.server.address, PORT)
    loop.add_reader(script, lambda: queue.put_nowait(script.recv(4096)))
    booting = asyncio.create_task(network.client.tftp_servers())
    kinds = []
    for answer in (MessageType.OFFER, MessageType.NAK, None):
        request = decode_message(await asyncio.wait_for(queue.get(), 10))
        kinds.append(request.message_type)
        if answer is not None:
            script.sendto(encode_message(_answer(request, answer, network)), (network.phone_address, PORT))
    assert kinds == [MessageType.DISCOVER, MessageType.REQUEST, MessageType.DISCOVER]
    booting.cancel()
    await asyncio.wait([booting])
    loop.remove_reader(script)
    script.close()


def _answer(request: DhcpMessage, kind: MessageType, network: Network) -> DhcpMessage:
    options = (type_option(kind), address_option(54, network.server.address))
    return replace(request, op=Operation.REPLY, options=options, yiaddr=network.phone_address)
