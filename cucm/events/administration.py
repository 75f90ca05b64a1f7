"""What an administrator does to a lab: the acts and operations of a story, and what they change on the clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cucm.events import Event


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
class CertificateStored(Event):
    """A certificate was generated into or uploaded to a store. `roles` are what TVS will say of it from now on."""

    kind: ClassVar[str] = "certificate.stored"
    cluster: str
    store: str
    subject: str
    issuer: str
    serial: bytes
    roles: tuple[int, ...]


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
class ParameterSet(Event):
    kind: ClassVar[str] = "parameter.set"
    cluster: str
    parameter: str
    value: str


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
class Option150Set(Event):
    kind: ClassVar[str] = "dhcp.option_150_set"
    servers: tuple[str, ...]
