"""The API of a running lab for tests: on its sockets, asked over TCP, every answer held against its description."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator

from lab.api.server import ApiServer
from lab.lab_folder import KeptClock
from lab.running_lab import RunningLab
from lab.runtime import Lab, LabOptions
from lab.topology import Topology, load_topology

DEADLINE_S = 30.0
JSON = "application/json"
PROBLEM = "application/problem+json"


def make_running(
    directory: Path, network: IPv4Network, topology: Topology | str = "two-clusters", **options: Any
) -> RunningLab:
    """Not started yet."""
    known = load_topology(topology) if isinstance(topology, str) else topology
    clock = KeptClock(directory / "clock.json")
    return RunningLab(Lab(known, LabOptions(directory, network, **options), clock=clock), clock)


@asynccontextmanager
async def serving(running: RunningLab, *, phones: bool = False, **options: Any) -> AsyncIterator[ApiServer]:
    """The lab is started, its phones are off unless they are wanted."""
    await running.start(phones=phones)
    try:
        server = ApiServer(running, **options)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
    finally:
        await running.stop()


@dataclass(frozen=True)
class Reply:
    status: int
    kind: str
    headers: dict[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Asking:
    """Asks the API at `url`, and holds every answer against the description that it serves."""

    def __init__(self, session: aiohttp.ClientSession, url: str, document: dict[str, Any]) -> None:
        self.session = session
        self.url = url
        self.document = document
        self._schemas = strict(document["components"]["schemas"])

    async def __call__(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, **query: str
    ) -> Reply:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = ({"Content-Type": JSON} if method == "POST" else {}) | (headers or {})
        async with asyncio.timeout(DEADLINE_S):
            async with self.session.request(
                method, f"{self.url}{path}", data=data, headers=sent, params=query
            ) as response:
                known = {name.lower(): value for name, value in response.headers.items()}
                reply = Reply(response.status, response.content_type, known, await response.read())
        self._check(method, path, reply)
        return reply

    async def get(self, path: str, **query: str) -> Any:
        return self._good(await self("GET", path, **query))

    async def post(self, path: str, body: Any = None) -> Any:
        return self._good(await self("POST", path, {} if body is None else body))

    async def delete(self, path: str) -> Any:
        return self._good(await self("DELETE", path))

    async def perform(self, do: str, **fields: Any) -> Any:
        return await self.post("/v1/operations", {"do": do} | fields)

    def _good(self, reply: Reply) -> Any:
        assert reply.status < 300, reply.data
        return reply.json if reply.kind == JSON else reply.data

    def _check(self, method: str, path: str, reply: Reply) -> None:
        if reply.status >= 400:
            assert reply.kind == PROBLEM, reply
            self.validate(reply.json, "Problem")
            assert reply.json["status"] == reply.status
            return
        responses = self.described(path)[method.lower()]["responses"]
        content = responses[str(reply.status)]["content"]
        assert reply.kind in content, (method, path, reply)
        if reply.kind == JSON:
            self.validate(reply.json, content[JSON]["schema"])

    def described(self, path: str) -> dict[str, Any]:
        """What the description says of a path; the one without places wins, as in the application."""
        paths = sorted(self.document["paths"], key=lambda one: one.count("{"))
        pattern = next(one for one in paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one), path))
        return dict(self.document["paths"][pattern])

    def validate(self, value: Any, schema: str | dict[str, Any]) -> None:
        known = {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema
        Draft202012Validator(known | {"components": {"schemas": self._schemas}}).validate(value)


def strict(schema: Any) -> Any:
    """The same, where nothing is allowed that is not described: an answer with a member too many is a stale schema."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(one) for name, one in schema.items()}
    is_open = schema.get("additionalProperties", False) or "exit_code" in schema.get("properties", {})
    if isinstance(schema.get("properties"), dict) and not is_open:
        closed["additionalProperties"] = False
    return closed


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Asking]:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/v1/openapi.json") as response:
            document = await response.json()
        yield Asking(session, url, document)


@dataclass(frozen=True)
class Message:
    """A server-sent event."""

    id: str
    kind: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Listening:
    """A stream of server-sent events, read as the standard has it (HTML, 9.2.6)."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""
        self.comments = 0

    async def next(self) -> Message | None:
        """None at the end."""
        kind, data = "", []
        async with asyncio.timeout(DEADLINE_S):
            while raw := await self.response.content.readline():
                name, _, value = raw.decode().rstrip("\n").partition(":")
                value = value.removeprefix(" ")
                match name:
                    case "id":
                        self.last_id = value
                    case "event":
                        kind = value
                    case "data":
                        data.append(value)
                    case "":
                        if raw != b"\n":
                            self.comments += 1
                        elif data:
                            return Message(self.last_id, kind, "\n".join(data))
                        else:
                            kind = ""
        return None

    async def until(self, kind: str) -> Message:
        while (message := await self.next()) is not None:
            if message.kind == kind:
                return message
        raise AssertionError(f"the stream ended before {kind}")


@asynccontextmanager
async def listening(ask: Asking, path: str, *, last_id: str | None = None, **query: str) -> AsyncIterator[Listening]:
    headers = {"Last-Event-ID": last_id} if last_id is not None else {}
    async with ask.session.get(f"{ask.url}{path}", params=query, headers=headers) as response:
        assert response.status == 200, await response.read()
        assert response.content_type == "text/event-stream"
        yield Listening(response)
