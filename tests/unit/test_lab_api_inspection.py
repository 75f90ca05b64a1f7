"""The whole lab as one object, and waiting for something to be true of it."""

from __future__ import annotations

import asyncio

import pytest
from api_on_sockets import asking, make_running, serving
from lab_on_sockets import PHONE, network_of

from cucm.errors import UsageError
from lab.api import lab_resources
from lab.api.inspection import compiled, value_of


@pytest.fixture
async def running(tmp_path, loopback):
    running = make_running(tmp_path / "lab", network_of(loopback))
    async with serving(running) as server:
        running.server = server
        yield running


@pytest.fixture
async def ask(running):
    async with asking(running.server.urls[0]) as ask:
        yield ask


async def inspected(ask, query):
    return (await ask.get("/v1/inspect", query=query))["lab"]


async def test_everything_has_a_place(ask, running):
    await ask.perform("boot-phone", phone=PHONE)
    await ask.post("/v1/faults", {"id": "f", "point": "tvs.response", "action": "drop"})
    lab = (await ask.get("/v1/inspect"))["lab"]
    assert set(lab) >= {
        *("title", "ready", "clusters", "phones", "dhcp", "sftp", "faults", "clock", "events", "checkpoints")
    }
    tvs = lab["clusters"]["source"]["nodes"]["ucm105pub"]["services"]["TVS"]
    assert (tvs["state"], tvs["reachability"]) == ("running", "open")
    assert lab["clusters"]["source"]["security_mode"] == "mixed"
    assert (lab["phones"][PHONE]["registered"], lab["phones"][PHONE]["on"]) == ("source", True)
    assert lab["faults"]["f"]["hits"] == 0
    assert lab["checkpoints"] == ["start"]
    ask.validate(lab, "Lab")
    assert sum(lab["events"].values()) == running.lab.events.last_sequence


async def test_a_part_of_it(ask):
    assert await inspected(ask, f"phones.{PHONE}.state") == "off"
    assert await inspected(ask, "clusters.*.nodes[].*.name[]") == ["ucm105pub", "ucm11pub"]
    assert await inspected(ask, "nothing.here") is None


@pytest.mark.parametrize("expression", ["phones.[", "", "a b", "x" * 5000, "length(", "(" * 3000, "'"])
async def test_an_expression_that_cannot_be_read(ask, expression):
    reply = await ask("GET", "/v1/inspect", query=expression)
    assert (reply.status, reply.json["exit_code"]) == (400, 2)
    waiting = await ask("POST", "/v1/wait", {"for": expression})
    assert (waiting.status, waiting.json["exit_code"]) == (400, 2)


@pytest.mark.parametrize("expression", ["no_such_function(@)", "length(ready)", "sum(phones)", "abs()", "&phones"])
async def test_an_expression_that_does_not_fit(ask, expression):
    for reply in (
        await ask("GET", "/v1/inspect", query=expression),
        await ask("POST", "/v1/wait", {"for": expression}),
    ):
        assert (reply.status, reply.json["exit_code"]) == (400, 2), reply


@pytest.mark.parametrize(
    "expression",
    [
        "|".join(["[@,@]"] * 300),
        "|".join(["{a:@,b:@}"] * 300),
        "|".join(["[@,@][]"] * 300) + "|length(@)",
        "|".join(["[@,@]"] * 30) + "|length(to_string(@))",
        "|".join(["to_string([@])"] * 100) + "|length(@)",
        "|".join(["values({a:@,b:@})"] * 100),
        "to_string([" * 100 + "@" + "])" * 100,
    ],
)
def test_an_expression_that_grows_and_grows(expression):
    with pytest.raises(UsageError, match="it takes more than"):
        value_of(compiled(expression), {"a": {"b": ["c"] * 100}})


def test_an_expression_on_a_large_lab():
    phones = {f"SEP{number:012X}": {"registered": "source", "names": ["x" * 50] * 20} for number in range(3000)}
    assert value_of(compiled("length(phones.*.[registered, names][?[0]=='source'])"), {"phones": phones}) == 3000
    assert value_of(compiled("abs(" * 40 + "`-1`" + ")" * 40), {}) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"for": 1}, {"for": "ready", "timeout_s": -1}, {"for": "ready", "timeout_s": 1e9}, {"for": "ready", "x": 1}],
)
async def test_wrong_conditions(ask, body):
    assert (await ask("POST", "/v1/wait", body)).status == 400


async def test_what_is_true_already_is_answered_at_once(ask):
    answer = await ask.post("/v1/wait", {"for": "length(phones)", "timeout_s": 0})
    assert answer["value"] == 1


async def test_what_becomes_true(ask):
    waiting = asyncio.create_task(ask.post("/v1/wait", {"for": f"phones.{PHONE}.registered == 'source'"}))
    await ask.perform("boot-phone", phone=PHONE)
    assert (await waiting)["value"] is True


async def test_what_is_no_event_is_noticed_too(ask):
    waiting = asyncio.create_task(ask.post("/v1/wait", {"for": "clock.moved_s > `3000`", "timeout_s": 20}))
    await ask.post("/v1/clock", {"move_s": 3600})
    assert (await waiting)["value"] is True


async def test_what_does_not_become_true(ask):
    reply = await ask("POST", "/v1/wait", {"for": f"phones.{PHONE}.call_managers", "timeout_s": 0.1})
    assert (reply.status, reply.json["exit_code"], reply.json["value"]) == (408, 1, [])
    assert reply.json["type"].endswith(":not-true")


async def test_waiting_goes_on_over_a_reset(ask):
    condition = {"for": 'events."lab.restored" == `2`', "timeout_s": 30}
    waiting = asyncio.create_task(ask.post("/v1/wait", condition))
    for _ in range(2):
        await ask.post("/v1/reset")
    assert (await waiting)["value"] is True


async def test_too_many_who_wait_and_those_who_went_away(ask, monkeypatch):
    monkeypatch.setattr(lab_resources, "MAX_WAITS", 2)
    asked = [asyncio.create_task(ask("POST", "/v1/wait", {"for": "nothing"})) for _ in range(3)]
    (refused,), waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert (refused.result().status, refused.result().json["exit_code"]) == (503, 3)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(30):
        while (await ask("POST", "/v1/wait", {"for": "ready"})).status != 200:
            await asyncio.sleep(0)


async def test_the_end_of_the_lab_ends_the_waiting(ask, running):
    waiting = asyncio.create_task(ask("POST", "/v1/wait", {"for": "nothing", "timeout_s": 600}))
    assert (await ask("POST", "/v1/wait", {"for": "nothing", "timeout_s": 0})).status == 408
    running.shutdown("enough")
    assert (await waiting).status == 503
