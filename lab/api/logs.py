"""Logs of a running lab by name, in the form of the machine they are of, or in plain words."""

from __future__ import annotations

from typing import Final

from cucm.errors import UsageError
from cucm.events import EventLog, EventRecord
from cucm.records import dataclass
from cucm.render.plain import PlainLines
from lab.log_book import LogBook
from lab.runtime import Lab

MAX_LINES: Final = 10_000
"""Kept of each log."""
FORMS: Final = ("console", "tvs", "tftp", "plain")
_FORM_OF_SERVICE: Final = {"phone": "console", "tvs": "tvs", "tftp": "tftp"}


@dataclass(frozen=True, slots=True)
class LabLog:
    """One log in one form. `source` is that of its events; None for plain words about everything with a name."""

    name: str
    form: str
    book: LogBook
    events: EventLog
    who: str

    def position(self) -> int:
        """A place to go on from."""
        return self.events.last_sequence if self.form == "plain" else self.book.lengths.get(self.name, 0)

    def after(self, position: int) -> tuple[list[str], int]:
        """Lines behind a place that are kept, and the place behind them."""
        if self.form != "plain":
            return list(self.book.lines(self.name, position)), self.position()
        records = self.events.since(position)
        return [line for one in records if self._is_of(one) for line in PlainLines().lines(one)], self.position()

    def _is_of(self, record: EventRecord) -> bool:
        return record.source == self.who or record.source.partition(":")[2] == self.who


class LabLogs:
    """Renders every event from now on, and those that are kept already."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        kept = tuple(lab.events)
        self._book = LogBook(lab.events, lab.trace_dialects, max_lines=MAX_LINES)
        for record in kept:
            self._book.add(record)

    def close(self) -> None:
        """No more events are rendered."""
        self._book.close()

    @property
    def names(self) -> tuple[str, ...]:
        """`phone-SEP...`, `tvs-<node>`, `tftp-<node>` ..."""
        return self._book.names

    def log(self, name: str, form: str | None) -> LabLog:
        """By its full name, or by the phone's or node's with the form that is wanted (plain for a node without).

        Raises UsageError.
        """
        if form is not None and form not in FORMS:
            raise UsageError(f"a log has no form {form[:40]!r}", mend=f"one of: {', '.join(FORMS)}")
        full = name if name in self.names else self._full(name, form)
        own = _FORM_OF_SERVICE.get(full.partition("-")[0], "plain")
        chosen = form or own
        if chosen not in (own, "plain"):
            raise UsageError(f"{full} is not written as {chosen}", mend=f"it is written as {own} or plain")
        who = full.replace("-", ":", 1) if full in self.names else full
        return LabLog(full, chosen, self._book, self._lab.events, who)

    def _full(self, name: str, form: str | None) -> str:
        """The log that is meant by a phone's or node's name."""
        service = {"console": "phone", None: "phone"}.get(form, form)
        if (full := f"{service}-{name}") in self.names:
            return full
        if form in (None, "plain") and any(one.partition("-")[2] == name for one in self.names):
            return name
        own = [one for one in self.names if one.partition("-")[2] == name]
        if own:
            raise UsageError(f"{name} has no log as {form}", mend=f"its logs: {', '.join(own)}; as plain all of them")
        known = ", ".join(self.names) or "none yet"
        raise UsageError(f"there is no log {name[:80]!r}", mend=f"there are: {known}")
