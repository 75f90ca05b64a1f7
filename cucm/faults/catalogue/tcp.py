"""TCP: what becomes of a connection that somebody opens to a service."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint, Seconds

WHERE: Final = {
    "cluster": "the cluster's name",
    "node": "the node's name",
    "service": "TVS, TFTP (HTTP on 6970), CallManager, SFTP",
    "port": "the service's port",
    "peer": "address of the client",
    "phone": "device name of the phone behind that address",
}


class Refuse(Action):
    """Reset the connection as soon as it is made, before a byte is read. (The kernel has answered the SYN already; for
    a port that refuses every SYN set a `service.port` fault.)
    """

    name: ClassVar[str] = "refuse"


class Reset(Action):
    """Reset the connection once the client has sent something; the service gets what came before."""

    name: ClassVar[str] = "reset"
    after_bytes: Annotated[int, Field(ge=1, le=1 << 20, description="the byte that brings the reset, from 1")] = 1


class Stall(Action):
    """Keep the connection and read, but never say anything: a process that hangs. It ends when the client ends it, or
    with a reset after ten minutes.
    """

    name: ClassVar[str] = "stall"


class Blackhole(Action):
    """Let every packet of the connection vanish from now on, both ways: nothing is acknowledged. A reset ends it after
    ten minutes.
    """

    name: ClassVar[str] = "blackhole"


class Slow(Action):
    """Send what the service says only so fast, TLS records and all."""

    name: ClassVar[str] = "slow"
    bytes_per_s: Annotated[int, Field(ge=1, le=1 << 30, description="bytes a second")] = 1024
    delay_s: Annotated[Seconds, Field(description="seconds before the first byte")] = 0.0


TCP_ACCEPT: Final = FaultPoint(
    "tcp.accept", "A client connects to a TCP port of a service.", (Refuse, Reset, Stall, Blackhole, Slow), WHERE
)
POINTS: Final = (TCP_ACCEPT,)
