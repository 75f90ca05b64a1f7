"""A staying lab's own events in plain words."""

from __future__ import annotations

from datetime import UTC, datetime

from cucm.events import Event, running
from cucm.render.text import duration


def running_headline(event: Event) -> str | None:
    match event:
        case running.LabReady(run=run):
            return f"the lab is ready (run {run})"
        case running.LabCheckpointed(checkpoint=name):
            return f"the lab's state is kept as checkpoint {name}"
        case running.LabRestoring(checkpoint=name):
            return f"the lab goes back to checkpoint {name}"
        case running.LabRestored(checkpoint=name, different=()):
            return f"the lab is as it was at checkpoint {name}"
        case running.LabRestored(checkpoint=name, different=different):
            return f"the lab is as it was at checkpoint {name}, but for {', '.join(different)}"
        case running.ClockMoved(seconds=seconds, now=now):
            date = datetime.fromtimestamp(now, UTC)
            return f"the lab's date is moved by {duration(seconds)} and is {date:%Y-%m-%d %H:%M}"
        case running.LabEnded(why=why):
            return f"the lab ends: {why}"
        case _:
            return None
