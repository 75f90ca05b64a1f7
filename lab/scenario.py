"""Stories: acts of operations with an expected end, read from TOML and played on a running lab.

A story only says what an administrator does and what should be true afterwards. Whether it becomes true is decided by
sockets, stores and signatures; the verdict compares.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from cucm.clock import Clock, MovableClock
from cucm.errors import LabError, StoryError, TrustReason, UsageError
from cucm.events.administration import ActStarted, StoryEnded
from cucm.faults import fault_of
from cucm.faults.rules import FaultTable
from cucm.records import dataclass
from lab.log_book import LogBook
from lab.operations import AnyOperation
from lab.operations.pem import file_context
from lab.runtime import Lab, LabOptions
from lab.toml_files import read_toml
from lab.topology import PhonesName, Table, is_path, load_topology, packaged_file
from lab.truth import PhoneTruth, truth_of


class ExpectedPhone(Table):
    """What should be true of a phone; what is not given is not looked at. `reasons` must be among those met."""

    registered: str | None = None
    ctl: str | None = None
    itl: str | None = None
    configuration: str | None = None
    reasons: tuple[TrustReason, ...] = ()

    def differences(self, truth: PhoneTruth) -> list[str]:
        """One text per thing that is not as expected."""
        fields = ("registered", "ctl", "itl", "configuration")
        wrong = [
            f"{name} should be {getattr(self, name)}, is {getattr(truth, name)}"
            for name in fields
            if getattr(self, name) not in (None, getattr(truth, name))
        ]
        met = ", ".join(truth.reasons) or "none"
        return wrong + [
            f"reason {reason} should be met, met: {met}" for reason in self.reasons if reason not in truth.reasons
        ]


def _checked(table: FaultTable) -> FaultTable:
    try:
        return fault_of(table).table
    except UsageError as error:
        raise ValueError(f"{error.what} ({error.mend})" if error.mend else error.what) from None


StoryFault = Annotated[FaultTable, AfterValidator(_checked)]


class Act(Table):
    title: str
    faults: tuple[StoryFault, ...] = ()
    """In force while the act is played; one that `must_fire` and does not fails the story."""
    steps: Annotated[tuple[AnyOperation, ...], Field(min_length=1)]
    expect: dict[PhonesName, ExpectedPhone] = Field(default_factory=dict)
    """By phone, group of phones, or `all`."""
    repairs: bool = False
    """The act in which the documented repair is applied."""


class Evidence(Table):
    """A log (`phone-<device>`, `tvs-<node>`, `cluster-<cluster>`, ...) in which the act before the repair must write
    `line`.
    """

    log: str
    line: Annotated[str, Field(min_length=1)]


class Failure(Table):
    cause: str
    repair: str
    evidence: tuple[Evidence, ...] = ()


class Story(Table):
    schema_version: Literal[1] = Field(alias="schema")
    title: str
    teaches: str
    topology: str
    catalogue: str = ""
    """Row of the failure catalogue (facts 11), where there is one."""
    failure: Failure | None = None
    acts: Annotated[tuple[Act, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _a_failure_is_repaired(self) -> Story:
        repairs = [number for number, act in enumerate(self.acts, start=1) if act.repairs]
        if self.failure and repairs != [len(self.acts)]:
            raise ValueError("a failure story repairs in its last act, and only there")
        if repairs and not self.failure:
            raise ValueError("an act repairs, but the story has no [failure]")
        return self


def load_story(name_or_path: str) -> tuple[str, Story]:
    """Name and story: a packaged one by name, any other by path (with a `/`, or ending in `.toml`).

    A topology that a story names by a relative path lies beside the story. Raises UsageError.
    """
    if not is_path(name_or_path):
        return name_or_path, read_toml(packaged_file("scenarios", name_or_path), Story)
    path = Path(name_or_path)
    story = read_story(path)
    if is_path(story.topology):
        story = story.model_copy(update={"topology": str(path.parent.absolute() / story.topology)})
    return path.stem, story


def read_story(path: Path) -> Story:
    """A story's file, checked; the `@FILE`s it names lie beside it. Raises UsageError."""
    return read_toml(path, Story, file_context(path.parent))


@dataclass(frozen=True, slots=True)
class ActResult:
    """`truths` by phone as they were when the act ended; `differences` is empty when all is as the story expects."""

    title: str
    repairs: bool
    truths: dict[str, PhoneTruth]
    differences: tuple[str, ...]


