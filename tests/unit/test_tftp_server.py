"""Both services together: life cycle, the trace of a visit, and the program run alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cucm.clock import MovableClock
from cucm.errors import AddressBusy, EnvironmentProblem
from cucm.events import Event, EventLog, EventRecord
from cucm.events import files as events
from cucm.events.files import FileServerStarted, FileServerStopped, FileTransport
from cucm.render.tftp_trace import TftpTrace
from tftp_server.file_store import MappingStore
from tftp_server.http import encode_head
from tftp_server.server import FileServer


def bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    taken = socket.socket(socket.AF_INET, kind)
    try:
        taken.bind((address, port))
        if kind is socket.SOCK_STREAM:
            taken.listen()
    except OSError:
        taken.close()
        raise
    return taken


async def test_start_means_bound_and_stop_means_free(loopback: Callable[[], str]) -> None:
    log = EventLog()
    server = FileServer(loopback(), MappingStore({}), tftp_port=0, http_port=0, emit=log.emitter("tftp"))
    for _ in range(2):
        await server.start()
        for kind, port in ((socket.SOCK_DGRAM, server.tftp_port), (socket.SOCK_STREAM, server.http_port)):
            with pytest.raises(OSError):
                bound(kind, server.address, port).close()
        assert server.transfers == 0
        await server.stop()
        bound(socket.SOCK_DGRAM, server.address, server.tftp_port).close()
        bound(socket.SOCK_STREAM, server.address, server.http_port).close()
    await server.stop()
    assert [type(record.event) for record in log] == [FileServerStarted, FileServerStopped] * 2


async def test_a_taken_http_port_leaves_nothing_bound(loopback: Callable[[], str]) -> None:
    address = loopback()
    taken = bound(socket.SOCK_STREAM, address, 0)
    server = FileServer(address, MappingStore({}), tftp_port=0, http_port=taken.getsockname()[1])
    with taken, pytest.raises(AddressBusy) as caught:
        await server.start()
    assert caught.value.mend
    bound(socket.SOCK_DGRAM, address, server.tftp_port).close()


async def test_a_taken_tftp_port_and_an_address_of_others(loopback: Callable[[], str]) -> None:
    address = loopback()
    taken = bound(socket.SOCK_DGRAM, address, 0)
    with taken, pytest.raises(AddressBusy):
        await FileServer(address, MappingStore({}), tftp_port=taken.getsockname()[1], http_port=0).start()
    with pytest.raises(EnvironmentProblem):
        await FileServer("192.0.2.1", MappingStore({}), tftp_port=0, http_port=0).start()


# -- trace ----------------------------------------------------------------------------------------------------------

PHONE = (FileTransport.HTTP, "192.168.11.100", 50000, "CTLSEP2834A2823B58.tlv")


def trace(*told: Event) -> list[str]:
    log = EventLog(MovableClock(1418538512.110, frozen=True))
    renderer = TftpTrace()
    return [line for event in told for line in renderer.lines(log.emit("tftp:ucm11pub", event))]


def test_the_published_request_line_and_search() -> None:
    request = b"GET /CTLSEP2834A2823B58.tlv HTTP/1.1\r\nHost:198.51.100.0:6970\r\n\r\n"
    prefix = "|06:28:32.110 |AppInfo  |   "
    assert trace(events.FileRequested(*PHONE, request), events.FileNotFound(*PHONE, "no such device")) == [
        f"00000001.000 {prefix}HTTPConnection::wait_SdlDataInd Printing the HTTPRequest : msgBuffer size [64] --: "
        "GET /CTLSEP2834A2823B58.tlv HTTP/1.1 Host:198.51.100.0:6970",
        f"00000001.001 {prefix}HandleCTL: [CTLSEP2834A2823B58.tlv] is CTLSEPMac.tlv file, Searching[2834A2823B58]",
        f"00000001.002 {prefix}TFTPCache::FindMatching(SEP2834A2823B58)",
        f"00000002.000 {prefix}[CTLSEP2834A2823B58.tlv] Not found locally",
        f"00000002.001 {prefix}File Not Found - 404 - Failure",
    ]


def texts(*told: Event) -> list[str]:
    return [line.split("|   ", 1)[1] for line in trace(*told)]


def test_headers_are_traced_as_they_are_sent() -> None:
    lines = texts(events.FileServed(*PHONE, 8003, "00"))
    assert "\r\n".join(lines[:4]).encode() + b"\r\n\r\n" == encode_head(200, 8003)


def test_published_texts_of_misses() -> None:
    refused = events.FileRefused(*PHONE, events.RefusalReason.BUSY, 503, "")
    assert texts(refused) == ["Requested file is Busy... Sending 503 response"]
    missing = events.FileNotFound(FileTransport.TFTP, "127.0.0.1", 1, "SEP2834A2823B58.cnf.xml.sgn", "")
    assert texts(missing)[1:] == ["Unable to find device in DB = sep2834a2823b58", "TFTP error 1 File not found"]


def test_every_file_event_has_lines_and_others_have_none() -> None:
    who = (FileTransport.TFTP, "127.0.0.1", 4, "a")
    told: list[Event] = [
        FileServerStarted("127.0.0.1", 69, 6970, 1),
        FileServerStopped("127.0.0.1"),
        events.FileRequested(*who, b"", ("blksize=1428",)),
        events.FileServed(*who, 1, "00", 3),
        events.FileRefused(*who, events.RefusalReason.MODE, None, "mail"),
        events.TransferRetransmitted(*who, 1, 2),
        events.TransferFailed(*who, events.FailureReason.SILENCE, "gone", 0),
        events.TransferIntruded(*who, "127.0.0.2", 9),
    ]
    assert all(texts(event) for event in told)
    assert texts(Event()) == []


def test_names_from_the_wire_forge_no_lines() -> None:
    forged = (FileTransport.HTTP, "127.0.0.1", 1, "a\r\n00000009.000 |x\x1b[2J")
    told: list[Event] = [
        events.FileRequested(*forged, b"GET /\x1b[2J\n\x00 HTTP/1.1\r\n\r\n"),
        events.FileNotFound(*forged, ""),
        events.FileServed(*forged, 1, ""),
    ]
    assert all(line.isprintable() for line in trace(*told))


# -- alone ----------------------------------------------------------------------------------------------------------


class Program:
    """`python -m tftp_server` as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def event(self, kind: str) -> dict[str, object]:
        while (told := json.loads(await self.line()))["kind"] != kind:
            pass
        return dict(told)


