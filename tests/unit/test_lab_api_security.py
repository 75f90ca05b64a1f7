"""What the API answers to those it is not for; with bytes of our own, as no client would send them."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import stat
import sys
import zlib
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from urllib.parse import quote

import pytest
from api_on_sockets import make_running, serving
from lab_on_sockets import network_of
from network_namespace import HERE, have_an_address, run_apart

from cucm.events.running import LabEnded
from lab.api import bodies, routes, security, server


@pytest.fixture
async def running(tmp_path, loopback):
    running = make_running(tmp_path / "lab", network_of(loopback))
    async with serving(running) as api:
        running.url = api.urls[0]
        running.server = api
        yield running


class Raw:
    """Requests as bytes, over TCP."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    async def __call__(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(30):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        return int(head[0].split()[1]), headers, body

    async def ask(self, line: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        told = {"Host": self.authority} | {name.replace("_", "-"): value for name, value in headers.items()}
        if body:
            told["Content-Length"] = str(len(body))
        lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items() if value)]
        return await self("\r\n".join([*lines, "", ""]).encode() + body)


def raw_of(url: str) -> Raw:
    host, _, port = url.removeprefix("http://").partition(":")
    return Raw(host, int(port))


@pytest.fixture
def raw(running):
    return raw_of(running.url)


async def test_own_names_are_taken(raw):
    for host in (raw.authority, raw.authority.upper(), f"localhost:{raw.port}"):
        assert (await raw.ask("GET /v1/status", Host=host))[0] == 200, host


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8480", "127.0.0.1.evil.example", "[::1", "a b", "x" * 300, "localhost.:1"]
)
async def test_a_name_that_was_bound_to_our_address_is_refused(raw, host):
    """DNS rebinding: the page's own name in Host, our address behind it."""
    status, headers, body = await raw.ask("GET /v1/status", Host=host)
    assert status in (400, 403)
    assert headers["content-type"].startswith("application/problem+json") or status == 400
    assert b"clusters" not in body


async def test_no_host_at_all(raw):
    assert (await raw.ask("GET /v1/status", Host=""))[0] in (400, 403)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://", "file://"])
async def test_pages_of_others_are_refused(raw, running, origin):
    """A cross-site POST a browser sends without asking first: a form, or fetch with `no-cors`."""
    body = json.dumps({"name": "evil"}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
        status, _, _ = await raw.ask("POST /v1/checkpoints", body, Origin=origin, Content_Type=kind)
        assert status in (403, 415)
    assert (await raw.ask("GET /v1/status", Origin=origin))[0] == 403
    assert [one.name for one in running.checkpoints()] == ["start"]


async def test_a_page_of_our_own_is_served(raw):
    assert (await raw.ask("GET /v1/status", Origin=f"http://{raw.authority}"))[0] == 200


async def test_nobody_else_is_allowed_to_read(raw):
    for origin in (f"http://{raw.authority}", "https://evil.example"):
        _, headers, _ = await raw.ask("GET /v1/status", Origin=origin)
        assert not [name for name in headers if name.startswith("access-control-")]
    status, headers, _ = await raw.ask(
        "OPTIONS /v1/operations", Origin="https://evil.example", Access_Control_Request_Method="POST"
    )
    assert status in (403, 405)
    assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize("path", ["/v1/checkpoints", "/v1/reset", "/v1/shutdown"])
async def test_a_body_that_does_not_say_it_is_json(raw, running, kind, path):
    status, headers, body = await raw.ask(f"POST {path}", b'{"name": "x"}', Content_Type=kind)
    assert status == 415
    assert headers["content-type"].startswith("application/problem+json")
    assert json.loads(body)["exit_code"] == 2
    assert not running.ended.is_set()


@pytest.mark.parametrize("path", ["/v1/reset", "/v1/shutdown"])
async def test_a_post_without_a_body_needs_the_type_too(raw, running, path):
    """A page of another site can send it: an empty form has a type, and an empty fetch none."""
    for kind in ("", "application/x-www-form-urlencoded"):
        assert (await raw.ask(f"POST {path}", Content_Type=kind, Content_Length="0"))[0] == 415
    assert not running.ended.is_set()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b"\xff\xfe", b'{"name": NaN}', b"[" * 100_000, b'{"nam": "x"}']
)
async def test_wrong_json(raw, body):
    status, _, answer = await raw.ask(
        "POST /v1/checkpoints", body, Content_Type="application/json", Content_Length=str(len(body))
    )
    assert status == 400
    assert json.loads(answer)["mend"]


async def test_too_large_a_body_whatever_it_says_of_its_length(raw):
    body = b" " * (server.MAX_BODY + 1)
    status, _, answer = await raw.ask("POST /v1/sql", body, Content_Type="application/json")
    assert (status, json.loads(answer)["status"]) == (413, 413)
    chunk = b"%x\r\n%s\r\n" % (65536, b" " * 65536)
    head = f"POST /v1/sql HTTP/1.1\r\nHost: {raw.authority}\r\nContent-Type: application/json\r\n"
    whole = (
        head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (server.MAX_BODY // 65536 + 2) + b"0\r\n\r\n"
    )
    assert (await raw(whole))[0] == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_grows_when_unpacked(raw, encoding):
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](b" " * (64 * server.MAX_BODY))
    assert len(packed) < server.MAX_BODY
    status, _, _ = await raw.ask("POST /v1/sql", packed, Content_Type="application/json", Content_Encoding=encoding)
    assert status in (400, 413, 415)


