"""TFTP: requests that arrive at a node's port 69, and the packets of a transfer on their way to the client."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint, Seconds

MAX_ERROR_TEXT: Final = 128
MAX_BLOCK_BYTES: Final = 65464
"""RFC 2348."""

WHERE: Final = {
    "cluster": "the cluster's name",
    "node": "the node's name",
    "file": "name of the file, as the client asks for it",
    "peer": "address of the client",
    "phone": "device name of the phone behind that address",
}


class Error(Action):
    """Answer with an ERROR packet instead of the file."""

    name: ClassVar[str] = "error"
    code: Annotated[int, Field(ge=0, le=0xFFFF, description="error code (RFC 1350: 0 to 7, RFC 2347: 8)")] = 2
    text: Annotated[str, Field(max_length=MAX_ERROR_TEXT, pattern=r"^[\x20-\x7e]*$", description="its text")] = (
        "Access violation"
    )


class Silent(Action):
    """Do not answer the request at all."""

    name: ClassVar[str] = "silent"


class Drop(Action):
    """The packet is lost on its way; whoever misses it first asks for it again."""

    name: ClassVar[str] = "drop"


class Duplicate(Action):
    """The packet arrives twice."""

    name: ClassVar[str] = "duplicate"


class Reorder(Action):
    """The packet changes places with the next one. Without a window that is its own repetition, so that the client
    meets it again when it is over.
    """

    name: ClassVar[str] = "reorder"


class Delay(Action):
    """The packet arrives later; others may overtake it."""

    name: ClassVar[str] = "delay"
    seconds: Annotated[Seconds, Field(description="how much later")] = 0.5


class Corrupt(Action):
    """One bit of the packet is turned over on the way, and no checksum notices: a signature over the file must."""

    name: ClassVar[str] = "corrupt"
    offset: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_BLOCK_BYTES - 1,
            description="which byte of the data (of an OACK: of the options); counting begins anew at a shorter "
            "packet's end, and an empty block has its number changed",
        ),
    ] = 0


class WrongTid(Action):
    """The packet comes from another port: a client that knows the right one answers ERROR 5 and goes on, one that
    hears it first takes the wrong port for the server's.
    """

    name: ClassVar[str] = "wrong-tid"


TFTP_REQUEST: Final = FaultPoint(
    "tftp.request", "A request for a file has arrived at the TFTP port.", (Error, Silent), WHERE
)
TFTP_PACKET: Final = FaultPoint(
    "tftp.packet",
    "A packet of a transfer (DATA, or OACK) is about to leave, for the first time or again.",
    (Drop, Duplicate, Reorder, Delay, Corrupt, WrongTid),
    WHERE | {"block": "number of the block in the packet; 0 is the OACK"},
)
POINTS: Final = (TFTP_REQUEST, TFTP_PACKET)
