"""A lab that stays: when it is ready, when its state is kept or goes back to one that was kept, and its end."""

from __future__ import annotations

from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class LabReady(Event):
    """Every socket is bound, every list is signed, the phones' first boots have ended. `run`: of this process."""

    kind: ClassVar[str] = "lab.ready"
    run: str


@dataclass(frozen=True, slots=True)
class LabCheckpointed(Event):
    kind: ClassVar[str] = "lab.checkpointed"
    checkpoint: str


@dataclass(frozen=True, slots=True)
class LabRestoring(Event):
    """What is told from here to `lab.restored` is the lab's own doing: its parts end and begin again."""

    kind: ClassVar[str] = "lab.restoring"
    checkpoint: str


@dataclass(frozen=True, slots=True)
class LabRestored(Event):
    """`different` names what could not be brought back as it was: a phone that nobody registered again, a service."""

    kind: ClassVar[str] = "lab.restored"
    checkpoint: str
    different: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClockMoved(Event):
    """The lab's date was moved by `seconds`, either way, and is `now` (Unix seconds)."""

    kind: ClassVar[str] = "lab.clock_moved"
    seconds: float
    now: float


@dataclass(frozen=True, slots=True)
class LabEnded(Event):
    """The lab is about to end; `why` in words."""

    kind: ClassVar[str] = "lab.ended"
    why: str