async def test_too_long_a_line_or_header_and_too_many(raw):
    long = "x" * 100_000
    assert (await raw.ask(f"GET /v1/{long}"))[0] in (400, 414)
    assert (await raw.ask("GET /v1/status", X_Long=long))[0] in (400, 431)
    many = {f"X_{number}": "y" for number in range(2000)}
    assert (await raw.ask("GET /v1/status", **many))[0] in (400, 431)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/clusters/source/nodes/ucm105pub/files/..%2F..%2Fnode.db",
        "/v1/clusters/source/nodes/ucm105pub/files/..%2fsecurity%2FTVS.key",
        "/v1/clusters/source/nodes/ucm105pub/files/%2Fetc%2Fpasswd",
        "/v1/clusters/source/nodes/ucm105pub/files/..",
        "/v1/clusters/source/nodes/ucm105pub/files/%00",
        "/v1/clusters/source/nodes/../../../../token",
        "/v1/clusters/..%2F..%2Fx/nodes/x/files/x",
        "/v1/logs/..%2Fup.log",
        "/v1/logs/%2Fetc%2Fpasswd",
        "/v1/phones/SEPB000B4BA0AEE/flash/..%2F..%2Fmanifest.json",
        "/v1/phones/SEPB000B4BA0AEE/flash/mic",
        "/v1/phones/..%2F../screens",
        "/v1/faults/..%2F..",
    ],
)
async def test_no_name_from_the_wire_leads_to_a_file(raw, path):
    status, _, body = await raw.ask(f"GET {path}")
    assert status == 404
    assert b"PRIVATE" not in body
    assert b"SQLite" not in body


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", ".x", "a/b", "", "x" * 65, "a\u0000b", "ü", "x\n"])
async def test_names_of_checkpoints(raw, running, name):
    body = json.dumps({"name": name}).encode()
    assert (await raw.ask("POST /v1/checkpoints", body, Content_Type="application/json"))[0] == 400
    place = quote(name, safe="")
    if place and place != "..":
        assert (await raw.ask(f"DELETE /v1/checkpoints/{place}"))[0] in (400, 404)
        line = f"POST /v1/checkpoints/{place}/restore"
        assert (await raw.ask(line, b"{}", Content_Type="application/json"))[0] in (400, 404)
    assert [one.name for one in running.checkpoints()] == ["start"]


async def test_a_method_that_is_not_for_the_resource(raw):
    for line, allowed in (("DELETE /v1/status", "GET"), ("PUT /v1/operations", "POST"), ("POST /v1/events", "GET")):
        status, headers, _ = await raw.ask(line, b"{}", Content_Type="application/json")
        assert status == 405, line
        assert allowed in headers["allow"]


async def test_a_request_that_never_ends_loses_its_connection(running, raw, monkeypatch):
    """Slowloris: a head, byte by byte."""
    monkeypatch.setattr(server, "FIRST_REQUEST_S", 0.1)
    reader, writer = await asyncio.open_connection(raw.host, raw.port)
    writer.write(b"GET /v1/status HTTP/1.1\r\nHost: ")
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_body_that_never_comes(raw, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    head = (
        f"POST /v1/sql HTTP/1.1\r\nHost: {raw.authority}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    )
    assert (await raw(head.encode()))[0] == 408


async def test_a_long_answer_that_nobody_reads_is_given_up(running, raw, monkeypatch):
    for _ in range(100):
        running.lab.events.emit("test:x", LabEnded("x" * 100_000))
    with socket.socket() as reader, monkeypatch.context() as impatient:
        impatient.setattr(routes, "PIECE_S", 0.2)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, (raw.host, raw.port))
        head = f"GET /v1/events?limit=1000 HTTP/1.1\r\nHost: {raw.authority}\r\n\r\n"
        await loop.sock_sendall(reader, head.encode())
        async with asyncio.timeout(30):
            while not running.server.connections:
                await asyncio.sleep(0)
            while running.server.connections:
                await asyncio.sleep(0)
    status, _, body = await raw.ask("GET /v1/events?limit=1000")
    assert (status, len(json.loads(body)["events"]) > 100) == (200, True)


async def test_too_many_connections(running, raw, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    idle = [await asyncio.open_connection(raw.host, raw.port) for _ in range(3)]
    async with asyncio.timeout(30):
        while True:
            try:
                if (await raw.ask("GET /v1"))[0] == 503:
                    break
            except (ConnectionError, asyncio.IncompleteReadError):
                break
    for _, writer in idle:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in idle), return_exceptions=True)
    async with asyncio.timeout(30):
        while True:
            try:
                if (await raw.ask("GET /v1"))[0] == 200:
                    break
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0)


