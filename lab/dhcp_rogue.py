"""A second DHCP server that nobody has set up: it overhears what clients say to the real one, and answers first."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from cucm.events import Emit
from cucm.events.dhcp import RogueServerAnswered
from cucm.faults.catalogue.dhcp import RogueServer
from cucm.net.addresses import bind_udp
from cucm.wire.dhcp import DhcpMessage, encode_message
from lab.dhcp_answers import AnsweringRules
from lab.dhcp_pools import DhcpPool, LeaseBook

ROGUE_HOST: Final = -3
NOBODY: Final = -2
"""Places in a network, counted from its end, that no topology of the lab uses."""


def nobody_in(pools: Iterable[DhcpPool]) -> tuple[str, ...]:
    """An address of the first pool's network at which nobody listens."""
    return tuple(str(pool.network[NOBODY]) for pool in pools)[:1]


class RogueDhcp:
    """It grants the addresses that the real one does. Bound when it is made. Raises AddressBusy, EnvironmentProblem."""

    def __init__(self, action: RogueServer, pools: Iterable[DhcpPool], port: int, emit: Emit) -> None:
        known = tuple(pools)
        servers = tuple(map(str, action.servers)) or nobody_in(known)
        self.action = action
        self.address = str(action.address or known[0].network[ROGUE_HOST])
        self._emit = emit
        self._port = port
        self._socket: socket.socket = bind_udp(self.address, port)
        book = LeaseBook([replace(pool, option_150=servers, option_66="") for pool in known], None)
        self._servers = servers
        self._rules = AnsweringRules(self.address, book, on_link=False)

    def is_chosen_by(self, message: DhcpMessage) -> bool:
        return message.server_identifier == self.address

    def answer(self, message: DhcpMessage, peer: str, port: int, now: float) -> None:
        """Raises OSError when the network does not take it."""
        reply = self._rules.answer(message, peer, port, now).reply
        if reply is None:
            return
        data = encode_message(reply.message, max_bytes=message.max_message_bytes)
        self._socket.sendto(data, (reply.address, self._port if reply.port is None else reply.port))
        kind = reply.message.message_type_word
        self._emit(RogueServerAnswered(message.chaddr.hex().upper(), self.address, kind, self._servers))

    def close(self) -> None:
        self._socket.close()
