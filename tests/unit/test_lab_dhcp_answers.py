"""What the DHCP server answers, message by message, without sockets (RFC 2131, 4.3)."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from cucm.events.dhcp import (
    DhcpAcknowledged,
    DhcpDeclined,
    DhcpIgnored,
    DhcpOffered,
    DhcpRefused,
    DhcpReleased,
    IgnoredReason,
)
from cucm.wire.dhcp import (
    BROADCAST_ADDRESS,
    BROADCAST_FLAG,
    CLIENT_PORT,
    INFINITE_LEASE_S,
    NO_ADDRESS,
    DhcpMessage,
    Operation,
    decode_message,
    encode_message,
)
from cucm.wire.dhcp_options import DhcpOption, MessageType, OptionCode, address_option, number_option, text_option
from lab.dhcp_answers import Answer, AnsweringRules
from lab.dhcp_pools import DhcpPool, LeaseBook

SERVER, RELAY, OTHER = "127.0.11.1", "127.0.11.100", "127.0.11.2"
MAC = bytes.fromhex("b000b4ba0aee")
CLIENT = "B000B4BA0AEE"
TFTP = ("127.0.11.32",)
NOW = 1000.0
IDENTIFIER = DhcpOption(OptionCode.CLIENT_IDENTIFIER, b"\1" + MAC)


class Server:
    def __init__(self, *, on_link: bool = False, **changes: object) -> None:
        given: dict[str, object] = {
            "name": "Default",
            "network": IPv4Network("127.0.11.0/24"),
            "reservations": {CLIENT: RELAY},
            "option_150": TFTP,
            "option_66": "tftp.example",
            "lease_s": 600,
        }
        self.book = LeaseBook([DhcpPool(**(given | changes))], None)  # type: ignore[arg-type]
        self.rules = AnsweringRules(SERVER, self.book, on_link=on_link)

    def ask(self, kind: int | None, *options: DhcpOption, now: float = NOW, **fields: object) -> Answer:
        typed = () if kind is None else (number_option(OptionCode.MESSAGE_TYPE, kind, 1),)
        given: dict[str, object] = {"op": Operation.REQUEST, "xid": 7, "chaddr": MAC, "giaddr": RELAY} | fields
        message = DhcpMessage(options=(*typed, *options), **given)  # type: ignore[arg-type]
        return self.rules.answer(message, "peer", 67, now)

    def request(self, *, chosen: str | None = None, wish: str | None = None, **fields: object) -> Answer:
        options = [address_option(OptionCode.SERVER_IDENTIFIER, chosen)] if chosen else []
        options += [address_option(OptionCode.REQUESTED_ADDRESS, wish)] if wish else []
        return self.ask(MessageType.REQUEST, *options, **fields)  # type: ignore[arg-type]


def reply(answer: Answer, kind: MessageType) -> DhcpMessage:
    """The reply, as its receiver reads it."""
    assert answer.reply is not None, answer.event
    message = decode_message(encode_message(answer.reply.message))
    assert message.message_type == kind
    assert (message.op, message.xid, message.chaddr) == (Operation.REPLY, 7, MAC)
    assert message.server_identifier == SERVER
    return message


def ignored(answer: Answer) -> IgnoredReason:
    assert answer.reply is None
    assert isinstance(answer.event, DhcpIgnored), answer.event
    assert (answer.event.peer, answer.event.port, answer.event.client) == ("peer", 67, CLIENT)
    return answer.event.reason


def test_an_offer() -> None:
    server = Server()
    answer = server.ask(MessageType.DISCOVER, IDENTIFIER)
    offer = reply(answer, MessageType.OFFER)
    assert (offer.yiaddr, offer.giaddr, offer.lease_s) == (RELAY, RELAY, 600)
    assert (offer.renewal_s, offer.rebinding_s, offer.subnet_mask) == (300, 525, "255.255.255.0")
    assert (offer.tftp_servers, offer.tftp_server_name) == (TFTP, "tftp.example")
    assert offer.options[-1] == IDENTIFIER
    assert answer.reply is not None
    assert (answer.reply.address, answer.reply.port) == (RELAY, None)
    assert answer.event == DhcpOffered(CLIENT, RELAY, "Default", RELAY, TFTP, "tftp.example")
    assert server.book.leases == {}


def test_only_what_was_asked_for_is_told() -> None:
    asked = DhcpOption(OptionCode.PARAMETER_REQUEST_LIST, bytes((1, 66)))
    offer = reply(Server().ask(MessageType.DISCOVER, asked), MessageType.OFFER)
    assert (offer.tftp_servers, offer.tftp_server_name, offer.subnet_mask) == (None, "tftp.example", "255.255.255.0")
    offer = reply(Server(option_150=(), option_66="").ask(MessageType.DISCOVER), MessageType.OFFER)
    assert (offer.tftp_servers, offer.tftp_server_name) == (None, None)


def test_what_the_relay_agent_added_comes_back_at_the_end() -> None:
    added = DhcpOption(OptionCode.RELAY_AGENT_INFORMATION, b"\1\4port")
    for wish, kind in ((RELAY, MessageType.ACK), (OTHER, MessageType.NAK)):
        options = (added, address_option(OptionCode.REQUESTED_ADDRESS, wish), IDENTIFIER)
        assert reply(Server().ask(MessageType.REQUEST, *options), kind).options[-2:] == (IDENTIFIER, added)


def test_a_lease_without_end_has_no_times() -> None:
    offer = reply(Server(lease_s=INFINITE_LEASE_S).ask(MessageType.DISCOVER), MessageType.OFFER)
    assert (offer.lease_s, offer.renewal_s, offer.rebinding_s) == (INFINITE_LEASE_S, None, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"chosen": SERVER, "wish": RELAY},  # selecting
        {"wish": RELAY},  # rebooting
        {"ciaddr": RELAY},  # renewing or rebinding, through the relay agent
        {"ciaddr": RELAY, "giaddr": NO_ADDRESS},  # renewing
    ],
)
def test_a_grant(fields: dict[str, object]) -> None:
    server = Server()
    answer = server.request(**fields)  # type: ignore[arg-type]
    granted = reply(answer, MessageType.ACK)
    assert (granted.yiaddr, granted.lease_s, granted.tftp_servers) == (RELAY, 600, TFTP)
    assert isinstance(answer.event, DhcpAcknowledged)
    assert answer.event.lease_s == 600
    assert server.book.leases[CLIENT].expiry == NOW + 600
    assert answer.reply is not None
    direct = fields.get("giaddr") == NO_ADDRESS
    assert (answer.reply.address, answer.reply.port) == (RELAY, CLIENT_PORT if direct else None)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"chosen": SERVER, "wish": OTHER}, f"{OTHER} is not this client's address"),
        ({"wish": OTHER}, f"{OTHER} is not this client's address"),
        ({"wish": "10.0.0.1"}, "10.0.0.1 is not this client's address"),
        ({"ciaddr": OTHER}, f"{OTHER} is not this client's address"),
        ({"ciaddr": OTHER, "giaddr": NO_ADDRESS}, f"{OTHER} is not this client's address"),
        ({"chosen": SERVER}, f"{NO_ADDRESS} is not this client's address"),
    ],
)
def test_a_refusal(fields: dict[str, object], detail: str) -> None:
    server = Server()
    answer = server.request(**fields)  # type: ignore[arg-type]
    refusal = reply(answer, MessageType.NAK)
    assert (refusal.message, refusal.yiaddr, refusal.ciaddr) == (detail, NO_ADDRESS, NO_ADDRESS)
    assert (refusal.lease_s, refusal.tftp_servers) == (None, None)
    assert isinstance(answer.event, DhcpRefused)
    assert answer.reply is not None
    if "giaddr" in fields:
        assert (answer.reply.address, answer.reply.port) == (BROADCAST_ADDRESS, CLIENT_PORT)
    else:
        assert refusal.flags == BROADCAST_FLAG  # so that the relay agent broadcasts it
    assert server.book.leases == {}


def test_a_refusal_where_nothing_is_left() -> None:
    server = Server(reservations={}, first=RELAY, last=RELAY)
    server.request(chosen=SERVER, wish=RELAY, chaddr=bytes(6))
    assert reply(server.request(chosen=SERVER, wish=RELAY), MessageType.NAK).message == (
        "DHCP pools Default: no free address"
    )


def test_one_that_chose_another_server_frees_what_was_offered() -> None:
    server = Server(reservations={}, first=RELAY, last=RELAY)
    server.ask(MessageType.DISCOVER)
    assert ignored(server.request(chosen=OTHER, wish=OTHER)) is IgnoredReason.OTHER_SERVER
    assert isinstance(server.ask(MessageType.DISCOVER, chaddr=bytes(6)).event, DhcpOffered)


@pytest.mark.parametrize("fields", [{"wish": RELAY}, {"ciaddr": RELAY}])
def test_about_a_client_it_knows_nothing_of_it_is_silent(fields: dict[str, str]) -> None:
    server = Server(reservations={}, first=RELAY, last=RELAY)
    assert ignored(server.request(**fields)) is IgnoredReason.UNKNOWN_CLIENT  # type: ignore[arg-type]
    assert reply(server.request(wish="10.0.0.1"), MessageType.NAK)  # not of this network: that it does know


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": MessageType.DISCOVER, "op": Operation.REPLY}, IgnoredReason.NOT_A_REQUEST),
        ({"kind": MessageType.DISCOVER, "htype": 6}, IgnoredReason.UNKNOWN_CLIENT),
        ({"kind": MessageType.DISCOVER, "giaddr": "10.0.0.1"}, IgnoredReason.NO_POOL),
        ({"kind": MessageType.REQUEST, "giaddr": NO_ADDRESS, "ciaddr": "10.0.0.1"}, IgnoredReason.NO_POOL),
        ({"kind": MessageType.DISCOVER, "giaddr": NO_ADDRESS}, IgnoredReason.NOT_RELAYED),
        ({"kind": None}, IgnoredReason.UNKNOWN_TYPE),
        ({"kind": MessageType.OFFER}, IgnoredReason.UNKNOWN_TYPE),
        ({"kind": 99}, IgnoredReason.UNKNOWN_TYPE),
        ({"kind": MessageType.INFORM}, IgnoredReason.NOT_ITS_ADDRESS),
        ({"kind": MessageType.RELEASE, "ciaddr": RELAY}, IgnoredReason.OTHER_SERVER),
        ({"kind": MessageType.DECLINE}, IgnoredReason.OTHER_SERVER),
    ],
)
def test_what_gets_no_answer(fields: dict[str, object], reason: IgnoredReason) -> None:
    assert ignored(Server().ask(**fields)) is reason  # type: ignore[arg-type]


def test_a_client_without_reservation_gets_nothing_of_a_pool_without_range() -> None:
    assert ignored(Server(reservations={}).ask(MessageType.DISCOVER)) is IgnoredReason.NO_FREE_ADDRESS


def test_a_full_book_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.dhcp_pools.MAX_LEASES", 0)
    assert ignored(Server().ask(MessageType.DISCOVER)) is IgnoredReason.FULL


def test_on_its_own_network_it_answers_by_broadcast() -> None:
    answer = Server(on_link=True).ask(MessageType.DISCOVER, giaddr=NO_ADDRESS, flags=BROADCAST_FLAG)
    assert reply(answer, MessageType.OFFER).flags == BROADCAST_FLAG
    assert answer.reply is not None
    assert (answer.reply.address, answer.reply.port) == (BROADCAST_ADDRESS, CLIENT_PORT)
    assert isinstance(answer.event, DhcpOffered)
    assert answer.event.relay == ""


def test_options_alone() -> None:
    server = Server()
    answer = server.ask(MessageType.INFORM, ciaddr=RELAY)
    told = reply(answer, MessageType.ACK)
    assert (told.yiaddr, told.lease_s, told.tftp_servers) == (NO_ADDRESS, None, TFTP)
    assert answer.event == DhcpAcknowledged(CLIENT, RELAY, "Default", RELAY, TFTP, "tftp.example", None)
    assert server.book.leases == {}


def test_release_and_decline_end_the_lease_of_this_client_alone() -> None:
    server = Server()
    own = address_option(OptionCode.SERVER_IDENTIFIER, SERVER)
    declined = (own, address_option(OptionCode.REQUESTED_ADDRESS, RELAY), text_option(OptionCode.MESSAGE, "taken"))
    for kind, options, fields, event in (
        (MessageType.RELEASE, (own,), {"ciaddr": RELAY}, DhcpReleased(CLIENT, RELAY, "Default")),
        (MessageType.DECLINE, declined, {}, DhcpDeclined(CLIENT, RELAY, "Default", "taken")),
    ):
        server.request(chosen=SERVER, wish=RELAY)
        stranger = server.ask(kind, *options, chaddr=bytes(6), **fields)  # type: ignore[arg-type]
        assert isinstance(stranger.event, DhcpIgnored)
        assert stranger.event.reason is IgnoredReason.NOT_ITS_ADDRESS
        assert CLIENT in server.book.leases
        assert server.ask(kind, *options, **fields) == Answer(None, event)  # type: ignore[arg-type]
        assert server.book.leases == {}


def test_a_reply_is_never_larger_than_the_client_takes() -> None:
    server = Server(option_150=tuple(f"10.0.0.{n}" for n in range(1, 64)), option_66="x" * 100)
    answer = server.ask(MessageType.DISCOVER)
    assert answer.reply is not None
    data = encode_message(answer.reply.message, max_bytes=548)
    assert len(data) <= 548
    assert decode_message(data) == answer.reply.message
