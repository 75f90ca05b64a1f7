"""Logs of a running lab, in the form of each machine."""

from __future__ import annotations

import asyncio

import pytest
from api_on_sockets import asking, listening, make_running, serving
from lab_on_sockets import PHONE, network_of

from lab.api import logs


@pytest.fixture
async def running(tmp_path, loopback, monkeypatch):
    monkeypatch.setattr(logs, "MAX_LINES", 50)
    running = make_running(tmp_path / "lab", network_of(loopback))
    async with serving(running) as server:
        running.server = server
        yield running


@pytest.fixture
async def ask(running):
    async with asking(running.server.urls[0]) as ask:
        await ask.perform("boot-phone", phone=PHONE)
        yield ask


async def test_names_and_forms(ask):
    names = (await ask.get("/v1/logs"))["logs"]
    assert {f"phone-{PHONE}", "tftp-ucm105pub", "tvs-ucm105pub"} <= set(names)
    for name in names:
        own = await ask.get(f"/v1/logs/{name}")
        plain = await ask.get(f"/v1/logs/{name}", **{"as": "plain"})
        assert (plain["log"], plain["as"]) == (name, "plain")
        assert own["as"] in ("console", "tvs", "tftp", "plain")


async def test_a_phone_and_a_node_by_their_names(ask):
    console = await ask.get(f"/v1/logs/{PHONE}")
    assert (console["log"], console["as"]) == (f"phone-{PHONE}", "console")
    assert (await ask.get(f"/v1/logs/{PHONE}", **{"as": "console"})) == console
    tftp = await ask.get("/v1/logs/ucm105pub", **{"as": "tftp"})
    assert (tftp["log"], tftp["as"]) == ("tftp-ucm105pub", "tftp")
    assert tftp["lines"]
    node = await ask.get("/v1/logs/ucm105pub")
    assert node["as"] == "plain"
    assert any("node:ucm105pub" in line for line in node["lines"])
    assert any("tftp:ucm105pub" in line for line in node["lines"])


async def test_the_last_lines(ask):
    whole = (await ask.get(f"/v1/logs/{PHONE}"))["lines"]
    assert (await ask.get(f"/v1/logs/{PHONE}", tail="2"))["lines"] == whole[-2:]
    assert (await ask.get(f"/v1/logs/{PHONE}", tail="0"))["lines"] == []


async def test_memory_is_bounded(ask):
    for _ in range(4):
        await ask.perform("reset-phone", phone=PHONE)
    assert len((await ask.get(f"/v1/logs/{PHONE}"))["lines"]) == 50


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/logs/nobody", 404),
        (f"/v1/logs/{PHONE}?as=tvs", 404),
        (f"/v1/logs/phone-{PHONE}?as=tvs", 404),
        (f"/v1/logs/{PHONE}?as=klingon", 404),
        (f"/v1/logs/{PHONE}?tail=x", 400),
        (f"/v1/logs/{PHONE}?tail=-1", 400),
        (f"/v1/logs/{PHONE}?tial=1", 400),
        ("/v1/logs/nobody/stream", 404),
    ],
)
async def test_what_is_not_there(ask, path, status):
    path, _, query = path.partition("?")
    name, _, value = query.partition("=")
    reply = await ask("GET", path, **({name: value} if name else {}))
    assert reply.status == status
    assert reply.json["mend"]


@pytest.mark.parametrize("form", ["console", "plain"])
async def test_lines_as_they_come(ask, form):
    path = f"/v1/logs/{PHONE}"
    before = await ask.get(path, **{"as": form})
    async with listening(ask, f"{path}/stream", **{"as": form, "after": str(before["next"])}) as stream:
        reset = asyncio.create_task(ask.perform("reset-phone", phone=PHONE))
        seen = [(await stream.next()).data for _ in range(5)]
        await reset
    after = await ask.get(path, **{"as": form})
    lines = after["lines"]
    start = lines.index(seen[0])
    assert lines[start : start + 5] == seen


async def test_a_log_goes_on_over_a_reset(ask):
    async with listening(ask, f"/v1/logs/{PHONE}/stream") as stream:
        await ask.post("/v1/reset")
        await ask.perform("boot-phone", phone=PHONE)
        assert (await stream.next()).data
