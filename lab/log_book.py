"""The logs of a run, as an engineer finds them on the real machines: renderings of the events, by machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final, Protocol

from cucm.events import EventLog, EventRecord
from cucm.render.phone_console import PhoneConsole
from cucm.render.plain import PlainLines
from cucm.render.tftp_trace import TftpTrace
from cucm.render.tvs_trace import TvsTrace
from cucm.versions import TraceDialect

LOG_SERVICES: Final = ("phone", "tvs", "tftp", "callmanager", "capf", "node", "cluster", "dhcp", "sftp", "lab")
"""What a log's name begins with: the services that events come from. Behind the hyphen is whose log it is."""


class Renderer(Protocol):
    def lines(self, record: EventRecord) -> list[str]: ...


RENDERERS: dict[str, Callable[[], Renderer]] = {
    "phone": PhoneConsole,
    "tftp": TftpTrace,
}
"""By the service in an event's source; TVS traces depend on the node, every other source is told in plain words."""


class LogBook:
    """Logs by name: `phone-SEP...` (console), `tvs-<node>` (detailed trace), `tftp-<node>` (SDL), others plain.

    `dialects`: which of the two forms of the TVS trace a node writes. `max_lines`: how many of each log are kept, the
    newest; None for a run that ends, and whose logs are wanted whole.
    """

    def __init__(
        self, events: EventLog, dialects: Mapping[str, TraceDialect] | None = None, *, max_lines: int | None = None
    ) -> None:
        self._dialects = dialects or {}
        self._max_lines = max_lines
        self._renderers: dict[str, Renderer] = {}
        self._lines: dict[str, deque[str]] = {}
        self._written: dict[str, int] = {}
        self._end = events.subscribe(self.add)

    def close(self) -> None:
        """Add no more by itself."""
        self._end()

    def add(self, record: EventRecord) -> list[str]:
        """Render a record into its log; returns the new lines."""
        service, _, name = record.source.partition(":")
        log = f"{service}-{name}"
        renderer = self._renderers.get(log) or self._renderers.setdefault(log, self._new_renderer(service, name))
        lines = renderer.lines(record)
        self._lines.setdefault(log, deque(maxlen=self._max_lines)).extend(lines)
        self._written[log] = self._written.get(log, 0) + len(lines)
        return lines

    def _new_renderer(self, service: str, name: str) -> Renderer:
        if service == "tvs":
            return TvsTrace(dialect=self._dialects.get(name, TraceDialect.PLAIN))
        return RENDERERS.get(service, PlainLines)()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._lines))

    def lines(self, log: str, after: int = 0) -> tuple[str, ...]:
        """Those that are kept of a log, after its first `after`; empty for a log nobody has written to."""
        wanted = max(self._written.get(log, 0) - after, 0)
        return tuple(islice(reversed(self._lines.get(log, ())), wanted))[::-1]

    @property
    def lengths(self) -> dict[str, int]:
        """How many lines were written to each log until now: a place in all of them to search from later."""
        return dict(self._written)

    def contains(self, log: str, text: str, since: Mapping[str, int]) -> bool:
        """Whether a line written to the log after `since` (see `lengths`) holds the text."""
        return any(text in line for line in self.lines(log, since.get(log, 0)))
