"""Typed events: what really happened, once. Log lines are renderings of them, never the other way round.

An event is a frozen dataclass whose class variable `kind` names it in the past tense (`file.served`). Services get an
`Emit` callable that already knows their `source` ("tvs:ucm105pub", "phone:SEPB000B4BA0AEE"); the `EventLog` stamps
sequence number and time. The classes live beside this module: `tvs`, `files`, `phone`, `cluster`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from enum import Enum
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any, ClassVar, Final, NamedTuple

from cucm.clock import Clock, SystemClock
from cucm.records import dataclass

SCHEMA_VERSION: Final = 1
DEFAULT_RETENTION: Final = 200_000
DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024
RECORD_BYTES: Final = 250
"""What a record costs besides its texts; measured: one of a booting phone takes 320 bytes in all."""
ITEM_BYTES: Final = 50
"""What one item of a tuple costs besides its text."""
WEIGHT_UNIT: Final = 16
"""Bytes in which records are weighed: Python has the small numbers ready, and keeps no object for each."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str] = "event"


Emit = Callable[[Event], object]
"""What a service calls to tell of an event; source, number and time are added behind it. What it returns is ignored."""


def ignore(_event: Event) -> None:
    """An `Emit` for callers that do not listen."""


class EventRecord(NamedTuple):
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


_new_record: Final = tuple.__new__
"""Half the price of `EventRecord(...)`."""


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
    """The one ordered record of a run. Keeps the newest `retention` records, fewer if their texts and bytes weigh
    more than `max_bytes`; subscribers see every one.
    """

    def __init__(
        self, clock: Clock | None = None, *, retention: int = DEFAULT_RETENTION, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        clock = clock or SystemClock()
        # every event is dated: a call less for those of the machine's own clock
        self._now = time.time if type(clock) is SystemClock else clock.now
        self._retention = retention
        self._max_weight = max_bytes // WEIGHT_UNIT
        self._records: deque[EventRecord] = deque()
        self._weights: deque[int] = deque()
        self._weight = 0
        self._sequence = 0
        self._subscribers: tuple[Subscriber, ...] = ()

    def emit(self, source: str, event: Event) -> EventRecord:
        self._sequence = sequence = self._sequence + 1
        record = _new_record(EventRecord, (sequence, self._now(), source, event))
        weight = _weight(event)
        records = self._records
        records.append(record)
        self._weights.append(weight)
        self._weight += weight
        while len(records) > self._retention or (self._weight > self._max_weight and len(records) > 1):
            records.popleft()
            self._weight -= self._weights.popleft()
        for subscriber in self._subscribers:
            subscriber(record)
        return record

    def emitter(self, source: str) -> Emit:
        return partial(self.emit, source)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` for every coming record; returns the call that ends it."""
        self._subscribers = (*self._subscribers, subscriber)  # never changed in place: one may end while it is told

        def end() -> None:
            left = list(self._subscribers)
            left.remove(subscriber)
            self._subscribers = tuple(left)

        return end

    def __iter__(self) -> Iterator[EventRecord]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    @property
    def last_sequence(self) -> int:
        """Of the newest record; 0 before the first."""
        return self._sequence

    @property
    def first_sequence(self) -> int:
        """Of the oldest record that is kept; of the next one if none is."""
        return self._sequence - len(self._records) + 1

    def since(self, sequence: int) -> tuple[EventRecord, ...]:
        """Records after `sequence` that are kept. Costs no more than they are many."""
        wanted = max(self._sequence - sequence, 0)
        return tuple(islice(reversed(self._records), wanted))[::-1]


_LIGHT: Final = frozenset({"int", "float", "bool", "int | None", "float | None", "bool | None"})
"""Types of fields that weigh nothing besides their record."""


def _weight(event: Event) -> int:
    """What an event holds in memory, about, in units of 16 bytes: its fields' texts and bytes, and what every record
    costs.
    """
    weight, values_of = _HEAVY_VALUES.get(type(event)) or _heavy_values(type(event))
    for value in values_of(event):
        kind = type(value)
        if kind is str or kind is bytes:
            weight += len(value)
        elif kind is tuple:
            weight += ITEM_BYTES * len(value)
            for item in value:
                if type(item) not in _WEIGHTLESS:
                    weight += _length(item)
        elif value is not None:
            weight += _length(value)
    return weight // WEIGHT_UNIT


_Heavy = tuple[int, Callable[[Event], tuple[Any, ...]]]
_HEAVY_VALUES: Final[dict[type[Event], _Heavy]] = {}


def _heavy_values(kind: type[Event]) -> _Heavy:
    """What a record of this kind weighs by itself, and a call that gives the values of those fields that can hold a
    text, all at once: every event of a run is weighed.
    """
    names = [one.name for one in fields(kind) if one.type not in _LIGHT]
    # two constants beside them, which weigh what is taken off here: an `attrgetter` of one name gives no tuple
    found = _HEAVY_VALUES[kind] = RECORD_BYTES - 2 * len(kind.kind), attrgetter("kind", "kind", *names)
    return found


_WEIGHTLESS: Final[set[type]] = {int}
"""What weighs nothing as an item: roles, most often, and those kinds that `_length` has found to."""


def _length(value: object) -> int:
    match value:
        case str() | bytes():
            return len(value)
        case int():  # roles, most often
            return 0
        case tuple() | frozenset():
            return sum(ITEM_BYTES + _length(item) for item in value)
        case Mapping():
            return sum(ITEM_BYTES + _length(key) + _length(item) for key, item in value.items())
        case _:
            _WEIGHTLESS.add(type(value))
            return 0
