"""Events as programs read them: names and fields that stay apart."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields

import cucm.events
from cucm.events import Event, EventLog, EventRecord
from cucm.events.faults import FaultFired

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


def test_mappings_become_objects() -> None:
    log = EventLog()
    log.emit("lab:faults", FaultFired("x", "p", "a", 1, {"node": "n"}))
    assert next(iter(log)).as_json()["request"] == {"node": "n"}
