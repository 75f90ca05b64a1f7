"""The reference of fault points as a Markdown page, `docs/faults.md`, made of the code and the examples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cucm.faults.points import Action, FaultPoint
from cucm.faults.rules import FaultTable
from lab.fault_examples import FaultExample
from lab.story_page import step_words

HEAD: Final = """\
# Faults

<!-- made by `cucm-lab fault --markdown > docs/faults.md` from cucm/faults/catalogue and lab/fault_examples -->

A fault is a rule: at which *point* something goes wrong, what (*action*, with its attributes), and for whom (*match*).
None is in force unless somebody sets it. Where several are set, the first that matches and is due wins. Every firing is
an event, `fault.fired`, that names the rule and the request it hit. A value out of bounds is refused, never clipped.

At a point of *requests* every request is asked about, and `skip`, `times`, `every` and `probability` choose among those
that match. A *state* holds from when the fault is set until it ends, and is undone then. Faults end one by one, with
the act of a story, with the `with` block of a test, or all of them by `reset`.

    cucm-lab fault set tvs.response drop match.node=ucm105pub times=1     # in a running lab (cucm-lab up)
    cucm-lab fault list                                                   # what is in force, and what it has hit
    cucm-lab fault end fault-1

In an act of a story:

    faults = [{ point = "tvs.response", action = "drop", match = { node = "ucm105pub" }, times = 1 }]

By HTTP: `POST /v1/faults` with the same as JSON. In pytest:

    with cucm_lab.fault("tvs.response", "drop", times=1) as fault:"""

RULE: Final = "## What every fault may say"


def faults_page(points: Mapping[str, FaultPoint], examples: Sequence[FaultExample]) -> str:
    """The page, ending with a newline."""
    by_action = {(example.point, example.action): example for example in examples}
    lines = [HEAD, "", RULE, "", *_rule_lines(), "", "## Points", "", *_overview(points)]
    for point in points.values():
        lines += ["", *_point_lines(point, by_action)]
    return "\n".join(lines) + "\n"


def _rule_lines() -> Iterator[str]:
    yield "| field | what | default |"
    yield "|---|---|---|"
    for name, field in FaultTable.model_fields.items():
        default = "" if field.is_required() else _code(field.get_default(call_default_factory=True))
        yield f"| `{name}` | {field.description} | {default} |"


def _overview(points: Mapping[str, FaultPoint]) -> Iterator[str]:
    yield "| point | kind | when | actions |"
    yield "|---|---|---|---|"
    for name, point in points.items():
        kind = "state" if point.is_state else "request"
        actions = ", ".join(f"`{action.name}`" for action in point.actions)
        yield f"| [{name}](#{name.replace('.', '')}) | {kind} | {point.description} | {actions} |"


def _point_lines(point: FaultPoint, examples: Mapping[tuple[str, str], FaultExample]) -> Iterator[str]:
    yield f"### {point.name}"
    yield ""
    yield f"{point.description} {'A state.' if point.is_state else 'Requests.'}"
    yield ""
    if point.match:
        fields = "; ".join(f"`{name}` ({what})" for name, what in point.match.items())
        yield f"`match` may look at: {fields}."
    else:
        yield "There is nothing to match: it is one for the whole lab."
    for action in point.actions:
        yield ""
        yield from _action_lines(action, examples.get((point.name, action.name)))


def _action_lines(action: type[Action], example: FaultExample | None) -> Iterator[str]:
    yield f"**`{action.name}`**: {action.describe()}"
    if action.model_fields:
        yield ""
        yield from (f"- {_attribute(name, schema)}" for name, schema in _attributes(action).items())
    if example is not None:
        yield ""
        yield f"Example: {example.says}"
        yield ""
        yield f"    {json.dumps(example.rule)}"
        provoked = "; ".join(step_words(step) for step in example.steps) or "nothing more is needed"
        yield ""
        yield f"Provoked by: {provoked}. Seen as: `{example.shows.kind}`."


def _attributes(action: type[Action]) -> Mapping[str, Mapping[str, Any]]:
    return action.model_json_schema()["properties"]  # type: ignore[no-any-return]


def _attribute(name: str, schema: Mapping[str, Any]) -> str:
    bounds = [
        f"{words} {schema[key]}"
        for key, words in (("minimum", "at least"), ("maximum", "at most"), ("enum", "one of"))
        if key in schema
    ]
    default = f"default {_code(schema.get('default'))}"
    return f"`{name}`: {schema.get('description', '')} ({', '.join([*bounds, default])})"


def _code(value: object) -> str:
    return f"`{json.dumps(value, default=str)}`"
