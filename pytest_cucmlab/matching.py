"""Events as tests ask for them, and what came near when none fits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final

MAX_NEAR: Final = 5
MAX_VALUE: Final = 80
Event = Mapping[str, Any]


def fits(event: Event, kind: str, fields: Mapping[str, Any]) -> bool:
    """Whether it is of the kind (a pattern) and has all the fields: texts are patterns, objects need only be part."""
    return fnmatchcase(str(event["kind"]), kind) and not differences(event, fields)


def differences(event: Event, fields: Mapping[str, Any]) -> list[str]:
    """A text for each field that is not as wanted."""
    return [
        f"{name} is {_shown(event.get(name))}, wanted {_shown(wanted)}"
        for name, wanted in fields.items()
        if name not in event or not _is(event[name], wanted)
    ]


def _is(value: Any, wanted: Any) -> bool:
    if callable(wanted):
        return bool(wanted(value))
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        return all(name in value and _is(value[name], one) for name, one in wanted.items())
    if isinstance(wanted, str) and isinstance(value, str):
        return fnmatchcase(value, wanted)
    return bool(value == wanted)


def near_misses(events: Sequence[Event], kind: str, fields: Mapping[str, Any]) -> str:
    """Events of the kind with what differs, the fewest differences first; else kinds that sound like it."""
    of_kind = [event for event in events if fnmatchcase(str(event["kind"]), kind)]
    if of_kind:
        ranked = sorted(of_kind, key=lambda event: len(differences(event, fields)))[:MAX_NEAR]
        lines = [f"  {describe(event)}\n    {'; '.join(differences(event, fields))}" for event in ranked]
        more = len(of_kind) - len(ranked)
        return "\n".join(["near misses:", *lines, *([f"  and {more} more of that kind"] if more else [])])
    kinds = sorted({str(event["kind"]) for event in events})
    near = get_close_matches(kind, kinds, n=MAX_NEAR, cutoff=0.4)
    if near:
        return f"no event of that kind; there were: {', '.join(near)}"
    return f"no event of that kind; there were {len(events)} events of {len(kinds)} kinds: {', '.join(kinds[:20])}"


def describe(event: Event) -> str:
    """One line."""
    head = ("schema", "sequence", "time", "source", "kind")
    fields = " ".join(f"{name}={_shown(value)}" for name, value in event.items() if name not in head)
    return f"{event['sequence']} {event['source']} {event['kind']} {fields}".rstrip()


def wanted(kind: str, fields: Mapping[str, Any]) -> str:
    """What was asked for, in words."""
    return " ".join([kind, *(f"{name}={_shown(value)}" for name, value in fields.items())])


def _shown(value: Any) -> str:
    text = repr(value) if callable(value) else json.dumps(value, default=repr)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."
