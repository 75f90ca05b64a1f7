"""What the DHCP server answers (RFC 2131, 4.3): from a message and the leases to a reply and an event. No sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from cucm.errors import LabError
from cucm.events import Event
from cucm.events.dhcp import (
    DhcpAcknowledged,
    DhcpDeclined,
    DhcpIgnored,
    DhcpOffered,
    DhcpRefused,
    DhcpReleased,
    IgnoredReason,
)
from cucm.records import dataclass
from cucm.wire.dhcp import (
    BROADCAST_ADDRESS,
    BROADCAST_FLAG,
    CLIENT_PORT,
    ETHERNET,
    INFINITE_LEASE_S,
    NO_ADDRESS,
    DhcpMessage,
    Operation,
)
from cucm.wire.dhcp_options import (
    DhcpOption,
    MessageType,
    OptionCode,
    address_option,
    number_option,
    text_option,
    type_option,
)
from lab.dhcp_pools import DhcpLease, DhcpPool, LeaseBook, NoAddress

T2_SHARE: Final = 0.875
"""T1 is half the lease (RFC 2131, 4.4.5)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`port` is None for the server's own number, where relay agents listen."""

    message: DhcpMessage
    address: str
    port: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """At most one message to send, and what to tell."""

    reply: Reply | None
    event: Event