@asynccontextmanager
async def program(*arguments: str | Path) -> AsyncIterator[Program]:
    pipe = asyncio.subprocess.PIPE
    words = (sys.executable, "-m", "tftp_server", *map(str, arguments))
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def get(address: str, port: int, name: str) -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(f"GET /{name} HTTP/1.1\r\nHost:{address}:{port}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_alone_it_serves_a_folder_until_a_signal(loopback: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "ringlist.xml").write_bytes(b"<rings/>")
    address = loopback()
    async with program(tmp_path, "--address", address, "--tftp-port", "0", "--http-port", "0", "--json") as alone:
        started = await alone.event("file_server.started")
        port = started["http_port"]
        assert isinstance(port, int)
        assert (await get(address, port, "ringlist.xml")).endswith(b"\r\n\r\n<rings/>")
        served = await alone.event("file.served")
        assert served["digest"] == hashlib.sha256(b"<rings/>").hexdigest()
        assert served["source"] == f"tftp:{address}"
        alone.process.terminate()
        await alone.event("file_server.stopped")
        assert await alone.process.wait() == 0


@pytest.mark.parametrize(("style", "expected"), [(["--trace"], "|AppInfo  |"), ([], "file_server.started address=")])
async def test_alone_it_prints(loopback: Callable[[], str], tmp_path: Path, style: list[str], expected: str) -> None:
    words = ("--address", loopback(), "--tftp-port", "0", "--http-port", "0", *style)
    async with program(tmp_path, *words) as alone:
        assert expected in await alone.line()


async def refused(*arguments: str | Path) -> tuple[int, str]:
    async with program(*arguments) as alone:
        _, told = await asyncio.wait_for(alone.process.communicate(), 30)
        assert alone.process.returncode is not None
        return alone.process.returncode, told.decode()


async def test_alone_it_says_what_is_wrong(loopback: Callable[[], str], tmp_path: Path) -> None:
    code, told = await refused(tmp_path / "nowhere")
    assert code == 2
    assert "cannot be listed" in told
    assert "mend:" in told
    code, told = await refused(tmp_path, "--address", "192.0.2.1")
    assert (code, "--expose" in told) == (2, True)
    code, told = await refused(tmp_path, "--http-port", "70000")
    assert (code, "--http-port" in told) == (2, True)
    address = loopback()
    with bound(socket.SOCK_STREAM, address, 0) as taken:
        code, told = await refused(
            tmp_path, "--address", address, "--tftp-port", "0", "--http-port", str(taken.getsockname()[1])
        )
    assert code == 3
    assert "mend:" in told
    assert "Traceback" not in told


async def test_alone_with_a_fault(loopback: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "ringlist.xml").write_bytes(b"<rings/>")
    address = loopback()
    fault = {"id": "cut", "point": "file.content", "action": "truncated", "attributes": {"bytes": 2}, "must_fire": True}
    words = ("--address", address, "--tftp-port", "0", "--http-port", "0", "--json", "--fault", json.dumps(fault))
    async with program(tmp_path, *words) as alone:
        port = (await alone.event("file_server.started"))["http_port"]
        assert isinstance(port, int)
        assert (await get(address, port, "ringlist.xml")).endswith(b"\r\n\r\n<r")
        assert (await alone.event("fault.fired"))["request"] == {"file": "ringlist.xml"}
        alone.process.terminate()
        assert (await alone.event("fault.ended"))["hits"] == 1
        assert await alone.process.wait() == 0
    async with program(tmp_path, *words) as alone:
        await alone.event("file_server.started")
        alone.process.terminate()
        assert (await alone.event("fault.ended"))["missed"] is True
        assert await alone.process.wait() == 1
    code, told = await refused(tmp_path, "--fault", '{"point": "tvs.response", "action": "drop"}')
    assert (code, "no part of this program" in told) == (2, True)


def test_records_are_json() -> None:
    record = EventRecord(1, 0.0, "tftp:x", events.FileRequested(*PHONE, b"GET", ("tsize=0",)))
    assert json.loads(json.dumps(record.as_json()))["request"] == "474554"
