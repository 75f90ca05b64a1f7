from __future__ import annotations

import asyncio

import pytest
from api_on_sockets import asking, listening, make_running, serving
from lab_on_sockets import PHONE, network_of

from cucm.events.running import LabEnded
from lab.api import streams

LOUD = LabEnded("x" * 100_000)


@pytest.fixture
async def running(tmp_path, loopback):
    running = make_running(tmp_path / "lab", network_of(loopback), events=2000)
    async with serving(running) as server:
        running.url = server.urls[0]
        running.server = server
        yield running


@pytest.fixture
async def ask(running):
    async with asking(running.url) as ask:
        yield ask


async def test_pages_tell_all_that_is_kept_in_order_and_once(ask, running):
    await ask.perform("boot-phone", phone=PHONE)
    found, after = [], {}
    while (page := await ask.get("/v1/events", limit="7", **after))["events"]:
        assert len(page["events"]) <= 7
        assert not page["gap"]
        found += page["events"]
        after = {"after": page["next"]}
    assert [one["sequence"] for one in found] == list(range(1, len(running.lab.events) + 1))
    assert found == [record.as_json() for record in running.lab.events]
    assert page["next"] == f"{running.run_id}-{len(found)}"


async def test_pages_of_one_kind_and_source(ask, running):
    await ask.perform("boot-phone", phone=PHONE)
    page = await ask.get("/v1/events", kind="phone.*", source=f"phone:{PHONE}", limit="1000")
    assert page["events"]
    assert all(one["kind"].startswith("phone.") for one in page["events"])
    assert {one["source"] for one in page["events"]} == {f"phone:{PHONE}"}
    none = await ask.get("/v1/events", kind="nothing.*")
    assert none["events"] == []
    assert none["next"] == f"{running.run_id}-{running.lab.events.last_sequence}"


@pytest.mark.parametrize("after", ["x", "-", "1-x", "1-²", "a-" + "9" * 40, "", "-1-"])
async def test_a_place_that_is_none(ask, after):
    reply = await ask("GET", "/v1/events", after=after)
    assert reply.status == 400
    assert "id" in reply.json["detail"]


@pytest.mark.parametrize("query", [{"limit": "x"}, {"limit": "-1"}, {"limit": "1e9"}, {"lim": "1"}])
async def test_wrong_words_about_a_page(ask, query):
    assert (await ask("GET", "/v1/events", **query)).status == 400


async def test_another_runs_place_and_one_that_is_kept_no_more_are_told_as_a_gap(ask, running):
    assert (await ask.get("/v1/events", after="0123456789abcdef-5"))["gap"] is True
    for _ in range(2500):
        running.lab.events.emit("test:x", LabEnded("y"))
    page = await ask.get("/v1/events", after=f"{running.run_id}-1", limit="1")
    assert page["gap"] is True
    assert page["events"][0]["sequence"] == running.lab.events.first_sequence
    assert (await ask.get("/v1/events", after=f"{running.run_id}-{running.lab.events.last_sequence}"))["gap"] is False


async def test_a_stream_begins_with_the_whole_lab_and_goes_on_with_what_comes(ask, running):
    async with listening(ask, "/v1/events/stream") as stream:
        first = await stream.next()
        assert first.kind == "snapshot"
        assert first.json["phones"][PHONE]["state"] == "off"
        assert first.id == f"{running.run_id}-{running.lab.events.last_sequence}"
        boot = asyncio.create_task(ask.perform("boot-phone", phone=PHONE))
        seen = [await stream.next()]
        while seen[-1].kind != "phone.registered":
            seen.append(await stream.next())
        await boot
    began = int(first.id.rpartition("-")[2])
    assert [message.id for message in seen] == [f"{running.run_id}-{began + 1 + n}" for n in range(len(seen))]
    records = {record.sequence: record for record in running.lab.events}
    for message in seen:
        assert message.json == records[message.json["sequence"]].as_json()
        assert message.kind == message.json["kind"]