class Unanswered(Exception):
    def __init__(self, reason: IgnoredReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Asking:
    """A message with what the rules ask of it again and again."""

    message: DhcpMessage
    client: str
    pools: tuple[DhcpPool, ...]
    now: float
    option_150: tuple[str, ...] | None = None
    """What a fault puts in the place of the pool's."""

    @property
    def relay(self) -> str:
        return "" if self.message.giaddr == NO_ADDRESS else self.message.giaddr

    def told(self, pool: DhcpPool) -> DhcpPool:
        """The pool as this client is told of it."""
        return pool if self.option_150 is None else replace(pool, option_150=self.option_150)


class AnsweringRules:
    """The server `identifier` with its leases. `on_link`: clients of the server's own network are served too."""

    def __init__(self, identifier: str, book: LeaseBook, *, on_link: bool) -> None:
        self._identifier = identifier
        self._book = book
        self._on_link = on_link

    def answer(
        self, message: DhcpMessage, peer: str, port: int, now: float, *, option_150: tuple[str, ...] | None = None
    ) -> Answer:
        """What to do with a message from `peer`. Never raises for what a client can send.

        `option_150`: name these TFTP servers instead of the pool's.
        """
        return self._unless_unanswered(
            message, peer, port, lambda: self._answer(self._asking(message, now, option_150=option_150))
        )

    def refuse(self, message: DhcpMessage, peer: str, port: int, now: float, why: str) -> Answer:
        """A NAK, whatever was asked."""

        def refused() -> Answer:
            asking = self._asking(message, now)
            return self._refuse(asking, message.requested_address or message.ciaddr, why)

        return self._unless_unanswered(message, peer, port, refused)

    def _asking(self, message: DhcpMessage, now: float, *, option_150: tuple[str, ...] | None = None) -> _Asking:
        return _Asking(message, message.chaddr.hex().upper(), self._pools_for(message), now, option_150)

    def _unless_unanswered(self, message: DhcpMessage, peer: str, port: int, answer: Callable[[], Answer]) -> Answer:
        client = message.chaddr.hex().upper()
        try:
            return answer()
        except Unanswered as why:
            return Answer(None, DhcpIgnored(peer, port, client, why.reason, why.detail))
        except NoAddress as why:
            return Answer(None, DhcpIgnored(peer, port, client, IgnoredReason.NO_FREE_ADDRESS, str(why)))
        except LabError as why:
            return Answer(None, DhcpIgnored(peer, port, client, IgnoredReason.FULL, str(why)))

    def _pools_for(self, message: DhcpMessage) -> tuple[DhcpPool, ...]:
        """Pools of the network the client is in."""
        if message.op != Operation.REQUEST:
            raise Unanswered(IgnoredReason.NOT_A_REQUEST, "another server's reply")
        if message.htype != ETHERNET:
            raise Unanswered(IgnoredReason.UNKNOWN_CLIENT, f"hardware of type {message.htype}")
        if message.giaddr != NO_ADDRESS:
            where = message.giaddr
        elif message.ciaddr != NO_ADDRESS:
            where = message.ciaddr
        elif self._on_link:
            where = self._identifier
        else:
            raise Unanswered(IgnoredReason.NOT_RELAYED, "no relay agent sent it, and this server hears no broadcasts")
        pools = self._book.pools_of(where)
        if not pools:
            raise Unanswered(IgnoredReason.NO_POOL, f"no pool for the network of {where}")
        return pools

    def _answer(self, asking: _Asking) -> Answer:
        match asking.message.message_type:
            case MessageType.DISCOVER:
                return self._discovered(asking)
            case MessageType.REQUEST:
                return self._requested(asking)
            case MessageType.DECLINE:
                return self._declined(asking)
            case MessageType.RELEASE:
                return self._released(asking)
            case MessageType.INFORM:
                return self._informed(asking)
            case None:
                raise Unanswered(IgnoredReason.UNKNOWN_TYPE, "no option 53: BOOTP is not spoken here")
            case other:
                raise Unanswered(IgnoredReason.UNKNOWN_TYPE, f"type {other} in a request")

    # --- one method for each type

    def _discovered(self, asking: _Asking) -> Answer:
        lease = self._book.choose(asking.client, asking.pools, asking.message.requested_address, asking.now)
        self._book.offer(lease, asking.now)
        pool = self._pool(asking, lease)
        reply = self._reply(asking, MessageType.OFFER, lease.address, self._options(asking, pool, lease_s=pool.lease_s))
        told = DhcpOffered(asking.client, lease.address, pool.name, asking.relay, pool.option_150, pool.option_66)
        return Answer(reply, told)

    def _requested(self, asking: _Asking) -> Answer:
        message = asking.message
        if message.server_identifier not in (None, self._identifier):
            self._book.withdraw_offer(asking.client)
            raise Unanswered(IgnoredReason.OTHER_SERVER, f"{message.server_identifier} was chosen")
        wanted = message.requested_address or message.ciaddr
        is_chosen = message.server_identifier is not None
        is_here = any(pool.has(wanted) for pool in asking.pools)
        if is_here and not is_chosen and not self._book.knows(asking.client, asking.pools):
            raise Unanswered(IgnoredReason.UNKNOWN_CLIENT, "no lease of this server (RFC 2131, 4.3.2)")
        try:
            lease = self._book.choose(asking.client, asking.pools, wanted, asking.now)
        except NoAddress as error:
            return self._refuse(asking, wanted, str(error))
        if lease.address != wanted:
            return self._refuse(asking, wanted, f"{wanted} is not this client's address")
        return self._grant(asking, lease)

    def _grant(self, asking: _Asking, lease: DhcpLease) -> Answer:
        self._book.grant(lease, asking.now)
        pool = self._pool(asking, lease)
        reply = self._reply(asking, MessageType.ACK, lease.address, self._options(asking, pool, lease_s=pool.lease_s))
        return Answer(reply, _acknowledged(asking, lease.address, pool, pool.lease_s))

    def _refuse(self, asking: _Asking, address: str, why: str) -> Answer:
        options = (text_option(OptionCode.MESSAGE, why),)
        told = DhcpRefused(asking.client, address, asking.pools[0].name, why)
        return Answer(self._reply(asking, MessageType.NAK, NO_ADDRESS, options), told)

    def _declined(self, asking: _Asking) -> Answer:
        address = asking.message.requested_address or NO_ADDRESS
        self._require_own(asking, address)
        self._book.end(asking.client)
        self._book.decline(address, asking.now)
        why = asking.message.message or ""
        return Answer(None, DhcpDeclined(asking.client, address, self._pool_name(asking, address), why))

    def _released(self, asking: _Asking) -> Answer:
        address = asking.message.ciaddr
        self._require_own(asking, address)
        name = self._pool_name(asking, address)
        self._book.end(asking.client)
        return Answer(None, DhcpReleased(asking.client, address, name))

    def _informed(self, asking: _Asking) -> Answer:
        """The client has an address and asks for options alone."""
        address = asking.message.ciaddr
        if address == NO_ADDRESS:
            raise Unanswered(IgnoredReason.NOT_ITS_ADDRESS, "INFORM without an address")
        reserving = (pool for pool in asking.pools if asking.client in pool.reservations)
        pool = asking.told(next(reserving, asking.pools[0]))
        reply = self._reply(asking, MessageType.ACK, NO_ADDRESS, self._options(asking, pool, lease_s=None))
        return Answer(reply, _acknowledged(asking, address, pool, None))

    # --- parts

    def _require_own(self, asking: _Asking, address: str) -> None:
        """Raises Unanswered unless this server leased the address to the client."""
        if asking.message.server_identifier != self._identifier:
            raise Unanswered(IgnoredReason.OTHER_SERVER, f"{asking.message.server_identifier} is meant")
        lease = self._book.leases.get(asking.client)
        if lease is None or lease.address != address:
            raise Unanswered(IgnoredReason.NOT_ITS_ADDRESS, f"{address} is not leased to this client")

    def _pool(self, asking: _Asking, lease: DhcpLease) -> DhcpPool:
        return asking.told(self._book.pools[lease.pool])

    def _pool_name(self, asking: _Asking, address: str) -> str:
        return next((pool.name for pool in asking.pools if pool.has(address)), "")

    def _options(self, asking: _Asking, pool: DhcpPool, *, lease_s: int | None) -> tuple[DhcpOption, ...]:
        """What was asked for of the pool's options, or all where the client does not say what it wants."""
        options = () if lease_s is None else _lease_options(lease_s)
        told = [address_option(OptionCode.SUBNET_MASK, str(pool.network.netmask))]
        if pool.option_150:
            told.append(address_option(OptionCode.TFTP_SERVER_ADDRESSES, *pool.option_150))
        if pool.option_66:
            told.append(text_option(OptionCode.TFTP_SERVER_NAME, pool.option_66))
        wanted = asking.message.find(OptionCode.PARAMETER_REQUEST_LIST)
        return (*options, *(option for option in told if wanted is None or option.code in wanted))

    def _reply(self, asking: _Asking, kind: MessageType, address: str, options: Sequence[DhcpOption]) -> Reply:
        asked = asking.message
        is_refusal = kind is MessageType.NAK
        relayed = asked.find(OptionCode.RELAY_AGENT_INFORMATION)
        identifier = asked.find(OptionCode.CLIENT_IDENTIFIER)
        last = [DhcpOption(OptionCode.CLIENT_IDENTIFIER, identifier)] if identifier is not None else []  # RFC 6842
        if relayed is not None:  # as it came, and at the end (RFC 3046, 2.1, 2.2)
            last.append(DhcpOption(OptionCode.RELAY_AGENT_INFORMATION, relayed))
        message = DhcpMessage(
            Operation.REPLY,
            asked.xid,
            asked.chaddr,
            (type_option(kind), address_option(OptionCode.SERVER_IDENTIFIER, self._identifier), *options, *last),
            flags=asked.flags | BROADCAST_FLAG if is_refusal and asking.relay else asked.flags,
            ciaddr=NO_ADDRESS if is_refusal else asked.ciaddr,
            yiaddr=address,
            giaddr=asked.giaddr,
        )
        return Reply(message, *_destination(asked, is_refusal=is_refusal))


def _destination(asked: DhcpMessage, *, is_refusal: bool) -> tuple[str, int | None]:
    """RFC 2131, 4.1. A client without address is always answered by broadcast: no ARP entry is made for it."""
    if asked.giaddr != NO_ADDRESS:
        return asked.giaddr, None
    if asked.ciaddr != NO_ADDRESS and not is_refusal:
        return asked.ciaddr, CLIENT_PORT
    return BROADCAST_ADDRESS, CLIENT_PORT


def _lease_options(lease_s: int) -> tuple[DhcpOption, ...]:
    lease = number_option(OptionCode.LEASE_TIME, lease_s, 4)
    if lease_s == INFINITE_LEASE_S:
        return (lease,)
    t1 = number_option(OptionCode.RENEWAL_TIME, max(lease_s // 2, 1), 4)
    return lease, t1, number_option(OptionCode.REBINDING_TIME, max(int(lease_s * T2_SHARE), 1), 4)


def _acknowledged(asking: _Asking, address: str, pool: DhcpPool, lease_s: int | None) -> DhcpAcknowledged:
    options = (pool.option_150, pool.option_66)
    return DhcpAcknowledged(asking.client, address, pool.name, asking.relay, *options, lease_s)
