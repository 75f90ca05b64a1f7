"""What the resources of a running lab tell and do; answers are held against their description on the way."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from api_on_sockets import asking, make_running, serving
from lab_on_sockets import PHONE, network_of

from lab.truth import truths_of
from phone_agent.state import PhoneState

NODE = "/v1/clusters/source/nodes/ucm105pub"


@pytest.fixture
async def running(tmp_path, loopback):
    running = make_running(tmp_path / "lab", network_of(loopback))
    async with serving(running, phones=True) as server:
        running.server = server
        yield running


@pytest.fixture
async def ask(running):
    async with asking(running.server.urls[0]) as ask:
        yield ask


async def test_what_this_is_and_where_everything_is(ask, running):
    overview = await ask.get("/v1")
    assert (overview["run"], overview["ready"]) == (running.run_id, True)
    for path in overview["links"].values():
        await ask.get(path)
    urls = {(one["service"], one.get("node")): one["url"] for one in (await ask.get("/v1/endpoints"))["endpoints"]}
    assert urls["API", None] == running.server.urls[0]
    assert urls["TVS", "ucm105pub"] == f"tls://{running.lab.node('ucm105pub').address}:2445"
    assert urls["DHCP", None].startswith("udp://")
    assert (await ask.get("/v1/topology"))["topology"]["clusters"]["source"]["version"]


async def test_clusters_nodes_services_and_stores(ask, running):
    names = [one["name"] for one in (await ask.get("/v1/clusters"))["clusters"]]
    assert names == ["source", "destination"]
    assert (await ask.get("/v1/clusters/source"))["cluster"]["nodes"][0]["name"] == "ucm105pub"
    assert (await ask.get(NODE))["node"]["up"] is True
    await ask.perform("stop-service", cluster="source", node="ucm105pub", service="TVS")
    states = {one["name"]: one["state"] for one in (await ask.get(f"{NODE}/services"))["services"]}
    assert (states["TVS"], states["TFTP"]) == ("stopped", "running")
    stores = {one["name"]: one["certificates"] for one in (await ask.get(f"{NODE}/stores"))["stores"]}
    shown = (await ask.get(f"{NODE}/certificates"))["certificates"]
    assert stores["TVS"] == 1
    assert {name: count for name, count in stores.items() if count} == {
        unit: sum(one["unit"] == unit for one in shown) for unit in {one["unit"] for one in shown}
    }


async def test_files_as_the_node_serves_them(ask, running):
    store = running.lab.node("ucm105pub").file_store
    for name in (f"ITL{PHONE}.tlv", f"CTL{PHONE}.tlv", f"{PHONE}.cnf.xml", "ITLFile.tlv"):
        assert await ask.get(f"{NODE}/files/{name}") == store.read(name)
    listed = {one["name"]: one for one in (await ask.get(f"{NODE}/files"))["files"]}
    ctl = await ask.get(f"{NODE}/files/CTL{PHONE}.tlv")
    assert listed[f"CTL{PHONE}.tlv"]["sha256"] == hashlib.sha256(ctl).hexdigest()
    assert listed[f"CTL{PHONE}.tlv"]["length"] == len(ctl)
    assert (await ask("GET", f"{NODE}/files/CTLSEP000000000000.tlv")).status == 404
    await ask.perform("stop-service", cluster="source", node="ucm105pub", service="TFTP")
    assert (await ask("GET", f"{NODE}/files/ITL{PHONE}.tlv")).status == 404


async def test_a_phone_with_its_truth_its_flash_and_its_screens(ask, running):
    phone = (await ask.get(f"/v1/phones/{PHONE}"))["phone"]
    assert phone["state"] == "registered"
    assert phone["registered"] == "source"
    assert phone["address"]
    assert (await ask.get("/v1/phones"))["phones"][PHONE] == phone
    truth = (await ask.get("/v1/truth/phones"))["phones"][PHONE]
    assert truth.items() <= phone.items()
    contents = running.lab.phone(PHONE).flash.contents
    for held in ("ctl", "itl", "configuration"):
        assert await ask.get(f"/v1/phones/{PHONE}/flash/{held}") == getattr(contents, held)
    assert any("registered" in line for line in (await ask.get(f"/v1/phones/{PHONE}/screens"))["lines"])


async def test_what_a_user_does_with_a_phone(ask, running):
    phone = running.lab.phone(PHONE)
    assert (await ask.post(f"/v1/phones/{PHONE}/power-off"))["do"] == "power-off-phone"
    assert phone.state is PhoneState.OFF
    await ask.post(f"/v1/phones/{PHONE}/erase")
    assert (await ask("GET", f"/v1/phones/{PHONE}/flash/itl")).status == 404
    told = await ask.post(f"/v1/phones/{PHONE}/boot")
    assert phone.state is PhoneState.REGISTERED
    assert any("REGISTERED" in line["text"] for line in told["timeline"])
    await ask.post(f"/v1/phones/{PHONE}/reset")
    assert (await ask("POST", f"/v1/phones/{PHONE}/boot", {})).status == 409
    assert (await ask("POST", "/v1/phones/SEP1/boot", {})).status == 404
    assert (await ask("POST", f"/v1/phones/{PHONE}/reset", {"hard": True})).status == 400


async def test_faults_are_set_shown_with_their_hits_and_ended(ask, running):
    rule = {"id": "silent", "point": "tvs.response", "action": "drop", "match": {"node": "ucm105pub"}, "times": 1}
    reply = await ask("POST", "/v1/faults", rule)
    assert (reply.status, reply.json["fault"]["hits"]) == (201, 0)
    taken = await ask("POST", "/v1/faults", rule)
    assert (taken.status, taken.json["exit_code"]) == (409, 1)
    made_up = (await ask.post("/v1/faults", {"point": "lab.clock", "action": "jump"}))["fault"]["id"]
    await ask.perform("regenerate-certificate", cluster="source", certificate="CallManager")
    await ask.perform("reset-phone", phone=PHONE)
    assert [one["id"] for one in (await ask.get("/v1/faults"))["faults"]] == ["silent", made_up]
    shown = (await ask.get("/v1/faults/silent"))["fault"]
    fired = [one for one in running.lab.events if one.event.kind == "fault.fired" and one.event.fault == "silent"]
    assert shown["hits"] == len(fired)
    assert (await ask.delete("/v1/faults/silent"))["fault"]["id"] == "silent"
    assert (await ask("GET", "/v1/faults/silent")).status == 404
    assert (await ask("DELETE", "/v1/faults/silent")).status == 404
    assert [one["id"] for one in (await ask.delete("/v1/faults"))["faults"]] == [made_up]
    assert (await ask.get("/v1/faults"))["faults"] == []


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"point": "tvs.respons", "action": "drop"},
        {"point": "tvs.response", "action": "explode"},
        {"point": "tvs.response", "action": "drop", "id": "../x"},
        {"point": "tvs.response", "action": "drop", "match": {"planet": "x"}},
        {"point": "tvs.response", "action": "drop", "probability": 0.5},
        {"point": "tvs.response", "action": "drop", "times": 0},
        {"point": "tvs.response", "action": "delay", "attributes": {"seconds": 1e9}},
        {"point": "lab.clock", "action": "jump", "skip": 1},
    ],
)
async def test_wrong_faults_are_refused_and_none_is_in_force(ask, rule):
    reply = await ask("POST", "/v1/faults", rule)
    assert (reply.status, reply.json["exit_code"]) == (400, 2)
    assert reply.json["mend"]
    assert (await ask.get("/v1/faults"))["faults"] == []


async def test_the_date(ask, running):
    before = await ask.get("/v1/clock")
    moved = await ask.post("/v1/clock", {"move_s": 3600})
    assert moved["moved_s"] - before["moved_s"] == pytest.approx(3600)
    assert moved["now"] == pytest.approx(running.clock.now(), abs=30)
    for wrong in ({}, {"move_s": "1"}, {"move_s": 1e300}, {"move_s": None}, {"move_s": True}, {"move": 1}):
        assert (await ask("POST", "/v1/clock", wrong)).status == 400, wrong


async def test_kept_states_and_the_way_back(ask, running):
    reply = await ask("POST", "/v1/checkpoints", {"name": "before"})
    assert (reply.status, reply.json["checkpoint"]["name"]) == (201, "before")
    assert (await ask("POST", "/v1/checkpoints", {"name": "before"})).status == 400
    truths = truths_of(running.lab)
    await ask.perform("set-option-150", cluster="destination")
    await ask.perform("erase-security-settings", phone=PHONE)
    await ask.post("/v1/faults", {"point": "tvs.response", "action": "drop"})
    assert (await ask.post("/v1/checkpoints/before/restore"))["different"] == []
    assert truths_of(running.lab) == truths
    assert (await ask.get("/v1/faults"))["faults"] == []
    assert [one["name"] for one in (await ask.get("/v1/checkpoints"))["checkpoints"]] == ["start", "before"]
    assert (await ask.delete("/v1/checkpoints/before"))["deleted"] == "before"
    assert (await ask("POST", "/v1/checkpoints/before/restore", {})).status == 404
    assert (await ask("DELETE", "/v1/checkpoints/before")).status == 404
    assert (await ask("DELETE", "/v1/checkpoints/start")).status == 400


async def test_readers_during_a_reset_wait_and_find_the_lab_whole(ask):
    paths = ("/v1/status", "/v1/inspect", f"/v1/phones/{PHONE}", f"{NODE}/certificates", "/v1/events", "/v1/logs")
    for _ in range(3):
        reset = asyncio.create_task(ask.post("/v1/reset"))
        while not reset.done():
            await asyncio.gather(*(ask.get(path) for path in paths))
        await reset


async def test_a_change_goes_on_when_the_one_who_asked_goes_away(ask, running, monkeypatch):
    began, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_phone):
        began.set()
        await go_on.wait()
        ended.set()

    with monkeypatch.context() as patched:
        patched.setattr(type(running.lab.phone(PHONE)), "power_off", slow)
        asked = asyncio.create_task(ask.post(f"/v1/phones/{PHONE}/power-off"))
        await began.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        go_on.set()
        async with asyncio.timeout(30):
            await ended.wait()


async def test_the_end_is_announced_and_comes(ask, running):
    reply = await ask("POST", "/v1/shutdown", {})
    assert reply.status == 202
    async with asyncio.timeout(10):
        await running.ended.wait()
