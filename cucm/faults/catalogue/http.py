"""HTTP: what the TFTP service's port 6970 answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from cucm.faults.points import Action, FaultPoint, Seconds

MAX_BYTES: Final = 1 << 28
"""More than the largest file that is served."""


def _not_nothing(value: int) -> int:
    if not value:
        raise ValueError("0 is the right length")
    return value


class Status(Action):
    """Answer with this status and without a body, whether the file exists or not."""

    name: ClassVar[str] = "status"
    code: Annotated[int, Field(ge=200, le=599, description="the status code")] = 503


class WrongLength(Action):
    """Announce another length than that of the file, and send the file. A length below 0 is announced as well."""

    name: ClassVar[str] = "wrong-length"
    delta: Annotated[
        int,
        Field(ge=-MAX_BYTES, le=MAX_BYTES, description="so many bytes more than there are; negative: fewer"),
        AfterValidator(_not_nothing),
    ] = 1


class CutBody(Action):
    """Close the connection within the file, whose whole length was announced."""

    name: ClassVar[str] = "cut-body"
    bytes: Annotated[int, Field(ge=0, le=MAX_BYTES, description="so many bytes of the file are sent before")] = 100


class Slow(Action):
    """Send the file slowly."""

    name: ClassVar[str] = "slow"
    bytes_per_s: Annotated[int, Field(ge=1, le=MAX_BYTES, description="bytes a second")] = 1024


class Stall(Action):
    """Fall silent within the file, keep the connection open, and close it in the end."""

    name: ClassVar[str] = "stall"
    bytes: Annotated[int, Field(ge=0, le=MAX_BYTES, description="so many bytes of the file are sent before")] = 0
    seconds: Annotated[Seconds, Field(description="how long the connection stays open after them")] = 600.0


HTTP_RESPONSE: Final = FaultPoint(
    "http.response",
    "The file server is about to answer an HTTP request on port 6970.",
    (Status, WrongLength, CutBody, Slow, Stall),
    {
        "cluster": "the cluster's name",
        "node": "the node's name",
        "file": "name of the file, as the client asks for it",
        "peer": "address of the client",
        "phone": "device name of the phone behind that address",
    },
)
POINTS: Final = (HTTP_RESPONSE,)
