"""The phone's side of DHCP against scripted servers: every branch of the dialogue, without sockets."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from cucm.events import Event
from cucm.events.dhcp import (
    LeaseAcknowledged,
    LeaseDeclined,
    LeaseMessageIgnored,
    LeaseNotObtained,
    LeaseRefused,
    LeaseStep,
    TftpServerNotUsable,
)
from cucm.wire.dhcp import BROADCAST_FLAG, DhcpMessage, Operation
from cucm.wire.dhcp_options import (
    DhcpOption,
    MessageType,
    OptionCode,
    address_option,
    number_option,
    text_option,
    type_option,
)
from phone_agent.dhcp_exchange import MAX_RESTARTS, MAX_STRANGERS, LeaseExchange
from phone_agent.dhcp_lease import DhcpDeadlines, DhcpIdentity, Lease, Sending

NOW = 1_000_000.0
OWN, SERVER, OTHER = "127.0.11.100", "127.0.11.1", "127.0.11.2"
TFTP = ("127.0.11.32", "127.0.11.33")
PHONE = DhcpIdentity.of("b000b4ba0aee", "CP-8861", relay=OWN)
HELD = Lease(OWN, SERVER, TFTP, NOW - 10, NOW + 100, NOW + 200, source="150")
DEADLINES = DhcpDeadlines()


class World:
    """An exchange with what it sent, told and held; `reply` answers its last message."""

    def __init__(
        self, step: LeaseStep = LeaseStep.SELECTING, held: Lease | None = None, identity: DhcpIdentity = PHONE
    ) -> None:
        self.events: list[Event] = []
        self.held: list[Lease | None] = []
        self.exchange = LeaseExchange(
            identity,
            held,
            step,
            now=lambda: NOW,
            randomness=Random(1),
            deadlines=DEADLINES,
            emit=self.events.append,
            hold=self.held.append,
        )
        self.sent: list[Sending] = self.exchange.start()

    @property
    def last(self) -> DhcpMessage:
        return self.sent[-1].message

    @property
    def types(self) -> list[int | None]:
        return [sending.message.message_type for sending in self.sent]

    def reply(self, kind: int, *options: DhcpOption, server: str | None = SERVER, **fields: object) -> None:
        given: dict[str, object] = {"yiaddr": OWN, "xid": self.last.xid, "chaddr": PHONE.mac} | fields
        named = (address_option(OptionCode.SERVER_IDENTIFIER, server),) if server else ()
        kind_option = number_option(OptionCode.MESSAGE_TYPE, kind, 1)
        message = DhcpMessage(op=Operation.REPLY, options=(kind_option, *named, *options), **given)  # type: ignore[arg-type]
        self.sent += self.exchange.receive(message, "peer")

    def offer(self, *options: DhcpOption, **fields: object) -> None:
        self.reply(MessageType.OFFER, *options, **fields)  # type: ignore[arg-type]

    def acknowledge(self, *options: DhcpOption, lease_s: int | None = 3600, **fields: object) -> None:
        time = () if lease_s is None else (number_option(OptionCode.LEASE_TIME, lease_s, 4),)
        self.reply(MessageType.ACK, *time, *options, **fields)  # type: ignore[arg-type]

    def time_out(self, times: int = 1) -> None:
        for _ in range(times):
            self.sent += self.exchange.handle_timeout()

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def ignored(self) -> list[str]:
        return [event.detail for event in self.events if isinstance(event, LeaseMessageIgnored)]


OPTION_150 = address_option(150, *TFTP)


def test_a_lease_from_nothing() -> None:
    world = World()
    discover = world.last
    assert discover.message_type == MessageType.DISCOVER
    assert (discover.giaddr, discover.ciaddr, discover.hops, discover.flags) == (OWN, "0.0.0.0", 1, 0)
    assert discover.find(OptionCode.VENDOR_CLASS) == b"Cisco Systems, Inc. IP Phone CP-8861"
    assert discover.find(OptionCode.CLIENT_IDENTIFIER) == b"\1" + PHONE.mac
    assert discover.find(OptionCode.PARAMETER_REQUEST_LIST) == bytes((1, 66, 6, 3, 15, 150, 35))
    assert discover.find(OptionCode.HOST_NAME) == b"SEPB000B4BA0AEE"
    world.offer()
    assert world.last.message_type == MessageType.REQUEST
    assert (world.last.requested_address, world.last.server_identifier) == (OWN, SERVER)
    assert world.last.xid == discover.xid
    world.acknowledge(OPTION_150, text_option(66, "tftp.example"))
    assert world.exchange.is_over
    assert world.exchange.lease == Lease(
        OWN, SERVER, TFTP, NOW + 1800, NOW + 3150, NOW + 3600, option_66="tftp.example", source="150"
    )
    assert world.held == [world.exchange.lease]
    assert world.events == [LeaseAcknowledged(LeaseStep.REQUESTING, OWN, SERVER, TFTP, "150", "tftp.example", 3600.0)]
    world.acknowledge()
    world.time_out()
    assert len(world.sent) == 2


def test_a_phone_on_its_own_network_asks_for_broadcast_answers_and_may_get_any_address() -> None:
    world = World(identity=replace(PHONE, relay=None, own=None))
    assert (world.last.giaddr, world.last.hops, world.last.flags) == ("0.0.0.0", 0, BROADCAST_FLAG)
    world.offer(yiaddr="10.1.1.9")
    world.acknowledge(yiaddr="10.1.1.9")
    assert world.exchange.lease is not None
    assert world.exchange.lease.address == "10.1.1.9"


@pytest.mark.parametrize(
    ("step", "server", "ciaddr", "requested"),
    [
        (LeaseStep.REBOOTING, None, "0.0.0.0", OWN),
        (LeaseStep.RENEWING, SERVER, OWN, None),
        (LeaseStep.REBINDING, None, OWN, None),
    ],
)
def test_a_lease_that_goes_on(step: LeaseStep, server: str | None, ciaddr: str, requested: str | None) -> None:
    world = World(step, HELD)
    assert world.last.message_type == MessageType.REQUEST
    assert world.sent[0].server == server
    assert (world.last.ciaddr, world.last.requested_address, world.last.server_identifier) == (ciaddr, requested, None)
    world.acknowledge(OPTION_150)
    assert world.exchange.lease is not None
    assert world.exchange.lease.expiry == NOW + 3600
    assert [event.step for event in world.events if isinstance(event, LeaseAcknowledged)] == [step]


def test_silence_is_met_with_repetition_that_slows_down_and_an_end() -> None:
    world = World()
    waits = [world.exchange.timeout_s]
    for _ in range(DEADLINES.attempts - 1):
        world.time_out()
        waits.append(world.exchange.timeout_s)
    assert all(0.9 * 2**n <= wait <= 1.1 * 2**n for n, wait in enumerate(waits))
    assert [sending.message.secs for sending in world.sent] == [0, 1, 3]
    assert len({sending.message.xid for sending in world.sent}) == 1
    world.time_out()
    assert world.exchange.is_over
    assert world.exchange.lease is None
    assert world.held == []
    assert world.events == [LeaseNotObtained(LeaseStep.SELECTING, "no DHCP server answered")]


@pytest.mark.parametrize("step", [LeaseStep.RENEWING, LeaseStep.REBINDING])
def test_a_lease_that_nobody_renews_stays_what_it_is(step: LeaseStep) -> None:
    world = World(step, HELD)
    world.time_out(DEADLINES.attempts)
    assert world.exchange.is_over
    assert world.held == []
    assert world.events == [LeaseNotObtained(step, "no DHCP server answered")]


def test_a_lease_that_nobody_confirms_is_sought_anew() -> None:
    world = World(LeaseStep.REBOOTING, HELD)
    first = world.last.xid
    world.time_out(DEADLINES.confirm_attempts)
    assert world.types == [MessageType.REQUEST] * DEADLINES.confirm_attempts + [MessageType.DISCOVER]
    assert world.last.xid != first


def test_a_server_that_offers_and_does_not_grant_is_given_up() -> None:
    world = World()
    for _ in range(MAX_RESTARTS + 1):
        assert world.last.message_type == MessageType.DISCOVER
        world.offer()
        world.time_out(DEADLINES.attempts)
    assert world.exchange.is_over
    (told,) = world.events
    assert isinstance(told, LeaseNotObtained)
    assert told.detail == f"{SERVER} offers an address and does not grant it"


@pytest.mark.parametrize("step", [LeaseStep.REBOOTING, LeaseStep.RENEWING, LeaseStep.REBINDING])
def test_a_refusal_ends_the_lease_and_starts_over(step: LeaseStep) -> None:
    world = World(step, HELD)
    world.reply(MessageType.NAK, text_option(OptionCode.MESSAGE, "wrong network"))
    assert world.held == [None]
    assert world.events == [LeaseRefused(step, SERVER, "wrong network")]
    assert world.types[-1] == MessageType.DISCOVER
    assert world.last.ciaddr == "0.0.0.0"


def test_refusals_have_an_end() -> None:
    world = World(LeaseStep.REBOOTING, HELD)
    world.reply(MessageType.NAK)
    for _ in range(MAX_RESTARTS):
        world.offer()
        world.reply(MessageType.NAK)
    assert world.exchange.is_over
    assert len(world.told(LeaseRefused)) == MAX_RESTARTS + 1
    assert world.told(LeaseNotObtained) == [LeaseNotObtained(LeaseStep.REQUESTING, "refused again and again")]


@pytest.mark.parametrize(
    ("granted", "mask", "why"),
    [
        (OTHER, None, f"{OWN} was asked for"),
        ("0.0.0.0", None, "no phone can have this address"),
        ("255.255.255.255", None, "no phone can have this address"),
        ("224.0.0.1", None, "no phone can have this address"),
        (OWN, "255.255.255.252", "no phone can have this address"),
    ],
)
def test_an_address_of_no_use_is_declined(granted: str, mask: str | None, why: str) -> None:
    world = World()
    world.offer()
    world.acknowledge(*((address_option(1, mask),) if mask else ()), yiaddr=granted)
    assert world.told(LeaseDeclined) == [LeaseDeclined(granted, SERVER, why)]
    declining = world.last
    assert declining.message_type == MessageType.DECLINE
    assert (declining.requested_address, declining.server_identifier, declining.ciaddr) == (granted, SERVER, "0.0.0.0")
    assert world.held == [None]
    assert world.exchange.timeout_s == DEADLINES.decline_s
    world.acknowledge()  # too late
    assert world.exchange.lease is None
    world.time_out()
    assert world.last.message_type == MessageType.DISCOVER


def test_a_relayed_phone_can_only_have_its_own_address_and_declines_others_so_often() -> None:
    world = World()
    for attempt in range(MAX_RESTARTS + 1):
        assert not world.exchange.is_over
        world.offer(yiaddr=OTHER)
        world.acknowledge(yiaddr=OTHER)
        if attempt < MAX_RESTARTS:
            world.time_out()
    assert world.exchange.is_over
    assert world.told(LeaseDeclined) == [LeaseDeclined(OTHER, SERVER, f"this phone can only have {OWN}")] * 4
    assert world.told(LeaseNotObtained) == [LeaseNotObtained(LeaseStep.REQUESTING, "every address given was of no use")]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"xid": 7}, "an answer to another dialogue"),
        ({"chaddr": bytes(6)}, "meant for 00:00:00:00:00:00"),
        ({"server": None}, "does not say which server it is from"),
        ({"server": "0.0.0.0"}, "0.0.0.0 is no server's address"),
        ({"yiaddr": "0.0.0.0"}, "offers 0.0.0.0, which no phone can have"),
        ({"yiaddr": "255.255.255.255"}, "offers 255.255.255.255, which no phone can have"),
    ],
)
def test_offers_that_are_not_heeded(fields: dict[str, object], detail: str) -> None:
    world = World()
    world.offer(**fields)
    assert world.ignored() == [detail]
    assert len(world.sent) == 1
    world.offer()
    assert world.types == [MessageType.DISCOVER, MessageType.REQUEST]


def test_requests_of_others_are_not_heeded() -> None:
    world = World()
    request = DhcpMessage(Operation.REQUEST, world.last.xid, PHONE.mac, (type_option(MessageType.OFFER),))
    assert world.exchange.receive(request, "peer") == []
    assert world.ignored() == ["not a reply"]


@pytest.mark.parametrize("kind", [MessageType.ACK, MessageType.NAK])
def test_an_answer_before_the_question_is_not_heeded(kind: MessageType) -> None:
    world = World()
    world.reply(kind, number_option(OptionCode.LEASE_TIME, 60, 4))
    assert world.ignored() == ["an answer to a request that was not made"]
    assert not world.exchange.is_over


def test_only_the_chosen_server_grants_or_refuses() -> None:
    world = World()
    world.offer()
    world.offer(server=OTHER)
    world.acknowledge(server=OTHER)
    world.reply(MessageType.NAK, server=OTHER)
    world.reply(MessageType.INFORM)
    world.acknowledge(lease_s=None)
    world.acknowledge(lease_s=0)
    assert world.ignored() == [
        *[f"from {OTHER}, while {SERVER} was asked"] * 3,
        "a message of type 8, which no server sends",
        *["grants an address without saying for how long"] * 2,
    ]
    world.offer()  # repeated: not told
    world.acknowledge()
    assert world.exchange.lease is not None
    assert len(world.sent) == 2


def test_any_server_may_rebind_but_only_one_renew() -> None:
    renewing, rebinding = World(LeaseStep.RENEWING, HELD), World(LeaseStep.REBINDING, HELD)
    renewing.acknowledge(server=OTHER)
    rebinding.acknowledge(server=OTHER)
    assert renewing.exchange.lease is None
    assert rebinding.exchange.lease is not None
    assert rebinding.exchange.lease.server == OTHER


def test_a_flood_of_strangers_is_told_of_so_far() -> None:
    world = World()
    for _ in range(MAX_STRANGERS + 50):
        world.offer(xid=7)
    assert len(world.events) == MAX_STRANGERS


@pytest.mark.parametrize(
    ("options", "servers", "source", "unusable"),
    [
        ((address_option(150, "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"),), ("10.0.0.1", "10.0.0.2"), "150", []),
        ((text_option(66, "10.0.0.9"),), ("10.0.0.9",), "66", []),
        ((text_option(66, "10.0.0.9"), OPTION_150), TFTP, "150", []),
        ((address_option(150, "0.0.0.0"), text_option(66, "10.0.0.9")), ("10.0.0.9",), "66", ["0.0.0.0"]),
        ((address_option(150, "0.0.0.0", "10.0.0.1"),), ("10.0.0.1",), "150", ["0.0.0.0"]),
        ((text_option(66, "tftp.example"),), (), None, ["tftp.example"]),
        ((text_option(66, "255.255.255.255"),), (), None, ["255.255.255.255"]),
        ((), (), None, []),
    ],
)
def test_where_the_tftp_servers_are_from(
    options: tuple[DhcpOption, ...], servers: tuple[str, ...], source: str | None, unusable: list[str]
) -> None:
    world = World()
    world.offer()
    world.acknowledge(*options)
    assert world.exchange.lease is not None
    assert (world.exchange.lease.tftp_servers, world.exchange.lease.source) == (servers, source)
    assert [event.text for event in world.events if isinstance(event, TftpServerNotUsable)] == unusable


def test_a_phone_whose_relay_agent_has_another_address_takes_its_own_only() -> None:
    apart = DhcpIdentity.of("b000b4ba0aee", "CP-8861", relay=OTHER, own=OWN)
    assert DhcpIdentity.of("b000b4ba0aee", "CP-8861", relay=OWN).own == OWN
    good, bad = World(identity=apart), World(identity=apart)
    assert good.last.giaddr == OTHER
    good.offer()
    good.acknowledge()
    assert good.held[-1] is not None
    bad.offer(yiaddr=OTHER)
    bad.acknowledge(yiaddr=OTHER)
    assert bad.told(LeaseDeclined) == [LeaseDeclined(OTHER, SERVER, f"this phone can only have {OWN}")]
