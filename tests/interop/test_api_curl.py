"""The API of a running lab, spoken to with curl."""

from __future__ import annotations

import asyncio
import json

import pytest
from api_on_sockets import make_running, serving
from lab_on_sockets import PHONE, network_of

from lab.api.socket import SOCKET_NAME

pytestmark = pytest.mark.needs("curl")


@pytest.fixture
async def served(tmp_path, loopback):
    running = make_running(tmp_path / "lab", network_of(loopback))
    async with serving(running) as server:
        running.url = server.urls[0]
        yield running


@pytest.fixture(params=["Unix socket", "TCP"])
def curl(request, tmp_path, served):
    by_socket = ("--unix-socket", tmp_path / "lab" / SOCKET_NAME) if request.param == "Unix socket" else ()
    base = "http://lab" if by_socket else served.url

    async def run(path: str, *words: str) -> tuple[int, str, bytes]:
        """HTTP status, content type and body."""
        process = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--path-as-is"),
            *(*by_socket, "--write-out", "%{stderr}%{http_code} %{content_type}"),
            *(*words, f"{base}{path}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        body, told = await process.communicate()
        assert process.returncode == 0, told
        status, _, content_type = told.decode().partition(" ")
        return int(status), content_type, body

    return run


async def test_an_operation_and_the_truth_after_it(curl):
    body = json.dumps({"do": "boot-phone", "phone": PHONE})
    status, content_type, answer = await curl("/v1/operations", "--json", body)
    assert (status, content_type) == (200, "application/json; charset=utf-8")
    assert json.loads(answer)["do"] == "boot-phone"
    _, _, answer = await curl(f"/v1/truth/phones?phone={PHONE}")
    assert json.loads(answer)["phones"][PHONE]["registered"] == "source"


async def test_a_trust_list_comes_as_it_is_on_the_disk(curl, served):
    status, content_type, data = await curl("/v1/clusters/source/nodes/ucm105pub/files/CTLFile.tlv")
    assert (status, content_type) == (200, "application/octet-stream")
    assert data == served.lab.cluster("source").publisher.ctl_file.read_bytes()


async def test_a_problem_is_a_document(curl):
    status, content_type, answer = await curl("/v1/operations", "--json", '{"do": "nothing"}')
    assert (status, content_type) == (400, "application/problem+json; charset=utf-8")
    problem = json.loads(answer)
    assert (problem["status"], problem["title"]) == (400, "Usage error")
    assert "no operation 'nothing'" in problem["detail"]


async def test_a_stream_in_the_hands_of_a_shell(served):
    """`curl -N`: every event is there as soon as it happened, one line of JSON after `data: `."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--no-buffer", "--noproxy", "*", f"{served.url}/v1/events/stream?kind=phone.*"),
        stdout=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    assert process.stdout is not None
    kinds: list[str] = []
    async with asyncio.timeout(60):
        while "phone.registered" not in kinds:
            line = (await process.stdout.readline()).decode()
            if line.startswith("event: snapshot"):
                booting = asyncio.create_task(served.lab.phone(PHONE).boot())
            kinds += [json.loads(line[6:]).get("kind", "snapshot")] if line.startswith("data: ") else []
        await booting
    process.terminate()
    await process.communicate()
    assert kinds[0] == "snapshot"
    assert all(kind.startswith("phone.") for kind in kinds[1:])


@pytest.mark.parametrize("curl", ["TCP"], indirect=True)
async def test_what_a_page_of_another_site_would_send(curl, served):
    form = ("--data", '{"name": "x"}')
    for words in (
        ("--header", "Origin: https://evil.example", *form, "--header", "Content-Type: application/json"),
        ("--header", "Origin: null", "--json", '{"name": "x"}'),
        ("--header", "Host: evil.example", "--json", '{"name": "x"}'),
        form,
    ):
        status, kind, _ = await curl("/v1/checkpoints", *words)
        assert status in (403, 415), words
        assert kind.startswith("application/problem+json")
    assert [one.name for one in served.checkpoints()] == ["start"]


@pytest.mark.parametrize("path", ["/v1/../../etc/passwd", "/v1/logs/../../etc/passwd", "/v1/clusters/..%2f..%2fetc"])
async def test_paths_that_lead_outside(curl, path):
    assert (await curl(path))[0] == 404


async def test_a_fault_and_waiting_for_it(curl):
    rule = {"id": "f", "point": "tvs.response", "action": "drop"}
    assert (await curl("/v1/faults", "--json", json.dumps(rule)))[0] == 201
    assert (await curl("/v1/faults", "--json", json.dumps(rule)))[0] == 409
    status, _, answer = await curl("/v1/wait", "--json", '{"for": "faults.f.hits == `0`", "timeout_s": 5}')
    assert (status, json.loads(answer)["value"]) == (200, True)
    assert (await curl("/v1/wait", "--json", '{"for": "faults.f.hits", "timeout_s": 0}'))[0] == 408
    assert (await curl("/v1/faults/f", "--request", "DELETE"))[0] == 200
