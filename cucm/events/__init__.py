"""Typed events: what really happened, once. Log lines are renderings of them, never the other way round.

An event is a frozen dataclass whose class variable `kind` names it in the past tense (`file.served`). Services get an
`Emit` callable that already knows their `source` ("tvs:ucm105pub", "phone:SEPB000B4BA0AEE"); the `EventLog` stamps
sequence number and time. The classes live beside this module: `tvs`, `files`, `phone`, `cluster`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, ClassVar, Final

from cucm.clock import Clock, SystemClock

SCHEMA_VERSION: Final = 1
DEFAULT_RETENTION: Final = 200_000


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str] = "event"


Emit = Callable[[Event], None]
"""What a service calls to tell of an event; source, number and time are added behind it."""


def ignore(_event: Event) -> None:
    """An `Emit` for callers that do not listen."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event with its place in the story: `sequence` from 1, `time` in Unix seconds, `source` as `service:name`."""

    sequence: int
    time: float
    source: str
    event: Event

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; bytes become lower-case hex."""
        head = {
            "schema": SCHEMA_VERSION,
            "sequence": self.sequence,
            "time": round(self.time, 6),
            "source": self.source,
            "kind": self.event.kind,
        }
        return head | {f.name: _plain(getattr(self.event, f.name)) for f in fields(self.event)}


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case Enum():
            return value.value
        case tuple() | list() | frozenset():
            return [_plain(item) for item in value]
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case None | bool() | int() | float() | str():
            return value
        case _ if hasattr(value, "__dataclass_fields__"):
            return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        case _:
            return str(value)


Subscriber = Callable[[EventRecord], object]
"""What it returns is ignored."""


class EventLog:
    """The one ordered record of a run. Keeps the newest `retention` records; subscribers see every one."""

    def __init__(self, clock: Clock | None = None, *, retention: int = DEFAULT_RETENTION) -> None:
        self._clock = clock or SystemClock()
        self._records: deque[EventRecord] = deque(maxlen=retention)
        self._sequence = 0
        self._subscribers: list[Subscriber] = []

    def emit(self, source: str, event: Event) -> EventRecord:
        self._sequence += 1
        record = EventRecord(self._sequence, self._clock.now(), source, event)
        self._records.append(record)
        for subscriber in tuple(self._subscribers):
            subscriber(record)
        return record

    def emitter(self, source: str) -> Emit:
        def emit(event: Event) -> None:
            self.emit(source, event)

        return emit

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` for every coming record; returns the call that ends it."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def __iter__(self) -> Iterator[EventRecord]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def since(self, sequence: int) -> tuple[EventRecord, ...]:
        """Records after `sequence`."""
        return tuple(record for record in self._records if record.sequence > sequence)
