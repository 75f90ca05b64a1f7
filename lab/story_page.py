"""The stories as one Markdown page, `docs/scenarios.md`, made of the files alone: no lab needs to run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from cucm.faults.rules import FaultTable
from lab.operations import Operation
from lab.scenario import Act, ExpectedPhone, Story

HEAD: Final = """\
# The stories

<!-- made by `cucm-lab scenarios --markdown > docs/scenarios.md`; the files are in lab/scenarios -->

`cucm-lab run NAME` plays one on real sockets and compares the end with what is expected here; `make failures` plays all
failure stories. The row is that of the failure catalogue. `cucm-lab validate FILE` checks a story of your own."""
_TOLD_ELSEWHERE: Final = frozenset({"do", "note", "refused"})
_ABBREVIATIONS: Final = re.compile(r"\b(capf|ctl|itl|lsc|sftp|tvs)\b")
_SPECIAL: Final = re.compile(r"([\\`*_|<>\[\]])")


def scenarios_page(stories: Mapping[str, Story]) -> str:
    """The page, ending with a newline: a table of all stories, successes first, then each one with its acts."""
    names = sorted(stories, key=lambda name: _order(name, stories[name]))
    lines = [HEAD, "", "| story | row | what happens |", "|---|---|---|"]
    lines += [
        f"| [{name}](#{name}) | {_text(stories[name].catalogue)} | {_text(stories[name].title)} |" for name in names
    ]
    for name in names:
        lines += ["", *_story_lines(name, stories[name])]
    return "\n".join(lines) + "\n"


def _order(name: str, story: Story) -> tuple[bool, list[int], str]:
    """F2 before F10."""
    return story.failure is not None, [int(number) for number in re.findall(r"\d+", story.catalogue)], name


def _story_lines(name: str, story: Story) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield f"**{_text(story.title)}**"
    yield ""
    yield _text(story.teaches)
    yield ""
    row = f" Failure catalogue: {_text(story.catalogue)}." if story.catalogue else ""
    yield f"Topology: {_code(story.topology)}.{row}"
    yield ""
    for number, act in enumerate(story.acts, start=1):
        yield from _act_lines(number, act)
    if story.failure is not None:
        yield ""
        yield f"Cause: {_text(story.failure.cause)}"
        yield ""
        yield f"Repair: {_text(story.failure.repair)}"
        if story.failure.evidence:
            yield ""
            yield "Evidence, written before the repair:"
            yield ""
            yield from (f"- {_code(item.log)}: {_code(item.line)}" for item in story.failure.evidence)


def _act_lines(number: int, act: Act) -> Iterator[str]:
    repair = " (the repair)" if act.repairs else ""
    yield f"{number}. {_text(act.title)}{repair}"
    for fault in act.faults:
        yield f"   - fault while this act lasts: {_fault_words(fault)}"
    for step in act.steps:
        yield f"   - {step_words(step)}"
    for phone, expected in act.expect.items():
        yield f"   - expected of {_code(phone)}: {_expected_words(expected)}"


def _fault_words(fault: FaultTable) -> str:
    where = [f"{_words(name)} {_code(pattern)}" for name, pattern in fault.match.items()]
    how = [f"{_words(name)} {_code(str(value))}" for name, value in fault.attributes.items()]
    return ", ".join([f"{_code(fault.action)} at {_code(fault.point)}", *where, *how])


def step_words(step: Operation) -> str:
    """An operation in words made of its own fields: upload certificate `CallManager`, from `destination`, ..."""
    verb = _words(step.do)
    parts = []
    for name, field in type(step).model_fields.items():
        value = getattr(step, name)
        if name in _TOLD_ELSEWHERE or value == field.get_default():
            continue
        label = _words(field.alias or name)
        if verb.endswith((f" {label}", f" {label} file")):  # "boot phone X", not "boot phone, phone X"
            verb = f"{verb} {_value(value)}"
        else:
            parts.append(f"{label} {_value(value)}")
    words = ", ".join([verb, *parts])
    refused = f"; refused: {_text(step.refused)}" if step.refused else ""
    note = f" – {_text(step.note)}" if step.note else ""
    return f"{words}{refused}{note}"


def _words(name: str) -> str:
    """`update-ctl-file`: update CTL file."""
    return _ABBREVIATIONS.sub(lambda found: found[1].upper(), name.replace("-", " ").replace("_", " "))


def _expected_words(expected: ExpectedPhone) -> str:
    wanted = {
        "registered": expected.registered,
        "CTL": expected.ctl,
        "ITL": expected.itl,
        "configuration": expected.configuration,
    }
    words = [f"{name} {_code(value)}" for name, value in wanted.items() if value is not None]
    words += [f"meets {_code(reason)}" for reason in expected.reasons]
    return ", ".join(words) or "nothing"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(_value(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _code(str(value))


def _text(text: str) -> str:
    """Plain text on one line, with nothing in it that Markdown would take for its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """A code span; one that holds backticks is fenced by more of them."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}"
