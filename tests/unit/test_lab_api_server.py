from __future__ import annotations

import asyncio
import json
import os
import socket
import stat

import pytest
from api_on_sockets import make_running, serving
from lab_on_sockets import PHONE, network_of

from cucm.errors import AddressBusy, EnvironmentProblem, LabError, UsageError
from cucm.net.addresses import bind_tcp
from lab.api.client import ApiClient, cluster_and_node
from lab.api.problems import Problem
from lab.api.server import MAX_BODY, ApiServer
from lab.api.socket import SOCKET_NAME, socket_address
from lab.cli.op import lines as op_lines


@pytest.fixture
async def running(tmp_path, loopback):
    running = make_running(tmp_path / "lab", network_of(loopback))
    await running.start(phones=False)
    yield running
    await running.stop()


@pytest.fixture
def lab(running):
    return running.lab


@pytest.fixture
def folder(lab):
    return lab.options.directory


@pytest.fixture
async def served(running, folder):
    server = ApiServer(running)
    await server.start()
    yield folder
    await server.stop()


class Asking:
    """The client in a thread of its own, as it is another program."""

    def __init__(self, directory):
        self.client = ApiClient(directory)

    def __getattr__(self, name):
        call = getattr(self.client, name)
        return lambda *words, **named: asyncio.to_thread(call, *words, **named)


@pytest.fixture
def ask(served):
    return Asking(served)