# --- other addresses


def free_port() -> int:
    """On all addresses, and none that the system gives to another's socket before the server has it."""
    first, last = ports_of_the_system()
    ports = [port for port in range(10_000, 65_536) if not first <= port <= last]
    ports = ports or list(range(20_000, 32_000))  # it gives all of them
    start = os.getpid() * 7 % len(ports)
    for port in ports[start:] + ports[:start]:
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("0.0.0.0", port))
            return port
    raise AssertionError("all ports are taken")


def ports_of_the_system() -> tuple[int, int]:
    """First and last of those that it gives to sockets which name none; a guess where it does not tell."""
    told = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first, last = told.read_text().split() if told.exists() else ("32000", "65535")
    return int(first), int(last)


async def one_address_exposed(directory: Path) -> None:
    have_an_address()
    await asked_from_elsewhere(directory, HERE)


async def all_addresses_exposed(directory: Path) -> None:
    have_an_address()
    await asked_from_elsewhere(directory, "0.0.0.0")


async def asked_from_elsewhere(directory: Path, exposed: str) -> None:
    running = make_running(directory / "lab", IPv4Network("127.0.11.0/24"))
    async with serving(running, port=free_port(), expose=(exposed,)) as api:
        here, elsewhere = raw_of(api.urls[0]), Raw(HERE, raw_of(api.urls[0]).port)
        token = (directory / "lab" / security.TOKEN_NAME).read_text().strip()
        await only_with_the_token(elsewhere, token)
        await no_door_to_pages_of_others(elsewhere, f"Bearer {token}")
        assert (await here.ask("GET /v1/status"))[0] == 200  # on this machine none is needed
        assert not running.ended.is_set()


async def only_with_the_token(raw: Raw, token: str) -> None:
    for wrong in ("", "Bearer", "Bearer x", f"Basic {token}", token, f"Bearer {token}x"):
        for line in ("GET /v1/status", "GET /v1/openapi.json", "GET /v1/events/stream", "GET /nothing"):
            status, headers, body = await raw.ask(line, Authorization=wrong)
            assert status == 401, (line, wrong)
            assert headers["www-authenticate"].startswith("Bearer")
            assert token.encode() not in body
        assert (await raw.ask("POST /v1/shutdown", b"{}", Content_Type="application/json"))[0] == 401
    no_text = f"GET /v1 HTTP/1.1\r\nHost: {raw.authority}\r\nAuthorization: Bearer ".encode() + b"\xff\r\n\r\n"
    assert (await raw(no_text))[0] == 401
    assert (await raw.ask("GET /v1/status", Authorization=f"Bearer {token}"))[0] == 200
    assert (await raw.ask("GET /v1/status", Authorization=f"bearer {token}"))[0] == 200


async def no_door_to_pages_of_others(raw: Raw, authorization: str) -> None:
    assert (await raw.ask("GET /v1", Authorization=authorization, Host="evil.example"))[0] == 403
    assert (await raw.ask("GET /v1", Authorization=authorization, Origin="https://evil.example"))[0] == 403


@pytest.mark.needs("unshare", "ip")
@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
@pytest.mark.parametrize("scene", [one_address_exposed, all_addresses_exposed])
def test_from_elsewhere_only_with_the_token(scene, tmp_path):
    run_apart(scene, tmp_path)


async def test_the_token_is_the_users_alone_and_goes_at_the_end(tmp_path, loopback):
    network, path = network_of(loopback), tmp_path / "lab" / security.TOKEN_NAME
    running = make_running(tmp_path / "lab", network)
    async with serving(running, port=free_port(), expose=("0.0.0.0",)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        first = path.read_text().strip()
        assert len(first) >= 32
        assert first not in str([record.as_json() for record in running.lab.events])
    assert not path.exists()
    async with serving(make_running(tmp_path / "lab", network), port=free_port(), expose=("0.0.0.0",)):
        assert path.read_text().strip() != first
    async with serving(make_running(tmp_path / "lab", network)):
        assert not path.exists()


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_an_image_of_a_foreign_page(raw, site):
    """It has no Origin, but a browser of today says where it is."""
    assert (await raw.ask("GET /v1/events/stream", Sec_Fetch_Site=site))[0] == 403
    assert (await raw.ask("GET /v1", Sec_Fetch_Site="none"))[0] == 200


async def test_an_operation_opens_no_file_that_a_request_names(raw, tmp_path):
    secret = tmp_path / "elsewhere.pem"
    secret.write_text("the content of a file elsewhere")
    fields = {"do": "upload-certificate-file", "cluster": "source", "stores": ["TVS-trust"]}
    for given in ({"pem": f"@{secret}"}, {"pem": str(secret)}, {"file": str(secret)}):
        body = json.dumps(fields | given).encode()
        status, _, answer = await raw.ask("POST /v1/operations", body, Content_Type="application/json")
        assert status == 400
        assert b"the content" not in answer
        assert b"No such file" not in answer
