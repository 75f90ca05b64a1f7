"""The event log for readers from outside: ids, pages, and streams that wake when something happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from cucm.errors import UsageError
from cucm.events import EventLog, EventRecord
from cucm.records import dataclass

MOST_AT_ONCE: Final = 1000
"""Events of a page, and those a stream writes before it waits for the reader."""
DEFAULT_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """Patterns with `*` and `?`; None lets all pass."""

    kind: str | None = None
    source: str | None = None

    def passes(self, record: EventRecord) -> bool:
        return (self.kind is None or fnmatchcase(record.event.kind, self.kind)) and (
            self.source is None or fnmatchcase(record.source, self.source)
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """`records` in order; `position` is the last sequence looked at; `gap`: some before them are kept no more."""

    records: tuple[EventRecord, ...]
    position: int
    gap: bool


class EventFeed:
    """`run` is the first part of every id: after a restart the numbers begin anew."""

    def __init__(self, log: EventLog, run: str) -> None:
        self.run = run
        self.counts: Counter[str] = Counter(record.event.kind for record in log)
        self._log = log
        self._waiting: set[asyncio.Event] = set()
        self._end = log.subscribe(self._note)

    def close(self) -> None:
        self._end()

    @property
    def position(self) -> int:
        """Sequence of the newest event."""
        return self._log.last_sequence

    def id_of(self, sequence: int) -> str:
        return f"{self.run}-{sequence}"

    def position_of(self, event_id: str) -> int | None:
        """The sequence of an id; None for one of another run. Raises UsageError for what is no id."""
        run, dash, number = event_id.rpartition("-")
        if not dash or not (number.isascii() and number.isdecimal() and len(number) < 19):
            raise UsageError(f"{event_id[:80]!r} is no event id", mend="give the `id` of an event, or `next` of a page")
        return int(number) if run == self.run and int(number) <= self.position else None

    def after(self, position: int, only: Filter, limit: int = MOST_AT_ONCE) -> Piece:
        """Up to `limit` events behind `position` that pass."""
        found: list[EventRecord] = []
        gap = position + 1 < self._log.first_sequence
        for record in self._behind(position):
            position = record.sequence
            if only.passes(record):
                found.append(record)
                if len(found) >= limit:
                    break
        return Piece(tuple(found), position, gap)

    def _behind(self, position: int) -> Iterator[EventRecord]:
        return iter(self._log.since(position))

    async def news(self, position: int) -> None:
        """Returns when there is an event behind `position`."""
        told = asyncio.Event()
        self._waiting.add(told)
        try:
            while self.position <= position:
                told.clear()
                await told.wait()
        finally:
            self._waiting.discard(told)

    def _note(self, record: EventRecord) -> None:
        self.counts[record.event.kind] += 1
        for told in self._waiting:
            told.set()
