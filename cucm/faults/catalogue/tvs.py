"""TVS: requests that arrive at a node's Trust Verification Service, and its answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, field_validator

from cucm.faults.points import Action, FaultPoint, Seconds
from cucm.roles import TrustRole

MAX_PAYLOAD: Final = 0xFFFF
MAX_MESSAGE: Final = 10 + MAX_PAYLOAD
FIRST_UNKNOWN_TAG: Final = 10
"""Elements have the tags 1 to 9."""

FieldName = Literal[
    "discriminator", "version", "type", "pad", "session-id", "length", "status", "certificate", "roles", "ttl"
]

WHERE: Final = {
    "cluster": "the cluster's name",
    "node": "the node's name",
    "peer": "address of the client",
    "phone": "device name in the request, without the model",
    "message": "query or verify",
    "subject": "of the certificate asked for, CN=..;OU=..",
    "issuer": "of the certificate asked for",
    "serial": "of the certificate asked for, in upper-case hex",
}


class Drop(Action):
    """Give no answer; the connection stays open."""

    name: ClassVar[str] = "drop"


class Delay(Action):
    """Wait before going on, also past the server's own deadline."""

    name: ClassVar[str] = "delay"
    seconds: Annotated[Seconds, Field(description="seconds to wait")] = 1.0


class Close(Action):
    """Close the connection instead of answering."""

    name: ClassVar[str] = "close"


class Truncate(Action):
    """Send only the first bytes of the answer, then close."""

    name: ClassVar[str] = "truncate"
    bytes: Annotated[int, Field(ge=0, le=MAX_MESSAGE, description="how many are sent")] = 10


class CorruptByte(Action):
    """Change one byte of the answer."""

    name: ClassVar[str] = "corrupt-byte"
    offset: Annotated[
        int, Field(ge=0, lt=MAX_MESSAGE, description="which one, from 0; past the end it counts on from the beginning")
    ] = 100
    xor: Annotated[int, Field(ge=1, le=255, description="what it is XORed with")] = 0xFF


class CorruptField(Action):
    """Change one field of the answer, its last byte; a field that this answer lacks comes with a single byte 255."""

    name: ClassVar[str] = "corrupt-field"
    field: Annotated[FieldName, Field(description="of the header, or an element")] = "certificate"


class WrongSessionId(Action):
    """Answer another session than the one of the request."""

    name: ClassVar[str] = "wrong-session-id"
    difference: Annotated[
        int, Field(gt=-(2**32), lt=2**32, description="added to the right number, modulo 2**32; not 0")
    ] = 1

    _is_wrong = field_validator("difference")(lambda value: _not_zero(value))


class WrongLength(Action):
    """State another length in the header than that of the elements that follow."""

    name: ClassVar[str] = "wrong-length"
    difference: Annotated[
        int, Field(ge=-MAX_PAYLOAD, le=MAX_PAYLOAD, description="added to the right length, modulo 2**16; not 0")
    ] = 1

    _is_wrong = field_validator("difference")(lambda value: _not_zero(value))


class UnknownTag(Action):
    """Add an element that nobody knows; everything else is right."""

    name: ClassVar[str] = "unknown-tag"
    tag: Annotated[int, Field(ge=FIRST_UNKNOWN_TAG, le=255, description="its tag")] = 29
    bytes: Annotated[int, Field(ge=0, le=32768, description="length of its value")] = 4
    first: Annotated[bool, Field(description="before the others instead of behind them")] = False


class NotFound(Action):
    """Answer as if the certificate were unknown."""

    name: ClassVar[str] = "not-found"


class ErrorStatus(Action):
    """Answer with this status and nothing else."""

    name: ClassVar[str] = "error-status"
    status: Annotated[int, Field(ge=1, le=255, description="0 would mean found")] = 255


class WrongRoles(Action):
    """Answer with other roles than the certificate has."""

    name: ClassVar[str] = "wrong-roles"
    roles: Annotated[
        tuple[Annotated[int, Field(ge=0, le=255)], ...],
        Field(max_length=255, description="their numbers; none at all is possible"),
    ] = (int(TrustRole.CAPF),)


class TimeToLive(Action):
    """Answer with another time to live."""

    name: ClassVar[str] = "ttl"
    ttl_s: Annotated[int, Field(ge=0, lt=2**32, description="seconds; 0: not to be cached")] = 0


class OtherCertificate(Action):
    """Answer a query with another certificate than the one asked for (that of TVS itself), a verification with the
    status for certificates that differ.
    """

    name: ClassVar[str] = "other-certificate"


def _not_zero(value: int) -> int:
    if not value:
        raise ValueError("0 would be right")
    return value


TVS_REQUEST: Final = FaultPoint(
    "tvs.request", "A request has arrived at TVS and has not been looked up yet.", (Drop, Delay, Close), WHERE
)
TVS_RESPONSE: Final = FaultPoint(
    "tvs.response",
    "TVS is about to answer.",
    (
        Drop,
        Delay,
        Truncate,
        CorruptByte,
        CorruptField,
        WrongSessionId,
        WrongLength,
        UnknownTag,
        NotFound,
        ErrorStatus,
        WrongRoles,
        TimeToLive,
        OtherCertificate,
    ),
    WHERE,
)
POINTS: Final = (TVS_REQUEST, TVS_RESPONSE)
