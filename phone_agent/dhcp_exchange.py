"""A phone's side of a DHCP dialogue without I/O: what it says and whom it believes (RFC 2131)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random
from typing import Final

from cucm.events import Emit, ignore
from cucm.events.dhcp import (
    LeaseAcknowledged,
    LeaseDeclined,
    LeaseMessageIgnored,
    LeaseNotObtained,
    LeaseRefused,
    LeaseStep,
    TftpServerNotUsable,
)
from cucm.wire.dhcp import (
    BROADCAST_FLAG,
    INFINITE_LEASE_S,
    NO_ADDRESS,
    DhcpMessage,
    Operation,
    is_host_address,
)
from cucm.wire.dhcp_options import DhcpOption, MessageType, OptionCode, address_option, text_option, type_option
from phone_agent.dhcp_lease import DhcpDeadlines, DhcpIdentity, Lease, Sending, lease_times

TFTP_SERVERS_TAKEN: Final = 2
"""How many addresses of option 150 a phone keeps [recall: its menu has "TFTP Server 1" and "TFTP Server 2"]."""
MAX_RESTARTS: Final = 3
"""How often one dialogue begins anew after a NAK, a decline or a server fallen silent. Ours; UNKNOWN on the phone."""
MAX_STRANGERS: Final = 32
"""Messages not heeded that are told of in one dialogue; of more nothing is said."""


def _nothing(_lease: Lease | None) -> None:
    pass


class LeaseExchange:
    """One dialogue with DHCP servers, without I/O: to get a lease, to confirm, renew or rebind one.

    Every method returns the messages to send now. It is over when `is_over`; then `lease` is what was granted, or None.
    `hold` is called, before anything is told, with the lease granted, and with None when the one held before is lost.
    """

    def __init__(
        self,
        identity: DhcpIdentity,
        held: Lease | None = None,
        step: LeaseStep = LeaseStep.SELECTING,
        *,
        now: Callable[[], float],
        randomness: Random,
        deadlines: DhcpDeadlines | None = None,
        emit: Emit = ignore,
        hold: Callable[[Lease | None], None] = _nothing,
    ) -> None:
        """`held` is the lease that REBOOTING, RENEWING and REBINDING are about."""
        self.lease: Lease | None = None
        self.is_over = False
        self.step = step
        self._identity = identity
        self._held = held
        self._now = now
        self._randomness = randomness
        self._deadlines = deadlines or DhcpDeadlines()
        self._emit = emit
        self._hold = hold
        self._xid = 0
        self._attempt = 0
        self._restarts = 0
        self._strangers = 0
        self._pausing = False
        self._offer: tuple[str, str] = (NO_ADDRESS, NO_ADDRESS)
        self._waited_s = 0.0

    # --- what the driver calls

    def start(self) -> list[Sending]:
        return self._begin(self.step)

    @property
    def timeout_s(self) -> float:
        """How long to wait for an answer to what was sent last."""
        if self._pausing:
            return self._deadlines.decline_s
        return float(self._deadlines.first_s * 2**self._attempt * self._randomness.uniform(0.9, 1.1))

    def handle_timeout(self) -> list[Sending]:
        """Nothing that was heeded came in time."""
        if self.is_over:
            return []
        if self._pausing:
            return self._begin(LeaseStep.SELECTING)
        self._waited_s += self._deadlines.first_s * 2**self._attempt
        self._attempt += 1
        if self._attempt < self._attempts:
            return [self._sending()]
        return self._given_up()

    def receive(self, message: DhcpMessage, peer: str = "") -> list[Sending]:
        """A message came from `peer`."""
        if self.is_over:
            return []
        unheeded = self._not_for_us(message)
        if unheeded is not None:
            self.ignore(peer, unheeded)
            return []
        match message.message_type, self.step:
            case MessageType.OFFER, LeaseStep.SELECTING:
                return self._take_offer(message, peer)
            case ((MessageType.ACK | MessageType.NAK), LeaseStep.SELECTING):
                self.ignore(peer, "an answer to a request that was not made")
            case MessageType.ACK, _:
                return self._take_acknowledgement(message, peer)
            case MessageType.NAK, _:
                return self._take_refusal(message)
            case MessageType.OFFER, _:
                pass  # of a second server, or a late repetition: usual, and nothing to tell
            case kind, _:
                self.ignore(peer, f"a message of type {kind}, which no server sends")
        return []

    # --- whom the phone believes

    def _not_for_us(self, message: DhcpMessage) -> str | None:
        """Why this message is not heeded, or None."""
        if message.op != Operation.REPLY:
            return "not a reply"
        if self._pausing or message.xid != self._xid:
            return "an answer to another dialogue"
        if message.chaddr != self._identity.mac:
            return f"meant for {message.chaddr.hex(':')}"
        server = message.server_identifier
        if server is None:
            return "does not say which server it is from"
        if not is_host_address(server):
            return f"{server} is no server's address"
        expected = self._expected_server()
        return None if expected in (None, server) else f"from {server}, while {expected} was asked"

    def _expected_server(self) -> str | None:
        if self.step is LeaseStep.REQUESTING:
            return self._offer[1]
        if self.step is LeaseStep.RENEWING and self._held:
            return self._held.server
        return None

    def ignore(self, peer: str, detail: str) -> None:
        """Tell, within bounds, of a datagram that is not heeded."""
        self._strangers += 1
        if self._strangers <= MAX_STRANGERS:
            self._emit(LeaseMessageIgnored(peer, detail))

    # --- answers

    def _take_offer(self, message: DhcpMessage, peer: str) -> list[Sending]:
        """The first usable one; how a phone chooses among several is UNKNOWN."""
        if not is_host_address(message.yiaddr, message.subnet_mask):
            self.ignore(peer, f"offers {message.yiaddr}, which no phone can have")
            return []
        self._offer = (message.yiaddr, message.server_identifier or NO_ADDRESS)
        self.step, self._attempt = LeaseStep.REQUESTING, 0
        return [self._sending()]

    def _take_acknowledgement(self, message: DhcpMessage, peer: str) -> list[Sending]:
        if not message.lease_s:
            self.ignore(peer, "grants an address without saying for how long")
            return []
        problem = self._problem_of(message)
        if problem is not None:
            return self._decline(message, problem)
        self.lease = self._lease_of(message)
        self.is_over = True
        lease = self.lease
        self._hold(lease)
        told_s = None if message.lease_s == INFINITE_LEASE_S else float(message.lease_s)
        self._emit(
            LeaseAcknowledged(
                self.step,
                lease.address,
                lease.server,
                lease.tftp_servers,
                lease.source or "",
                lease.option_66 or "",
                told_s,
            )
        )
        return []

    def _problem_of(self, message: DhcpMessage) -> str | None:
        address, own = message.yiaddr, self._identity.own
        if not is_host_address(address, message.subnet_mask):
            return "no phone can have this address"
        if address != self._asked_address():
            return f"{self._asked_address()} was asked for"
        if own is not None and address != own:
            return f"this phone can only have {own}"
        return None

    def _decline(self, message: DhcpMessage, problem: str) -> list[Sending]:
        server = message.server_identifier or NO_ADDRESS
        self._hold(None)
        self._emit(LeaseDeclined(message.yiaddr, server, problem))
        declining = self._message(
            type_option(MessageType.DECLINE),
            address_option(OptionCode.REQUESTED_ADDRESS, message.yiaddr),
            address_option(OptionCode.SERVER_IDENTIFIER, server),
            text_option(OptionCode.MESSAGE, problem),
            self._identity.identifier(),
        )
        if self._may_restart():
            self._pausing = True
        else:
            self._end("every address given was of no use")
        return [Sending(declining)]

    def _take_refusal(self, message: DhcpMessage) -> list[Sending]:
        self._hold(None)
        self._emit(LeaseRefused(self.step, message.server_identifier or "", message.message or ""))
        return self._start_over("refused again and again")

    def _lease_of(self, message: DhcpMessage) -> Lease:
        t1, t2, expiry = lease_times(message, self._now())
        servers, source = self._tftp_servers(message)
        server = sys.intern(message.server_identifier or NO_ADDRESS)  # one string for thousands of phones
        return Lease(message.yiaddr, server, servers, t1, t2, expiry, message.tftp_server_name, source)

    def _tftp_servers(self, message: DhcpMessage) -> tuple[tuple[str, ...], str | None]:
        """Option 150 is preferred to 66 (facts 7.1 names it first). What else could name a server (siaddr, sname) is
        not looked at [inferred].
        """
        listed = message.tftp_servers
        if listed is not None:
            usable = tuple(sys.intern(address) for address in dict.fromkeys(listed) if self._is_usable("150", address))
            if usable:
                return usable[:TFTP_SERVERS_TAKEN], "150"
        name = message.tftp_server_name
        if name is not None and self._is_usable("66", name):
            return (name,), "66"
        return (), None

    def _is_usable(self, option: str, text: str) -> bool:
        if is_host_address(text):
            return True
        why = "no host has this address" if _looks_like_address(text) else "the lab has no DNS to resolve a name"
        self._emit(TftpServerNotUsable(option, text, why))
        return False

    # --- silence

    @property
    def _attempts(self) -> int:
        is_confirming = self.step is LeaseStep.REBOOTING
        return self._deadlines.confirm_attempts if is_confirming else self._deadlines.attempts

    def _given_up(self) -> list[Sending]:
        match self.step:
            case LeaseStep.REBOOTING:
                return self._begin(LeaseStep.SELECTING)
            case LeaseStep.REQUESTING:
                return self._start_over(f"{self._offer[1]} offers an address and does not grant it")
            case _:
                self._end("no DHCP server answered")
                return []

    def _start_over(self, failure: str) -> list[Sending]:
        if self._may_restart():
            return self._begin(LeaseStep.SELECTING)
        self._end(failure)
        return []

    def _may_restart(self) -> bool:
        self._restarts += 1
        return self._restarts <= MAX_RESTARTS

    def _end(self, failure: str) -> None:
        self.is_over = True
        self._emit(LeaseNotObtained(self.step, failure))

    # --- requests

    def _begin(self, step: LeaseStep) -> list[Sending]:
        self.step, self._attempt, self._pausing, self._waited_s = step, 0, False, 0.0
        self._xid = self._randomness.getrandbits(32)
        return [self._sending()]

    def _asked_address(self) -> str | None:
        if self.step is LeaseStep.REQUESTING:
            return self._offer[0]
        return self._held.address if self._held else None

    def _sending(self) -> Sending:
        identity = self._identity.options()
        if self.step is LeaseStep.SELECTING:
            return Sending(self._message(type_option(MessageType.DISCOVER), *identity))
        kind = type_option(MessageType.REQUEST)
        asked = self._asked_address() or NO_ADDRESS
        if self.step is LeaseStep.REQUESTING:
            chosen = (
                address_option(OptionCode.REQUESTED_ADDRESS, asked),
                address_option(OptionCode.SERVER_IDENTIFIER, self._offer[1]),
            )
            return Sending(self._message(kind, *chosen, *identity))
        if self.step is LeaseStep.REBOOTING:
            return Sending(self._message(kind, address_option(OptionCode.REQUESTED_ADDRESS, asked), *identity))
        server = self._held.server if self._held and self.step is LeaseStep.RENEWING else None
        return Sending(self._message(kind, *identity, ciaddr=asked), server)

    def _message(self, *options: DhcpOption, ciaddr: str = NO_ADDRESS) -> DhcpMessage:
        """A phone without the address cannot receive unicast: it asks for broadcast answers, a relayed one need not."""
        relay = self._identity.relay
        flags = BROADCAST_FLAG if relay is None and ciaddr == NO_ADDRESS else 0
        return DhcpMessage(
            Operation.REQUEST,
            self._xid,
            self._identity.mac,
            options,
            hops=0 if relay is None else 1,
            secs=min(int(self._waited_s), 0xFFFF),
            flags=flags,
            ciaddr=ciaddr,
            giaddr=relay or NO_ADDRESS,
        )


def _looks_like_address(text: str) -> bool:
    return all(part.isdigit() for part in text.split("."))
