"""TVS: requests that arrive at a node's Trust Verification Service, and its answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint, Seconds

WHERE: Final = {
    "cluster": "the cluster's name",
    "node": "the node's name",
    "peer": "address of the client",
    "phone": "device name in the request",
}


class Drop(Action):
    """Give no answer; the connection stays open."""

    name: ClassVar[str] = "drop"


class Delay(Action):
    """Answer later."""

    name: ClassVar[str] = "delay"
    seconds: Annotated[Seconds, Field(description="seconds to wait before")] = 1.0


class Truncate(Action):
    """Send only the first bytes of the answer, then close."""

    name: ClassVar[str] = "truncate"
    bytes: Annotated[int, Field(ge=0, le=65535, description="how many are sent")] = 10


TVS_RESPONSE: Final = FaultPoint("tvs.response", "TVS is about to answer.", (Drop, Delay, Truncate), WHERE)
POINTS: Final = (TVS_RESPONSE,)
