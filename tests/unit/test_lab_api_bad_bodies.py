"""What the API says of every wrong body: what is wrong, where, and how to mend it, in our words and not at length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from api_on_sockets import PROBLEM, Reply, asking, make_running, serving
from lab_on_sockets import PHONE, network_of

from cucm.faults.catalogue import POINTS
from cucm.faults.rules import FaultTable
from lab.api import models
from lab.api.operation_resources import Administrator
from lab.api.server import MAX_BODY
from lab.operation_words import OperationKind, operation_kinds

NOT_OURS = re.compile(
    r"Input (should|is)|<\w+\.\w+: |[Ss]tring should|Field required|inputs are|should have"
    r"|valid (tuple|dict|string|number|list|object)"
    r"|at most \d+ (characters|items)|pydantic|ValidationError|Traceback|Unable to parse"
    r"|Exceeds the limit|maximum recursion|codec can't"
)
"""Sentences of pydantic's and of Python's."""
MOST_ANSWER = 4096
"""Bytes of a problem document: what was sent is not sent back."""
LONG = "x" * 500_000
GOOD: dict[str, dict[str, Any]] = {
    "/v1/clock": {"move_s": 60.0},
    "/v1/checkpoints": {"name": "before"},
    "/v1/wait": {"for": "ready"},
    "/v1/sql": {"cluster": "source", "node": "ucm105pub", "sql": "select 1", "write": False},
    "/v1/operations": {"do": "boot-phone", "phone": PHONE},
    "/v1/faults": {"id": "x", "point": "tvs.response", "action": "drop", "match": {"node": "*"}, "times": 1},
    "/v1/checkpoints/start/restore": {},
    "/v1/reset": {},
    "/v1/shutdown": {},
    f"/v1/phones/{PHONE}/boot": {},
    f"/v1/phones/{PHONE}/reset": {},
    f"/v1/phones/{PHONE}/power-off": {},
    f"/v1/phones/{PHONE}/erase": {},
}
"""A right body for every resource that takes one."""
MODELS = {
    "/v1/clock": models.MoveClock,
    "/v1/checkpoints": models.KeepCheckpoint,
    "/v1/wait": models.Wait,
    "/v1/sql": models.Sql,
    "/v1/faults": FaultTable,
}
NO_JSON = {
    "nothing that ends": b"{",
    "a comma too many": b'{"name": "x",}',
    "no text": b"\xff\xfe\xfd",
    "words": b"name=before",
    "a list": b"[1]",
    "a number": b"1",
    "null": b"null",
    "nested too deep": b"[" * 100_000,
    "nested too deep in a member": b'{"name": ' + b'{"a": ' * 100_000,
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"move_s": -Infinity}',
    "more than floats hold": b'{"move_s": 1e999}',
    "digits without end": b'{"move_s": ' + b"9" * 5000 + b"}",
}


@pytest.fixture
async def running(tmp_path, loopback, monkeypatch):
    running = make_running(tmp_path / "lab", network_of(loopback))
    performed = Administrator.perform
    running.performed = []

    async def perform(self, value):
        answer = await performed(self, value)
        running.performed.append(value)
        return answer

    monkeypatch.setattr(Administrator, "perform", perform)
    async with serving(running) as api:
        running.url = api.urls[0]
        yield running


@pytest.fixture
async def ask(running):
    async with asking(running.url) as ask:
        yield ask


def faults_of(reply: Reply, status: int = 400, told: str = "") -> Iterator[str]:
    """What is not as it should be in the answer to a wrong body that names `told`."""
    if reply.status != status or reply.kind != PROBLEM:
        yield f"{reply.status} {reply.kind} {reply.data[:200]!r}"
        return
    problem = reply.json
    yield from (f"no `{name}`: {problem}" for name in ("detail", "where", "mend") if not problem[name])
    if problem["exit_code"] != 2:
        yield f"exit code {problem['exit_code']}: {problem}"
    text = f"{problem['detail']} {problem['where']} {problem['mend']}"
    if NOT_OURS.search(text):
        yield f"not our words: {text}"
    if told not in text:
        yield f"does not name {told!r}: {text}"
    if len(reply.data) > MOST_ANSWER:
        yield f"{len(reply.data)} bytes: {text[:200]}"


def wrong_values(good: Any) -> dict[str, Any]:
    """By what is wrong: values that are none of the kind of `good`."""
    wrong = {"an object": {"a": 1}, "a list": [1], "nothing": None, "a deep object": deep(200)}
    if isinstance(good, bool) or not isinstance(good, str):
        wrong |= {"a text": "?", "a long text": LONG}
    if not isinstance(good, int | float) or isinstance(good, bool):
        wrong |= {"a number": 1.5, "a huge number": 10**99}
    return {name: value for name, value in wrong.items() if not (isinstance(good, dict) and isinstance(value, dict))}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_every_resource_that_takes_a_body_is_in_the_table(tmp_path, loopback):
    from lab.api.server import ApiServer

    described = ApiServer(make_running(tmp_path, network_of(loopback))).description()["paths"]
    takes = {path for path, methods in described.items() if "post" in methods}
    assert takes == {
        re.sub(r"checkpoints/start", "checkpoints/{name}", path.replace(PHONE, "{phone}")) for path in GOOD
    }


async def test_what_is_no_json_object(ask, running):
    wrong = [
        f"{path}, {what}: {fault}"
        for path in GOOD
        for what, body in NO_JSON.items()
        for fault in faults_of(await ask("POST", path, body), told=path)
    ]
    assert not wrong, "\n".join(wrong)
    assert not running.performed
    assert not running.ended.is_set()


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_another_content_type_and_too_long_a_body(ask, running):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = []
    for path, good in GOOD.items():
        wrong += faults_of(await ask("POST", path, good, headers=form), 415, path)
        wrong += faults_of(await ask("POST", path, b" " * (MAX_BODY + 1)), 413, path)
    assert not wrong, "\n".join(wrong)
    assert not running.performed


async def test_a_field_too_many_has_the_nearest_name(ask, running):
    wrong = []
    for path, good in GOOD.items():
        wrong += faults_of(await ask("POST", path, good | {"planet": 1}), told="planet")
        wrong += faults_of(await ask("POST", path, good | {LONG: 1}))
    assert not wrong, "\n".join(wrong)
    misspelt = (await ask("POST", "/v1/clock", {"move": 1})).json
    assert "did you mean move_s?" in misspelt["detail"]
    assert not running.performed


@pytest.mark.parametrize("path", MODELS)
async def test_missing_and_wrong_fields(ask, running, path):
    good, wrong = GOOD[path], []
    for name, field in MODELS[path].model_fields.items():
        told = field.alias or name
        if field.is_required():
            left = {other: value for other, value in good.items() if other != told}
            wrong += faults_of(await ask("POST", path, left), told=told)
        known = good.get(told, field.get_default(call_default_factory=True))
        for what, value in wrong_values(known if known is not None else 1).items():
            if (value is None and not field.is_required()) or (path == "/v1/faults" and what == "a number"):
                continue  # left out; a fault's texts may be written as numbers, `match.port=69`
            reply = await ask("POST", path, good | {told: value})
            wrong += (f"{what}: {fault}" for fault in faults_of(reply, told=told))
    assert not wrong, "\n".join(wrong)
    assert (await ask.get("/v1/faults"))["faults"] == []
    assert [one["name"] for one in (await ask.get("/v1/checkpoints"))["checkpoints"]] == ["start"]


@pytest.mark.parametrize(
    ("path", "field", "value", "told"),
    [
        ("/v1/clock", "move_s", 1e12, "the most is 4000000000"),
        ("/v1/clock", "move_s", 10**400, "a number in the body has 401 digits"),
        ("/v1/clock", "move_s", 10**100, "a number in the body has 101 digits"),
        ("/v1/clock", "move_s", 10**99, "move_s: "),
        ("/v1/clock", "move_s", -(10**100), "a number in the body has 101 digits"),
        ("/v1/clock", "move_s", -(10**99), "move_s: "),
        ("/v1/clock", "move_s", "60", "is no number, write digits, without quotes"),
        ("/v1/checkpoints", "name", "x" * 65, "characters: 64 at most"),
        ("/v1/checkpoints", "name", "\ud800", "half a character"),
        ("/v1/wait", "for", "", "characters: 1 or more"),
        ("/v1/wait", "for", "x" * 5000, "characters: 4096 at most"),
        ("/v1/wait", "for", "\ud800", "half a character"),
        ("/v1/wait", "timeout_s", 601, "the most is 600"),
        ("/v1/sql", "write", 1, "is neither true nor false"),
        ("/v1/sql", "sql", "\ud800", "half a character"),
        ("/v1/sql", "sql", "x" * 200_000, "characters: 100000 at most"),
        ("/v1/faults", "times", 0, "the least is 1"),
        ("/v1/faults", "match", {"node": ["a"]}, "match.node: is no text"),
        ("/v1/faults", "match", [], 'an object: {"name": ...}'),
        ("/v1/faults", "id", "a b", "id"),
    ],
)  # fmt: skip
async def test_values_out_of_bounds(ask, path, field, value, told):
    reply = await ask("POST", path, GOOD[path] | {field: value})
    assert list(faults_of(reply, told=told)) == []


async def test_wrong_attributes_of_every_action(ask):
    wrong = []
    for point in POINTS.values():
        for action in point.actions:
            rule = {"point": point.name, "action": action.name}
            names = {"planet": 1} | dict.fromkeys(action.model_fields, deep(3))
            for name, value in names.items():
                wrong += faults_of(await ask("POST", "/v1/faults", rule | {"attributes": {name: value}}), told=name)
            for name, value in ((name, value) for name in action.model_fields for value in ([LONG], 10**99)):
                wrong += faults_of(await ask("POST", "/v1/faults", rule | {"attributes": {name: value}}), told=name)
    assert not wrong, "\n".join(wrong)
    assert (await ask.get("/v1/faults"))["faults"] == []


@pytest.mark.parametrize("kind", operation_kinds().values(), ids=operation_kinds())
def test_every_operation_has_a_wrong_body_for_every_field(kind: OperationKind) -> None:
    assert bad_operations(kind)


def bad_operations(kind: OperationKind) -> list[tuple[str, str, dict[str, Any]]]:
    """What is wrong, the word the answer must have, and the body."""
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("a field too many", "planet", {"do": kind.name, "planet": 1}),
        ("a long name of a field", "", {"do": kind.name, LONG: 1}),
    ]
    if any(field.required for field in kind.fields):
        bodies.append(("fields are missing", "is missing", {"do": kind.name}))
    for field in kind.fields:
        for what, value in (("an object", deep(3)), ("a deep object", deep(200)), ("a list of a list", [[LONG]])):
            bodies.append((what, field.name, {"do": kind.name, field.name: value}))
        bodies.append(("a huge number", "", {"do": kind.name, field.name: 10**400}))
        bodies.append(("a long text", "", {"do": kind.name, field.name: LONG}))
        bodies.append(("no text", "", {"do": kind.name, field.name: "\ud800"}))
    return bodies


async def test_wrong_operations(ask, running):
    wrong = []
    for kind in operation_kinds().values():
        for what, told, body in bad_operations(kind):
            reply = await ask("POST", "/v1/operations", body)
            if reply.status != 200:
                wrong += (f"{kind.name}, {what}: {fault}" for fault in faults_of(reply, told=told))
            else:
                wrong.append(f"{kind.name}, {what}, {list(body)}: performed")
    assert not wrong, "\n".join(wrong)
    assert not running.performed
