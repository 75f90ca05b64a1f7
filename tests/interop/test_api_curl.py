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


@pytest.fixture
def curl(tmp_path, served):
    async def run(path: str, *words: str) -> tuple[int, str, bytes]:
        """HTTP status, content type and body."""
        process = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--show-error", "--max-time", "60"),
            *("--unix-socket", tmp_path / "lab" / SOCKET_NAME, "--write-out", "%{stderr}%{http_code} %{content_type}"),
            *(*words, f"http://lab{path}"),
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