@dataclass(slots=True)
class StoryResult:
    """`ended_as_expected` is the verdict. `missing_evidence` are lines that should stand in a log and do not."""

    name: str
    story: Story
    acts: list[ActResult] = field(default_factory=list)
    missing_evidence: list[str] = field(default_factory=list)
    broken: str | None = None
    """Why the story could not be played to its end."""

    @property
    def ended_as_expected(self) -> bool:
        return self.broken is None and not self.missing_evidence and not self.differences

    @property
    def differences(self) -> list[str]:
        return [f"after “{act.title}”: {text}" for act in self.acts for text in act.differences]

    def as_json(self) -> dict[str, Any]:
        failure = self.story.failure
        return {
            "scenario": self.name,
            "title": self.story.title,
            "ended_as_expected": self.ended_as_expected,
            "acts": [
                {
                    "title": act.title,
                    "repairs": act.repairs,
                    "phones": {name: truth.as_json() for name, truth in act.truths.items()},
                    "differences": list(act.differences),
                }
                for act in self.acts
            ],
            "missing_evidence": self.missing_evidence,
            "broken": self.broken,
            "failure": failure and {"cause": failure.cause, "repair": failure.repair},
        }


Watch = Callable[[Lab], None]


async def play(
    name: str,
    story: Story,
    options: LabOptions,
    *,
    clock: Clock | None = None,
    watch: Watch = lambda _lab: None,
    after_act: Callable[[Lab, int], None] = lambda _lab, _number: None,
) -> tuple[StoryResult, Lab, LogBook]:
    """Play a story on a lab of its own, which has ended when this returns.

    `watch` is called once, before the first act; `after_act` after each, with its number from 1. Raises LabError when
    the lab cannot start; what goes wrong later is in the result.
    """
    result = StoryResult(name, story)
    lab = Lab(load_topology(story.topology), options, clock=clock or MovableClock())
    book = LogBook(lab.events, lab.trace_dialects)
    watch(lab)
    async with lab:
        _check_names(name, story, lab)
        act_began: dict[str, int] = {}
        for number, act in enumerate(story.acts, start=1):
            if act.repairs:
                result.missing_evidence = _missing(story, book, act_began)
            act_began = book.lengths
            try:
                result.acts.append(await _perform(lab, number, act))
            except LabError as error:
                result.broken = f"{error} ({error.mend})" if error.mend else str(error)
                break
            after_act(lab, number)
        lab.events.emit("lab:story", StoryEnded())
    return result, lab, book


def _check_names(name: str, story: Story, lab: Lab) -> None:
    for number, act in enumerate(story.acts, start=1):
        try:
            for step in act.steps:
                step.says(lab)
            for phones in act.expect:
                lab.topology.phones_named(phones)
        except UsageError as error:
            raise StoryError(error.what, where=f"{name}, act {number} “{act.title}”", mend=error.mend) from error


async def _perform(lab: Lab, number: int, act: Act) -> ActResult:
    began = lab.events.emit("lab:story", ActStarted(number, act.title))
    for fault in act.faults:
        await _told_where(number, f"fault {fault.action} at {fault.point}", lab.set_fault(fault))
    for step in act.steps:
        await _told_where(number, step.says(lab), lab.perform(step))
    since = lab.events.since(began.sequence)
    truths = {phone: truth_of(lab, phone, since) for phone in lab.phones}
    wrong = [
        f"{table.name}: {text}"
        for name, end in act.expect.items()
        for table in lab.topology.phones_named(name)
        for text in end.differences(truths[table.name])
    ]
    missed = [
        f"fault {status.fault.id} ({status.fault.point.name}) should have hit, and did not"
        for status in await lab.end_faults()
        if status.is_missed
    ]
    return ActResult(act.title, act.repairs, truths, (*wrong, *missed))


async def _told_where(number: int, what: str, work: Awaitable[object]) -> None:
    try:
        await work
    except LabError as error:
        raise StoryError(str(error), where=f"act {number}, “{what}”", mend=error.mend) from error


def _missing(story: Story, book: LogBook, since: Mapping[str, int]) -> list[str]:
    evidence: Sequence[Evidence] = story.failure.evidence if story.failure else ()
    return [f"{item.log}.log: {item.line}" for item in evidence if not book.contains(item.log, item.line, since)]
