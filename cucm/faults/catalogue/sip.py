"""SIP: what registered and registering phones ask of a node's CallManager."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint, Seconds

WHERE: Final = {
    "cluster": "the cluster's name",
    "node": "the node's name",
    "peer": "address of the phone",
    "phone": "device name of the phone behind that address",
    "method": "REGISTER, REFER, OPTIONS",
    "transport": "tls or tcp",
}


class Drop(Action):
    """Give no answer; the connection stays open."""

    name: ClassVar[str] = "drop"


class Delay(Action):
    """Answer later."""

    name: ClassVar[str] = "delay"
    seconds: Annotated[Seconds, Field(description="seconds to wait before")] = 1.0


class Reject(Action):
    """Answer with an error, whoever asks."""

    name: ClassVar[str] = "reject"
    status: Annotated[int, Field(ge=400, le=699, description="status code of the answer")] = 503


class Close(Action):
    """Close the connection instead of answering."""

    name: ClassVar[str] = "close"


SIP_REQUEST: Final = FaultPoint(
    "sip.request", "A SIP request has arrived at a CallManager.", (Drop, Delay, Reject, Close), WHERE
)
POINTS: Final = (SIP_REQUEST,)
