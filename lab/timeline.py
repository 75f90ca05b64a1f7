"""A run as text: what happened where and when, the verdict, and the logs an engineer recognises."""

from __future__ import annotations

from cucm.events import EventRecord
from cucm.events.administration import ActStarted, OperationPerformed, StoryEnded
from cucm.render.plain import headline
from lab.log_book import LogBook
from lab.scenario import StoryResult
from lab.topology import Topology

SOURCE_WIDTH = 22


class Timeline:
    """Lines for a run's events while they happen: seconds since the first act, who, what."""

    def __init__(self, topology: Topology) -> None:
        self._began: float | None = None
        self._ended = False
        self._phones = {f"phone:{phone.name}": f"phone …{phone.mac[-4:]}" for phone in topology.phones}

    def lines(self, record: EventRecord) -> list[str]:
        """Nothing before the first act and after the last: installing and ending the lab is no part of the story."""
        if isinstance(record.event, ActStarted):
            if self._began is None:
                self._began = record.time
            return ["", f"Act {record.event.number}: {record.event.title}"]
        self._ended = self._ended or isinstance(record.event, StoryEnded)
        text = headline(record.event)
        if text is None or self._began is None or self._ended:
            return []
        who = self._phones.get(record.source, record.source.replace(":", " ", 1))
        if isinstance(record.event, OperationPerformed):
            who = "administrator"
        return [f"{record.time - self._began:8.3f}  {who:<{SOURCE_WIDTH}}  {text}"]


def verdict(result: StoryResult) -> list[str]:
    """How the story ended, and for a failure story its cause, evidence and repair."""
    lines = ["", "Where each phone is"]
    for number, act in enumerate(result.acts, start=1):
        for phone, truth in act.truths.items():
            reasons = f"; refused because of {', '.join(truth.reasons)}" if truth.reasons else ""
            lines.append(
                f"  after act {number}: {phone} registered: {truth.registered}; "
                f"CTL: {truth.ctl}; ITL: {truth.itl}; configuration: {truth.configuration}{reasons}"
            )
    failure = result.story.failure
    if failure:
        lines += ["", f"Cause     {failure.cause}", f"Repair    {failure.repair}"]
        lines += [f"Evidence  {item.log}.log: {item.line}" for item in failure.evidence]
    lines += ["", "Verdict   " + ("ended as it should" if result.ended_as_expected else "NOT as it should")]
    lines += [f"  {text}" for text in result.differences]
    lines += [f"  missing before the repair in {text}" for text in result.missing_evidence]
    return lines + ([f"  broken off: {result.broken}"] if result.broken else [])


def log_section(book: LogBook) -> list[str]:
    """The phones' consoles and the TVS traces, whole."""
    lines: list[str] = []
    for log in book.names:
        if log.startswith(("phone-", "tvs-")):
            lines += ["", f"----- {log}.log", *(book.lines(log) or ["(nothing)"])]
    return lines
