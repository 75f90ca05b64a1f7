"""Faults in plain words."""

from __future__ import annotations

from collections.abc import Mapping

from cucm.events import Event, faults, files


def fault_headline(event: Event) -> str | None:
    """One line for the timeline; None for others' events."""
    match event:
        case faults.FaultSet(fault=name, point=point, action=action, match=match):
            return f"FAULT {name} set: {action} at {point}{_fields(match, ' where ')}"
        case faults.FaultFired(fault=name, point=point, action=action, hit=hit, request=request):
            return f"FAULT {name} hits ({hit}): {action} at {point}{_fields(request, ', ')}"
        case faults.FaultEnded(fault=name, hits=hits, missed=missed):
            told = f"FAULT {name} ended after {hits} hit{'' if hits == 1 else 's'}"
            return f"{told}, and should have hit" if missed else told
        case files.FileAltered(name=name, action=action, size=size):
            return f"{name} is served {action}: {size} bytes"
        case files.FileNotAltered(name=name, action=action, detail=detail):
            return f"{name} cannot be served {action} and is served as it is: {detail}"
        case _:
            return None


def _fields(fields: Mapping[str, str], before: str) -> str:
    text = " ".join(f"{name}={value}" for name, value in fields.items() if value)
    return before + text if text else ""