async def test_who_comes_back_gets_what_he_missed_and_no_snapshot(ask, running):
    async with listening(ask, "/v1/events/stream") as stream:
        last = (await stream.next()).id
    await ask.perform("boot-phone", phone=PHONE)
    for words in ({"last_id": last}, {"after": last}):
        async with listening(ask, "/v1/events/stream", **words) as stream:
            first = await stream.next()
            assert first.json["sequence"] == int(last.rpartition("-")[2]) + 1
            await stream.until("phone.registered")


@pytest.mark.parametrize("run", ["own", "0123456789abcdef"])
async def test_who_comes_back_too_late_is_told_of_the_gap(ask, running, run):
    for _ in range(2500):
        running.lab.events.emit("test:x", LabEnded("y"))
    last = f"{running.run_id if run == 'own' else run}-3"
    async with listening(ask, "/v1/events/stream", last_id=last) as stream:
        assert (await stream.next()).kind == "gap"
        snapshot = await stream.next()
        assert snapshot.kind == "snapshot"
        running.lab.events.emit("test:x", LabEnded("z"))
        following = await stream.next()
        assert int(following.id.rpartition("-")[2]) == int(snapshot.id.rpartition("-")[2]) + 1


async def test_a_wrong_last_id_is_a_problem_document(ask):
    reply = await ask("GET", "/v1/events/stream", headers={"Last-Event-ID": "nonsense"})
    assert reply.status == 400


async def test_a_filtered_stream_keeps_its_place_by_heartbeats(ask, running, monkeypatch):
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)
    async with listening(ask, "/v1/events/stream", kind="lab.checkpointed") as stream:
        snapshot = await stream.next()
        running.lab.events.emit("test:x", LabEnded("y"))
        await running.checkpoint("here")
        assert (await stream.next()).kind == "lab.checkpointed"
        running.lab.events.emit("test:x", LabEnded("y"))
        place = f"{running.run_id}-{running.lab.events.last_sequence}"
        reading = asyncio.create_task(stream.next())
        async with asyncio.timeout(30):
            while stream.last_id != place:
                await asyncio.sleep(0)
        assert stream.comments
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert snapshot.id != place


async def test_events_go_on_over_a_reset(ask, running):
    async with listening(ask, "/v1/events/stream") as stream:
        await stream.next()
        await ask.post("/v1/reset")
        assert (await stream.until("lab.restoring")).json["kind"] == "lab.restoring"
        await stream.until("lab.restored")


async def status_of_a_stream(ask):
    async with ask.session.get(f"{ask.url}/v1/events/stream") as response:
        return response.status


async def test_too_many_readers_are_refused_until_one_goes(ask, running, monkeypatch):
    monkeypatch.setattr(streams, "MAX_STREAMS", 2)
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)
    async with listening(ask, "/v1/events/stream") as first, listening(ask, "/v1/events/stream") as second:
        await first.next()
        await second.next()
        refused = await ask("GET", "/v1/events/stream")
        assert (refused.status, refused.json["exit_code"]) == (503, 3)
    async with asyncio.timeout(30):
        while await status_of_a_stream(ask) != 200:
            await asyncio.sleep(0)


async def test_a_reader_that_reads_nothing_is_cut_off_and_costs_no_memory(running, monkeypatch):
    monkeypatch.setattr(streams, "WRITE_TIMEOUT_S", 0.2)
    host, _, port = running.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET /v1/events/stream HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    await writer.drain()
    await asyncio.wait_for(reader.readline(), 30)
    for _ in range(200):
        running.lab.events.emit("test:x", LOUD)
    async with asyncio.timeout(30):
        while len(running.server.streams):  # nobody reads
            await asyncio.sleep(0)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_the_end_of_the_lab_is_told_and_ends_the_stream(ask, running):
    async with listening(ask, "/v1/events/stream") as stream:
        await stream.next()
        running.shutdown("enough")
        ending = asyncio.create_task(running.server.stop())
        assert (await stream.until("lab.ended")).json["why"] == "enough"
        assert await stream.next() is None
        async with asyncio.timeout(10):
            await ending


async def test_a_record_is_one_line_whatever_it_holds(ask, running):
    async with listening(ask, "/v1/events/stream") as stream:
        await stream.next()
        text = "one\ntwo\r\n\r\ndata: three\u2028\x00"
        running.lab.events.emit("test:x", LabEnded(text))
        message = await stream.next()
        assert message.json["why"] == text
