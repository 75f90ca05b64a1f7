"""What an administrator does to a lab: the acts and operations of a story, and what they change on the clusters."""

from __future__ import annotations

from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class ActStarted(Event):
    kind: ClassVar[str] = "story.act_started"
    number: int
    title: str


@dataclass(frozen=True, slots=True)
class StoryEnded(Event):
    """The last act is over; what follows is the lab's own end."""

    kind: ClassVar[str] = "story.ended"


@dataclass(frozen=True, slots=True)
class OperationPerformed(Event):
    """`text` is the operation in an administrator's words, `note` the story's remark on it."""

    kind: ClassVar[str] = "operation.performed"
    operation: str
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class OperationRefused(Event):
    """The emulated system refused it, as it was expected to. `mend` is its advice."""

    kind: ClassVar[str] = "operation.refused"
    operation: str
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class CertificateStored(Event):
    """A certificate was generated into or uploaded to a store. `roles` are what TVS will say of it from now on."""

    kind: ClassVar[str] = "certificate.stored"
    cluster: str
    store: str
    subject: str
    issuer: str
    serial: bytes
    roles: tuple[int, ...]
    node: str = ""


@dataclass(frozen=True, slots=True)
class CertificateIgnored(Event):
    """An uploaded certificate did not go into the store: one of its CN that starts no earlier stays (facts 5.5)."""

    kind: ClassVar[str] = "certificate.ignored"
    cluster: str
    store: str
    subject: str
    issuer: str
    serial: bytes


@dataclass(frozen=True, slots=True)
class CertificateDeleted(Event):
    """It was deleted on this node's page; where else it goes depends on the release (facts 5.5)."""

    kind: ClassVar[str] = "certificate.deleted"
    cluster: str
    node: str
    store: str
    common_name: str


@dataclass(frozen=True, slots=True)
class CertificateRestored(Event):
    """Certificate change notification found it missing on this node and copied it back (facts 5.5)."""

    kind: ClassVar[str] = "certificate.restored"
    cluster: str
    node: str
    store: str
    common_name: str


@dataclass(frozen=True, slots=True)
class SigningRequestMade(Event):
    kind: ClassVar[str] = "certificate.signing_request_made"
    cluster: str
    node: str
    unit: str


@dataclass(frozen=True, slots=True)
class CtlFileDeleted(Event):
    kind: ClassVar[str] = "ctl_file.deleted"
    node: str


@dataclass(frozen=True, slots=True)
class ItlResetTransferred(Event):
    """The reset ITL was put on a TFTP node (facts 4.3)."""

    kind: ClassVar[str] = "itl_reset.transferred"
    node: str


@dataclass(frozen=True, slots=True)
class RecoveryPairExported(Event):
    kind: ClassVar[str] = "recovery_pair.exported"
    cluster: str


@dataclass(frozen=True, slots=True)
class ParameterSet(Event):
    kind: ClassVar[str] = "parameter.set"
    cluster: str
    parameter: str
    value: str


@dataclass(frozen=True, slots=True)
class PhonesReset(Event):
    """The cluster resets these of its registered devices by itself; `why` names what changed."""

    kind: ClassVar[str] = "phones.reset"
    cluster: str
    devices: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class ServiceStarted(Event):
    """`impostor` marks a server that is not the node's own."""

    kind: ClassVar[str] = "service.started"
    node: str
    service: str
    address: str
    impostor: bool = False


@dataclass(frozen=True, slots=True)
class ServiceStopped(Event):
    kind: ClassVar[str] = "service.stopped"
    node: str
    service: str


@dataclass(frozen=True, slots=True)
class ServiceCrashed(Event):
    """Its process died; connections were reset."""

    kind: ClassVar[str] = "service.crashed"
    node: str
    service: str


@dataclass(frozen=True, slots=True)
class ServiceUnchanged(Event):
    """An administrator asked for what was so already: `state` says what it is, and that nothing was done."""

    kind: ClassVar[str] = "service.unchanged"
    node: str
    service: str
    state: str


@dataclass(frozen=True, slots=True)
class NodeCrashed(Event):
    """A machine of the cluster died with all its services."""

    kind: ClassVar[str] = "node.crashed"
    node: str


@dataclass(frozen=True, slots=True)
class NodeStarted(Event):
    kind: ClassVar[str] = "node.started"
    node: str


@dataclass(frozen=True, slots=True)
class ReachabilityChanged(Event):
    """What becomes of packets to the service: `open`, `refuse`, `unreachable`."""

    kind: ClassVar[str] = "service.reachability_changed"
    node: str
    service: str
    reachability: str
