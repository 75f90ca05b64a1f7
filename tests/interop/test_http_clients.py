"""Our HTTP service on 6970 against curl: headers byte for byte, whole files, and what it makes of refusals."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cucm.events import EventLog
from cucm.events.files import FileRefused, FileRequested, FileServed
from tftp_server.file_store import FileStore, FolderStore, MappingStore, NotServed, NotServedReason
from tftp_server.server import HTTP_PORT, FileServer

pytestmark = pytest.mark.needs("curl")

FILES = {f"file-{size}": random.Random(size).randbytes(size) for size in (0, 1, 8003, 65536, 65537, 40 * 1024 * 1024)}


class Served:
    def __init__(self, server: FileServer, log: EventLog) -> None:
        self.url = f"http://{server.address}:{server.http_port}"
        self.log = log


@asynccontextmanager
async def serving(address: str, store: FileStore | None = None) -> AsyncIterator[Served]:
    log = EventLog()
    server = FileServer(address, store or MappingStore(FILES), tftp_port=0, emit=log.emitter("tftp"))
    await server.start()
    assert server.http_port == HTTP_PORT == 6970
    try:
        yield Served(server, log)
    finally:
        await server.stop()


async def curl(*words: str | Path) -> tuple[int, bytes]:
    pipe = asyncio.subprocess.PIPE
    arguments = ("--silent", "--show-error", "--path-as-is", "--max-time", "60", *map(str, words))
    process = await asyncio.create_subprocess_exec("curl", *arguments, stdout=pipe, stderr=pipe)
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output


@pytest.mark.parametrize("name", FILES)
async def test_headers_in_ciscos_order_and_the_whole_file(loopback: Callable[[], str], name: str) -> None:
    async with serving(loopback()) as served:
        code, output = await curl("--include", f"{served.url}/{name}")
        head, _, body = output.partition(b"\r\n\r\n")
        assert code == 0
        assert head.split(b"\r\n") == [
            b"HTTP/1.1 200 OK",
            b"Content-length: %d" % len(FILES[name]),
            b"Cache-Control: no-store",
            b"Content-type: */*",
        ]
        assert body == FILES[name]
        kinds = [type(record.event) for record in served.log]
        assert kinds.count(FileRequested) == kinds.count(FileServed) == 1


async def test_two_files_are_two_connections(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        words = (
            "--write-out",
            "%{num_connects} ",
            "--output",
            "/dev/null",
            f"{served.url}/file-1",
            "--output",
            "/dev/null",
        )
        code, output = await curl(*words, f"{served.url}/file-0")
        assert (code, output) == (0, b"1 1 ")


async def status(*words: str | Path) -> tuple[int, bytes]:
    return await curl("--output", "/dev/null", "--write-out", "%{http_code}", *words)


@pytest.mark.parametrize(
    "name", ["nothing", "../outside", "..%2foutside", "%2fetc%2fpasswd", "a%00b", "x" * 1000, "folder"]
)
async def test_what_is_not_in_the_folder_is_404(loopback: Callable[[], str], tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"outside")
    (tmp_path / "served" / "folder").mkdir(parents=True)
    async with serving(loopback(), FolderStore(tmp_path / "served")) as served:
        assert await status(f"{served.url}/{name}") == (0, b"404")


async def test_busy_is_503(loopback: Callable[[], str]) -> None:
    class Busy:
        def read(self, name: str) -> bytes:
            raise NotServed("a search is pending", reason=NotServedReason.BUSY)

    async with serving(loopback(), Busy()) as served:
        assert await status(f"{served.url}/SEPB000B4BA0AEE.cnf.xml") == (0, b"503")


async def test_other_methods_are_405(loopback: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(bytes(200_000))
    async with serving(loopback()) as served:
        assert await status("--data", "a=b", f"{served.url}/file-1") == (0, b"405")
        assert await status("--request", "DELETE", f"{served.url}/file-1") == (0, b"405")
        assert await status("--header", "Expect:", "--upload-file", tmp_path / "upload", f"{served.url}/new") == (
            0,
            b"405",
        )
        assert sum(isinstance(record.event, FileRefused) for record in served.log) == 3


async def test_head(loopback: Callable[[], str]) -> None:
    async with serving(loopback()) as served:
        code, output = await curl("--head", f"{served.url}/file-8003")
        assert code == 0
        assert b"Content-length: 8003\r\n" in output
