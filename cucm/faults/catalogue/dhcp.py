"""DHCP: what phones ask of the lab's DHCP server, and who answers."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint

MAX_SERVERS: Final = 63
"""What fits into one option."""

Servers = Annotated[
    tuple[IPv4Address, ...],
    Field(max_length=MAX_SERVERS, description="addresses for option 150; none: one at which nobody is"),
]


class NoAnswer(Action):
    """Leave the message unanswered."""

    name: ClassVar[str] = "no-answer"


class WrongOption150(Action):
    """Answer as always, but name other TFTP servers."""

    name: ClassVar[str] = "wrong-option-150"
    servers: Servers = ()


class Nak(Action):
    """Answer with a NAK: the client has to begin anew."""

    name: ClassVar[str] = "nak"


class RogueServer(Action):
    """A second DHCP server, which nobody has set up, answers first: it grants the same addresses, but names TFTP
    servers of its own.
    """

    name: ClassVar[str] = "rogue-server"
    address: Annotated[
        IPv4Address | None, Field(description="where it sits; none: three before the end of the network")
    ] = None
    servers: Servers = ()


DHCP_REQUEST: Final = FaultPoint(
    "dhcp.request",
    "A message of a client has arrived at the DHCP server.",
    (NoAnswer, WrongOption150, Nak, RogueServer),
    {
        "peer": "address of the relay agent or client",
        "client": "hardware address in upper-case hex",
        "message": "discover, request, decline, release, inform",
        "phone": "device name of the phone behind that address",
    },
)
POINTS: Final = (DHCP_REQUEST,)
