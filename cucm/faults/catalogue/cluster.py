"""Clusters: their machines, services, certificates and the replication between nodes; and the lab's clock."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cucm.faults.points import Action, FaultPoint

MAX_JUMP_S: Final = 100 * 365.25 * 86_400
MAX_LAG_S: Final = 86_400.0

NODE: Final = {"cluster": "the cluster's name", "node": "the node's name"}
SERVICE: Final = NODE | {"service": "CallManager, TVS, TFTP, CAPF ..."}


class Refuse(Action):
    """A firewall refuses: new connections are reset by the kernel, datagrams answered with `port unreachable`."""

    name: ClassVar[str] = "refuse"


class Blackhole(Action):
    """Packets vanish: who connects hears nothing, connections that stand fall silent."""

    name: ClassVar[str] = "blackhole"


class Stop(Action):
    """Somebody stops the service in order; it is started again when the fault ends."""

    name: ClassVar[str] = "stop"


class Crash(Action):
    """It dies: connections are reset, nothing is said. It is started again when the fault ends."""

    name: ClassVar[str] = "crash"


class Restart(Action):
    """The machine dies and comes up again at once."""

    name: ClassVar[str] = "restart"


class Expired(Action):
    """The certificate is another with the same name, serial and key, whose time is over."""

    name: ClassVar[str] = "expired"


class NotYetValid(Action):
    """The certificate is another with the same name, serial and key, whose time has not come."""

    name: ClassVar[str] = "not-yet-valid"


class WrongKey(Action):
    """The certificate is another with the same name and serial, and with another key."""

    name: ClassVar[str] = "wrong-key"


class Pause(Action):
    """Changes wait until the fault ends."""

    name: ClassVar[str] = "pause"


class Lag(Action):
    """Every change arrives so much later, by the lab's clock."""

    name: ClassVar[str] = "lag"
    seconds: Annotated[float, Field(gt=0, le=MAX_LAG_S, allow_inf_nan=False, description="how much later")] = 60.0


class Lose(Action):
    """The change never arrives, and nobody notices: the subscriber counts it as taken over."""

    name: ClassVar[str] = "lose"


class Jump(Action):
    """The lab's clock jumps, and back again when the fault ends."""

    name: ClassVar[str] = "jump"
    seconds: Annotated[
        float,
        Field(ge=-MAX_JUMP_S, le=MAX_JUMP_S, allow_inf_nan=False, description="forward, or back where negative"),
    ] = 86_400.0


SERVICE_PORT: Final = FaultPoint(
    "service.port", "The network before the ports of a service.", (Refuse, Blackhole), SERVICE, is_state=True
)
SERVICE_PROCESS: Final = FaultPoint(
    "service.process", "The process of a service that runs.", (Stop, Crash), SERVICE, is_state=True
)
NODE_MACHINE: Final = FaultPoint("node.machine", "The machine of a node.", (Crash, Restart), NODE, is_state=True)
NODE_CERTIFICATE: Final = FaultPoint(
    "node.certificate",
    "The certificate that a service of a node shows in TLS handshakes; stores and lists keep the right one.",
    (Expired, NotYetValid, WrongKey),
    NODE | {"unit": "TVS or CallManager"},
    is_state=True,
)
REPLICATION_LINK: Final = FaultPoint(
    "replication.link", "The replication from the publisher to a subscriber.", (Pause, Lag), NODE, is_state=True
)
REPLICATION_CHANGE: Final = FaultPoint(
    "replication.change",
    "A changed row is on its way to a subscriber.",
    (Lose,),
    NODE | {"table": "the table: certificate, device ...", "key": "primary key of the row"},
)
LAB_CLOCK: Final = FaultPoint("lab.clock", "The date of the whole lab.", (Jump,), is_state=True)
POINTS: Final = (
    SERVICE_PORT,
    SERVICE_PROCESS,
    NODE_MACHINE,
    NODE_CERTIFICATE,
    REPLICATION_LINK,
    REPLICATION_CHANGE,
    LAB_CLOCK,
)