async def raw(directory, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to bytes of ours."""
    with socket_address(directory) as address:
        reader, writer = await asyncio.open_unix_connection(address)
    writer.write(request)
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 10)
    writer.close()
    await writer.wait_closed()
    return int(head[0].split()[1]), headers, body


def post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_the_socket_is_the_users_alone_and_goes_with_the_server(running, folder):
    server = ApiServer(running)
    await server.start()
    mode = (folder / SOCKET_NAME).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    await server.stop()
    assert not (folder / SOCKET_NAME).exists()
    await server.stop()


async def test_a_socket_that_a_killed_lab_left_is_replaced(running, folder):
    with socket.socket(socket.AF_UNIX) as stale, socket_address(folder) as address:
        stale.bind(address)
    assert not await asyncio.to_thread(ApiClient(folder).is_running)
    server = ApiServer(running)
    await server.start()
    assert await Asking(folder).get("status")
    assert await asyncio.to_thread(ApiClient(folder).is_running)
    assert await Asking(folder).get("operations")  # the connection before is accepted: a stop now ends it
    await server.stop()


async def test_a_path_longer_than_a_socket_address(tmp_path, loopback):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.parent.mkdir()
    running = make_running(deep, network_of(loopback))
    async with serving(running):
        assert (await Asking(deep).get("status"))["title"] == running.lab.topology.title
        assert (deep / SOCKET_NAME).is_socket()


async def test_a_taken_port_is_told_and_nothing_is_left(running, folder):
    with bind_tcp(running.lab.address(1), 8480, backlog=1):
        with pytest.raises(AddressBusy, match="another program"):
            await ApiServer(running).start()
        assert not (folder / SOCKET_NAME).exists()
    server = ApiServer(running)
    await server.start()
    await server.stop()


def test_a_long_path_costs_no_descriptor(tmp_path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with socket_address(deep) as address:
        assert len(address) <= 107
        descriptor = int(address.split("/")[4])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


async def test_where_no_socket_can_be_made(running, folder):
    (folder / SOCKET_NAME).mkdir()
    with pytest.raises(EnvironmentProblem, match="control socket cannot be made"):
        await ApiServer(running).start()
    (folder / SOCKET_NAME).rmdir()
    with bind_tcp(running.lab.address(1), 8480, backlog=1):
        pass  # the port is free again


async def test_an_operation_is_performed_and_its_timeline_told(ask, lab):
    done = await ask.perform({"do": "boot-phone", "phone": PHONE})
    assert done["schema"] == 1
    assert done["do"] == "boot-phone"
    assert done["says"].startswith("power on")
    texts = [line["text"] for line in done["timeline"]]
    assert texts[0].startswith("power on")
    assert any("REGISTERED with ucm105pub" in text for text in texts)
    assert "phone:" + PHONE in {line["source"] for line in done["timeline"]}
    assert PHONE in lab.cluster("source").registered_devices


async def test_lines_left_out_of_a_long_timeline_are_counted(ask, monkeypatch):
    whole = await ask.perform({"do": "boot-phone", "phone": PHONE})
    assert whole["left_out"] == 0
    monkeypatch.setattr("lab.api.operation_resources.MAX_TOLD", 3)
    cut = await ask.perform({"do": "reset-phone", "phone": PHONE})
    assert len(cut["timeline"]) == 3
    assert "REGISTERED" in cut["timeline"][-1]["text"], "the newest are kept"
    assert cut["left_out"] > 3
    printed = op_lines(cut)
    assert printed[:2] == [cut["says"], f"... {cut['left_out']} lines left out: `cucm-lab events` has them"]


async def test_a_node_without_a_console_is_told_what_it_has(ask):
    await ask.perform({"do": "boot-phone", "phone": PHONE})
    with pytest.raises(Problem, match="ucm105pub has no log as console") as refused:
        await ask.get("logs", "ucm105pub", **{"as": "console"})
    assert "callmanager-ucm105pub" in (refused.value.mend or "")


async def test_what_the_emulated_system_refuses_is_a_conflict(ask):
    await ask.perform({"do": "boot-phone", "phone": PHONE})
    with pytest.raises(Problem) as refused:
        await ask.perform({"do": "boot-phone", "phone": PHONE})
    assert (refused.value.status, refused.value.exit_code) == (409, 1)
    assert "registered" in refused.value.what


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "its name in `do`"),
        (b"[1]", "no JSON object"),
        (b"\xff", "no text in UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b"{}", "its name in `do`"),
        (b'{"do": "bot-phone"}', "there is no operation 'bot-phone'"),
        (b'{"do": "boot-phone", "phone": "SEP1", "x": 1}', "no such field"),
        (b'{"do": "boot-phone", "phone": "SEP000000000000"}', "no phone"),
    ],
)
async def test_wrong_operations_are_bad_requests_as_problem_documents(served, body, text):
    status, headers, answer = await raw(served, post("/v1/operations", body))
    problem = json.loads(answer)
    assert status == problem["status"] == 400
    assert headers["content-type"].startswith("application/problem+json")
    assert problem["type"] == "urn:cucm-lab:problem:usage-error"
    assert problem["exit_code"] == 2
    assert text in problem["detail"]


async def test_operations_wait_for_each_other(ask, lab):
    """There is one administrator: two boots of one phone cannot run into one another."""
    results = await asyncio.gather(
        *(ask.perform({"do": "reset-phone", "phone": PHONE}) for _ in range(3)), return_exceptions=True
    )
    assert [isinstance(one, dict) for one in results] == [True] * 3
    told = [line["text"] for one in results for line in one["timeline"]]
    assert sum(text.startswith("reset") for text in told) == 3


async def test_reading_goes_on_while_an_operation_is_performed(served, lab, monkeypatch):
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_phone):
        began.set()
        await go_on.wait()

    monkeypatch.setattr(type(lab.phone(PHONE)), "power_off", slow)
    operation = asyncio.create_task(Asking(served).perform({"do": "power-off-phone", "phone": PHONE}))
    await began.wait()
    assert (await Asking(served).get("status"))["clusters"]
    assert not operation.done()
    go_on.set()
    assert (await operation)["do"] == "power-off-phone"
    monkeypatch.undo()


async def test_too_many_waiting_operations_are_refused(served, lab, monkeypatch):
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_phone):
        began.set()
        await go_on.wait()

    monkeypatch.setattr("lab.api.operation_resources.MAX_WAITING", 1)
    monkeypatch.setattr(type(lab.phone(PHONE)), "power_off", slow)
    operation = asyncio.create_task(Asking(served).perform({"do": "power-off-phone", "phone": PHONE}))
    await began.wait()
    with pytest.raises(Problem, match="waiting already") as busy:
        await Asking(served).perform({"do": "power-off-phone", "phone": PHONE})
    assert (busy.value.status, busy.value.exit_code) == (503, 3)
    go_on.set()
    await operation
    monkeypatch.undo()


async def test_too_large_a_body(served):
    status, _, answer = await raw(served, post("/v1/sql", b" " * (MAX_BODY + 1)))
    assert status == 413
    assert json.loads(answer)["exit_code"] == 2


@pytest.mark.parametrize(
    ("request_line", "status", "text"),
    [
        ("GET /v1/nothing", 404, "no such resource"),
        ("GET /", 404, "no such resource"),
        ("DELETE /v1/status", 405, "DELETE is not for this resource"),
        ("GET /v1/clusters/x/certificates", 404, "no cluster 'x'"),
        ("GET /v1/clusters/source/nodes/x/certificates", 404, "no node 'x'"),
        ("GET /v1/clusters/source/nodes/ucm105pub/files/..%2Fnode.db", 404, "not the name of a file"),
        ("GET /v1/clusters/source/nodes/ucm105pub/files/%2Fetc%2Fpasswd", 404, "not the name of a file"),
        ("GET /v1/phones/SEP1/screens", 404, "no phone 'SEP1'"),
        ("GET /v1/truth/phones?phone=SEP1", 404, "no phone 'SEP1'"),
        ("GET /v1/clusters/source/certificates?unit=nothing", 400, "no certificate unit"),
    ],
)
async def test_what_is_not_there(served, request_line, status, text):
    got, headers, answer = await raw(served, f"{request_line} HTTP/1.1\r\nHost: lab\r\n\r\n".encode())
    assert got == status
    assert text in json.loads(answer)["detail"]
    assert headers["content-type"].startswith("application/problem+json")
    assert status != 405 or "GET" in headers["allow"]


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /v1/{long}",
        "POST /v1/status/{long}",
        "GET /v1/clusters/{long}/certificates",
        "GET /v1/clusters/source/nodes/{long}/certificates",
        "GET /v1/clusters/source/nodes/ucm105pub/files/{long}",
        "GET /v1/phones/{long}/screens",
        "GET /v1/truth/phones?phone={long}",
        "GET /v1/status?{long}=1",
        "GET /v1/clusters/source/certificates?unit={long}",
        "GET /v1/faults/{long}",
        "DELETE /v1/faults/{long}",
        "DELETE /v1/checkpoints/{long}",
        "GET /v1/events?since={long}",
        "GET /v1/logs/{long}",
    ],
)
async def test_a_long_name_is_not_told_back_whole(served, request_line):
    words = request_line.format(long="x" * 5000)
    head = f"{words} HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\n\r\n"
    got, _, answer = await raw(served, head.encode())
    assert 400 <= got < 500
    assert len(answer) < 3000
    assert 0 < len(json.loads(answer)["where"]) <= 200


async def test_a_bug_is_told_as_one_and_the_server_goes_on(ask, served, monkeypatch, caplog):
    def broken(_lab):
        raise ZeroDivisionError("broken")

    monkeypatch.setattr("lab.api.lab_resources.status_of", broken)
    with pytest.raises(Problem, match="internal error: ZeroDivisionError: broken") as bug:
        await ask.get("status")
    assert bug.value.exit_code == 1
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    assert await ask.get("status")


async def test_the_database_of_a_machine_that_is_down_neither_answers_nor_takes(ask):
    await ask.perform({"do": "crash-node", "cluster": "destination"})
    for more in ({"sql": "select 1"}, {"sql": "delete from device", "write": True}):
        with pytest.raises(LabError, match="ucm11pub is down"):
            await ask.post("sql", body={"cluster": "destination", **more})
    for page in (("certificates",), ("stores",), ("files", "CTLFile.tlv"), ("files", "SEPB000B4BA0AEE.cnf.xml")):
        with pytest.raises(LabError, match="ucm11pub is down"):
            await ask.get("clusters", "destination", "nodes", "ucm11pub", *page)
    with pytest.raises(LabError, match="ucm11pub is down"):
        await ask.get("clusters", "destination", "certificates")
    await ask.perform({"do": "start-node", "cluster": "destination"})
    answer = await ask.post("sql", body={"cluster": "destination", "sql": "select count(*) from device"})
    assert answer["rows"] == [[1]]


async def test_sql_reads_the_publisher_or_a_node(ask):
    sql = "select name from processnode"
    for node in (None, "ucm105pub"):
        answer = await ask.post("sql", body={"cluster": "source", "node": node, "sql": sql})
        assert answer["columns"] == ["name"]
        assert ["ucm105pub"] in answer["rows"]
    blob = await ask.post("sql", body={"cluster": "source", "sql": "select x'00ff' as b, null as n"})
    assert blob["rows"] == [["00ff", None]]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"cluster": "source", "sql": "delete from device"}, "cannot be run"),
        ({"cluster": "source"}, "sql: is missing"),
        ({"cluster": 1, "sql": "select 1"}, "cluster: is no text"),
        ({"cluster": "source", "sql": "select 1", "write": "yes"}, "write: is neither true nor false"),
        ({"cluster": "nowhere", "sql": "select 1"}, "no cluster"),
    ],
)
async def test_wrong_queries(ask, body, text):
    with pytest.raises(Problem, match=text) as refused:
        await ask.post("sql", body=body)
    assert refused.value.exit_code == 2


async def test_writing_by_hand_is_seen_by_the_cluster(ask, lab):
    sql = "update processconfig set paramvalue='1' where paramname='ClusterSecurityMode'"
    answer = await ask.post("sql", body={"cluster": "source", "sql": sql, "write": True})
    assert answer["changed"] == 1
    with pytest.raises(Problem) as refused:
        await ask.post("sql", body={"cluster": "source", "sql": "drop table device", "write": True})
    assert refused.value.exit_code == 2


async def test_truth_of_all_and_of_one_phone(ask):
    await ask.perform({"do": "boot-phone", "phone": PHONE})
    everything = await ask.get("truth", "phones")
    one = await ask.get("truth", "phones", phone=PHONE)
    assert everything == one
    truth = one["phones"][PHONE]
    assert (truth["registered"], truth["node"], truth["ctl"]) == ("source", "ucm105pub", "source")


async def test_files_and_certificates_of_a_node(ask, lab):
    node = lab.cluster("source").publisher
    file = await ask.get_file("clusters", "source", "nodes", node.name, "files", "CTLFile.tlv")
    assert file.data == node.ctl_file.read_bytes()
    assert file.modified_at == int(node.ctl_file.stat().st_mtime)
    node.ctl_file.unlink()
    with pytest.raises(Problem) as missing:
        await ask.get_file("clusters", "source", "nodes", node.name, "files", "CTLFile.tlv")
    assert missing.value.kind == "no-file"
    answer = await ask.get("clusters", "source", "certificates", unit="callmanager")
    assert answer["node"] == node.name
    assert [one["unit"] for one in answer["certificates"]] == ["CallManager"]
    whole = await ask.get("clusters", "source", "nodes", node.name, "certificates")
    assert {"CallManager", "TVS", "CAPF", "tomcat"} <= {one["unit"] for one in whole["certificates"]}


async def test_operations_are_listed(ask):
    kinds = {kind["name"]: kind for kind in (await ask.get("operations"))["operations"]}
    assert "boot-phone" in kinds
    assert any(field["name"] == "stores" for field in kinds["upload-certificate"]["fields"])


def test_no_lab_runs_here(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(EnvironmentProblem, match="no lab is running here") as problem:
            ApiClient(directory).get("status")
        assert str(directory) in (problem.value.mend or "")
        assert not ApiClient(directory).is_running()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"nonsense\r\n\r\n", "cannot be asked"),
        (b"", "cannot be asked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no JSON object"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno", "HTTP status 500"),
        (b"HTTP/1.1 499 Odd\r\nContent-Length: 2\r\n\r\n{}", "HTTP status 499"),
    ],
)
async def test_a_strangers_socket(tmp_path, answer, text):
    async def reply(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(reply, str(tmp_path / SOCKET_NAME))
    with pytest.raises(LabError, match=text):
        await Asking(tmp_path).get("status")
    server.close()
    await server.wait_closed()


def test_clusters_and_nodes_in_words():
    assert cluster_and_node("source") == ("source", None)
    assert cluster_and_node("source/ucm105pub") == ("source", "ucm105pub")
    for wrong in ("", "a/b/c", "a/", "/b"):
        with pytest.raises(UsageError):
            cluster_and_node(wrong)


async def test_the_client_reads_a_stream_and_ends_it(ask, served, lab):
    def read() -> list[tuple[str, str]]:
        seen = []
        with ApiClient(served).stream("events", "stream", kind="phone.*") as events:
            for event in events:
                seen.append((event.kind, event.event_id))
                if event.kind == "phone.registered":
                    break
        return seen

    reading = asyncio.create_task(asyncio.to_thread(read))
    while not reading.done():
        await ask.post("phones", PHONE, "reset" if lab.phone(PHONE).registered_with else "boot", body={})
    seen = await reading
    assert seen[0][0] == "snapshot"
    assert all(kind.startswith("phone.") for kind, _ in seen[1:])


async def test_the_client_tells_of_a_refused_stream_and_of_a_lab_that_ended(served, tmp_path):
    def read(directory, *path):
        with ApiClient(directory).stream(*path) as events:
            return list(events)

    with pytest.raises(Problem, match="there is no log"):
        await asyncio.to_thread(read, served, "logs", "nobody", "stream")
    with pytest.raises(EnvironmentProblem, match="no lab is running here"):
        await asyncio.to_thread(read, tmp_path / "nowhere", "events", "stream")


async def test_the_client_deletes(ask):
    await ask.post("faults", body={"id": "f", "point": "tvs.response", "action": "drop"})
    assert (await ask.delete("faults", "f"))["fault"]["id"] == "f"
    with pytest.raises(Problem) as missing:
        await ask.delete("faults", "f")
    assert (missing.value.status, missing.value.exit_code) == (404, 2)


async def test_a_condition_that_is_not_true_comes_with_its_value(ask):
    with pytest.raises(Problem) as late:
        await ask.post("wait", body={"for": "checkpoints[?@=='x']", "timeout_s": 0})
    assert (late.value.kind, late.value.exit_code, late.value.more) == ("not-true", 1, {"value": []})


async def test_heartbeats_are_no_events(tmp_path):
    async def reply(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n: here\n\n: here\nid: r-7\n\nid: r-8\nevent: x\ndata: one\ndata: two\n\n")
        writer.close()

    def read():
        with ApiClient(tmp_path).stream("events", "stream") as events:
            return list(events)

    server = await asyncio.start_unix_server(reply, str(tmp_path / SOCKET_NAME))
    assert await asyncio.to_thread(read) == [("r-8", "x", "one\ntwo")]
    server.close()
    await server.wait_closed()


async def test_a_stream_of_which_a_line_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.api.client.MAX_EVENT", 100)

    async def reply(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\ndata: " + b"x" * 1000)
        writer.close()

    def read():
        with ApiClient(tmp_path).stream("events", "stream") as events:
            return [next(events).data, next(events).data]

    server = await asyncio.start_unix_server(reply, str(tmp_path / SOCKET_NAME))
    with pytest.raises(LabError, match="more than 100 bytes"):
        await asyncio.to_thread(read)
    server.close()
    await server.wait_closed()
