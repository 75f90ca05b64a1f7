"""What a lab that starts is about, for somebody who waits at a terminal: a few lines, rendered from its events."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from cucm.events import EventRecord
from cucm.events.administration import ServiceStarted
from lab.runtime import Lab


@contextmanager
def start_progress(lab: Lab, *, is_wanted: bool) -> Iterator[None]:
    """Tell of each step of the start inside on stderr."""
    if not is_wanted:
        yield
        return
    steps = _Steps(lab, sys.stderr)
    end = lab.events.subscribe(steps.hear)
    try:
        yield
    finally:
        end()


class _Steps:
    def __init__(self, lab: Lab, out: TextIO) -> None:
        self._out = out
        self._nodes = sum(len(table.nodes) for table in lab.topology.clusters.values())
        self._phones = len(lab.topology.phones)
        self._told: set[str] = set()
        self._say("certificates", f"certificates and lists of {self._nodes} nodes ...")

    def hear(self, record: EventRecord) -> None:
        if isinstance(record.event, ServiceStarted):
            self._say("services", f"services of {self._nodes} nodes ...")
        elif record.source.startswith("phone:"):
            self._say("phones", f"boot of {self._phones} phone{'s' * (self._phones != 1)} ...")

    def _say(self, step: str, text: str) -> None:
        """Each step once."""
        if step not in self._told:
            self._told.add(step)
            print(f"cucm-lab: {text}", file=self._out, flush=True)
