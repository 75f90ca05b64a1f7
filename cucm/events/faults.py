"""Faults that a user has set: what is in force, and which request each has hit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cucm.events import Event
from cucm.records import dataclass


@dataclass(frozen=True, slots=True)
class FaultSet(Event):
    """`match` by field, as the rule has it."""

    kind: ClassVar[str] = "fault.set"
    fault: str
    point: str
    action: str
    match: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FaultFired(Event):
    """Told before what it does, only of the clock's jump behind it.

    `hit` counts from 1; `request` is all that was known of what it hit.
    """

    kind: ClassVar[str] = "fault.fired"
    fault: str
    point: str
    action: str
    hit: int
    request: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FaultEnded(Event):
    """`missed`: it should have fired (`must_fire`) and never did."""

    kind: ClassVar[str] = "fault.ended"
    fault: str
    hits: int
    missed: bool
