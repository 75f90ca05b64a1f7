"""Events as programs read them: names and fields that stay apart."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields

import cucm.events
from cucm.events import Event, EventLog, EventRecord
from cucm.events.faults import FaultFired, FaultSet
from cucm.events.phone import StatusMessageShown, TftpServersLearned

for module in pkgutil.iter_modules(cucm.events.__path__):
    importlib.import_module(f"cucm.events.{module.name}")


def all_kinds(base: type[Event] = Event) -> Iterator[type[Event]]:
    """Every class of events; `slots=True` leaves a twin of each behind, with the same fields."""
    for kind in base.__subclasses__():
        yield kind
        yield from all_kinds(kind)


def test_no_field_of_an_event_hides_one_of_its_record() -> None:
    head = set(EventRecord(1, 0.0, "a:b", FaultFired("x", "p", "a", 1, {})).as_json()) - {
        field.name for field in fields(FaultFired)
    }
    assert head == {"schema", "sequence", "time", "source", "kind"}
    assert {kind: hidden for kind in all_kinds() if (hidden := head & {field.name for field in fields(kind)})} == {}


def test_no_two_events_have_one_kind() -> None:
    named: dict[str, set[str]] = {}
    for kind in all_kinds():
        if kind.kind == Event.kind:
            continue  # a base of others
        named.setdefault(kind.kind, set()).add(f"{kind.__module__}.{kind.__name__}")
    assert {kind: names for kind, names in named.items() if len(names) > 1} == {}


def emitted(log: EventLog, *texts: str) -> list[int]:
    for text in texts:
        log.emit("test", StatusMessageShown(text))
    return [record.sequence for record in log]


def test_the_newest_records_are_kept_and_everybody_hears_of_all() -> None:
    log, heard = EventLog(retention=3), []
    log.subscribe(lambda record: heard.append(record.sequence))
    assert (log.first_sequence, log.last_sequence) == (1, 0)
    assert emitted(log, *"abcde") == [3, 4, 5]
    assert heard == [1, 2, 3, 4, 5]
    assert (log.first_sequence, log.last_sequence) == (3, 5)


def test_records_after_one() -> None:
    log = EventLog(retention=3)
    emitted(log, *"abcde")
    after = {sequence: [record.sequence for record in log.since(sequence)] for sequence in (0, 2, 3, 4, 5, 9)}
    assert after == {0: [3, 4, 5], 2: [3, 4, 5], 3: [4, 5], 4: [5], 5: [], 9: []}


def test_long_texts_leave_room_for_fewer_records() -> None:
    """However much a peer sends: what events hold of it stays within bounds."""
    log = EventLog(max_bytes=10_000)
    assert emitted(log, *("x" * 2_000 for _ in range(20))) == [17, 18, 19, 20]
    assert emitted(log, "x" * 50_000) == [21]
    assert emitted(log, "y") == [22]
    for _ in range(10):
        log.emit("test", FaultSet("f", "p", "a", {"phone": "z" * 3_000}))
        log.emit("test", TftpServersLearned(("z" * 1_500, "z" * 1_500), from_dhcp=True))
    assert len(log) in (2, 3)


def test_mappings_become_objects() -> None:
    log = EventLog()
    log.emit("lab:faults", FaultFired("x", "p", "a", 1, {"node": "n"}))
    assert next(iter(log)).as_json()["request"] == {"node": "n"}
