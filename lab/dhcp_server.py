"""The lab's DHCP server: hands out reserved addresses and says where the TFTP servers are (option 150 or 66).

It answers relay agents, and phones that speak like one, on its own address; with `broadcast` also clients on a network
interface. A batch of replies leaves only after the leases in it are in the state file.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cucm.clock import Clock, SystemClock
from cucm.errors import LabError, UsageError, WireError
from cucm.events import Emit, ignore
from cucm.events.dhcp import DhcpIgnored, IgnoredReason, Option66Set, Option150Set
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.dhcp import DHCP_REQUEST, Nak, NoAnswer, RogueServer, WrongOption150
from cucm.net.addresses import bind_udp
from cucm.net.broadcast import bind_interface
from cucm.net.reachability import Reachability
from cucm.wire.dhcp import BROADCAST_ADDRESS, MAX_BYTES, SERVER_PORT, DhcpMessage, decode_message, encode_message
from lab.dhcp_answers import Answer, AnsweringRules, Reply
from lab.dhcp_pools import DhcpLease, DhcpPool, LeaseBook
from lab.dhcp_rogue import RogueDhcp, nobody_in

REQUESTS_PER_TURN: Final = 64
"""Messages answered together, with one writing of the state file."""


class DhcpServer:
    """`address` is also the server identifier. Port 0 becomes a free one, which is then also the relay agents' number.

    `broadcast` needs `interface` and root's rights; with `hears_only_broadcasts` another server may have the port on
    an address. Raises UsageError; LabError for a state file that cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        port: int = SERVER_PORT,
        pools: Sequence[DhcpPool],
        state_file: Path | None = None,
        clock: Clock | None = None,
        emit: Emit = ignore,
        broadcast: bool = False,
        interface: str | None = None,
        hears_only_broadcasts: bool = False,
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        if broadcast and interface is None:
            raise UsageError("a broadcasting DHCP server needs an interface", mend="give interface=, like eth0")
        if len({pool.name for pool in pools}) < len(pools):
            raise UsageError("two DHCP pools of one name", mend="give each its own")
        self.address = address
        self.port = port
        self.reachability = Reachability.OPEN
        self._interface = interface if broadcast else None
        self._heard_at = BROADCAST_ADDRESS if hears_only_broadcasts else ""
        self._clock = clock or SystemClock()
        self._emit = emit
        self._book = LeaseBook(pools, state_file)
        self._rules = AnsweringRules(address, self._book, on_link=broadcast)
        self._is_running = False
        self._socket: socket.socket | None = None
        self._faults = faults
        self._rogue: RogueDhcp | None = None

    # --- life

    @property
    def is_running(self) -> bool:
        return self._is_running

    async def start(self) -> None:
        """Bind; the leases are those of the state file. Raises AddressBusy, EnvironmentProblem, LabError."""
        if self._is_running:
            return
        self._book.load()
        self._open()
        self._is_running = True

    async def stop(self) -> None:
        """Close the port. Leases stay in the state file."""
        await self.crash()
        self._book.save()

    async def crash(self) -> None:
        """Close the port as a process does that dies: what is not in the state file is forgotten at the next start."""
        self._is_running = False
        self._close()

    def set_reachability(self, how: Reachability) -> None:
        """REFUSE: clients get `port unreachable`; UNREACHABLE: nothing. Raises AddressBusy when the port is lost."""
        if how is self.reachability:
            return
        self.reachability = how
        if self._is_running:
            self._close()
            self._open()

    def _open(self) -> None:
        if self.reachability is Reachability.REFUSE:
            return  # nobody has the port: the kernel refuses
        if self._interface is None:
            bound = bind_udp(self.address, self.port)
        else:
            bound = bind_interface(self._interface, self.port, self._heard_at)
        self.port = bound.getsockname()[1]
        self._socket = bound
        if self.reachability is Reachability.OPEN:
            asyncio.get_running_loop().add_reader(bound, self._on_readable)

    def _close(self) -> None:
        bound, self._socket = self._socket, None
        if bound is not None:
            asyncio.get_running_loop().remove_reader(bound)
            bound.close()
        self._end_rogue()

    def _end_rogue(self) -> None:
        rogue, self._rogue = self._rogue, None
        if rogue is not None:
            rogue.close()

    # --- administration

    @property
    def pools(self) -> Mapping[str, DhcpPool]:
        """By name, with the options in force now."""
        return self._book.pools

    @property
    def leases(self) -> Mapping[str, DhcpLease]:
        """By MAC address in upper-case hex; also those run out."""
        return self._book.leases

    def set_option_150(self, servers: Sequence[str], pool: str | None = None) -> None:
        """Clients learn it with their next answer. None: all pools. Raises UsageError, EnvironmentProblem."""
        self._book.set_option_150(servers, pool)
        self._book.save()
        self._emit(Option150Set(tuple(servers), pool or ""))

    def set_option_66(self, text: str, pool: str | None = None) -> None:
        """As `set_option_150`; an empty text leaves the option out."""
        self._book.set_option_66(text, pool)
        self._book.save()
        self._emit(Option66Set(text, pool or ""))

    def option_150_for(self, mac: str) -> tuple[str, ...] | None:
        """The TFTP servers that a phone with this MAC address is told now, faults included; None: nobody answers it."""
        pool = next((pool for pool in self.pools.values() if mac in pool.reservations), None)
        if pool is None or not self.is_running or self.reachability is not Reachability.OPEN:
            return None
        if not self._faults.watches(DHCP_REQUEST):
            return pool.option_150
        match self._faults.fire(DHCP_REQUEST, peer=pool.reservations[mac], client=mac, message="discover"):
            case NoAnswer() | Nak():
                return None
            case WrongOption150(servers=servers) | RogueServer(servers=servers):
                return tuple(map(str, servers)) or nobody_in(self.pools.values())
        return pool.option_150

    # --- answering

    def _on_readable(self) -> None:
        answers = []
        for _ in range(REQUESTS_PER_TURN):
            if self._socket is None:
                return
            try:
                data, (peer, port) = self._socket.recvfrom(MAX_BYTES + 1)
            except OSError:  # nothing left, or an error that belongs to an earlier reply
                break
            try:
                message = decode_message(data)
            except WireError as error:
                self._emit(DhcpIgnored(peer, port, "", IgnoredReason.MALFORMED, str(error)))
                continue
            answer = self._answer(message, peer, port)
            if answer is not None:
                answers.append((message, peer, port, answer))
        try:
            self._book.save()
        except LabError as error:
            for message, peer, port, _ in answers:
                self._tell_unanswered(message, peer, port, IgnoredReason.NOT_KEPT, error)
            return
        for message, peer, port, answer in answers:
            self._carry_out(message, peer, port, answer)

    def _answer(self, message: DhcpMessage, peer: str, port: int) -> Answer | None:
        """What is right, unless a fault says otherwise; None for silence."""
        now = self._clock.now()
        if not self._faults.watches(DHCP_REQUEST):
            self._end_rogue()
            return self._rules.answer(message, peer, port, now)
        match self._faults.fire(
            DHCP_REQUEST, peer=peer, client=message.chaddr.hex().upper(), message=message.message_type_word
        ):
            case NoAnswer():
                return None
            case Nak():
                return self._rules.refuse(message, peer, port, now, "refused by a fault of the lab")
            case WrongOption150(servers=servers):
                wrong = tuple(map(str, servers)) or nobody_in(self.pools.values())
                return self._rules.answer(message, peer, port, now, option_150=wrong)
            case RogueServer() as rogue:
                self._let_rogue_answer(rogue, message, peer, port)
            case _ if self._rogue is not None and self._rogue.is_chosen_by(message):
                self._let_rogue_answer(self._rogue.action, message, peer, port)
        return self._rules.answer(message, peer, port, now)

    def _let_rogue_answer(self, action: RogueServer, message: DhcpMessage, peer: str, port: int) -> None:
        try:
            if self._rogue is None or self._rogue.action != action:
                self._end_rogue()
                self._rogue = RogueDhcp(action, self.pools.values(), self.port, self._emit)
            self._rogue.answer(message, peer, port, self._clock.now())
        except (OSError, LabError) as error:
            self._tell_unanswered(message, peer, port, IgnoredReason.NOT_SENT, error)

    def _carry_out(self, message: DhcpMessage, peer: str, port: int, answer: Answer) -> None:
        if answer.reply is None:
            self._emit(answer.event)
            return
        try:
            self._send(answer.reply, message.max_message_bytes)
        except (OSError, LabError) as error:
            self._tell_unanswered(message, peer, port, IgnoredReason.NOT_SENT, error)
        else:
            self._emit(answer.event)

    def _tell_unanswered(
        self, message: DhcpMessage, peer: str, port: int, reason: IgnoredReason, error: Exception
    ) -> None:
        self._emit(DhcpIgnored(peer, port, message.chaddr.hex().upper(), reason, str(error)))

    def _send(self, reply: Reply, max_bytes: int) -> None:
        data = encode_message(reply.message, max_bytes=max_bytes)
        if self._socket is not None:
            self._socket.sendto(data, (reply.address, self.port if reply.port is None else reply.port))
