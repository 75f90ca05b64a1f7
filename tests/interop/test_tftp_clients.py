"""Our TFTP server against clients that others wrote: curl, tftp-hpa, atftp and tftpy. Every byte is compared."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tftpy

from cucm.events import Event, EventLog, EventRecord
from cucm.events.files import FileNotFound, FileRefused, FileRequested, FileServed, TransferFailed
from tftp_server.file_store import FolderStore, MappingStore
from tftp_server.server import FileServer

SIZES = [0, 511, 512, 513]
BLOCK_SIZES = [512, 1428, 8192]
HUGE = 40 * 1024 * 1024
"""At 512 bytes a block its number rolls over: 81,921 blocks."""
PATIENCE_S = 100


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    chance = random.Random(6970)
    return {f"file-{size}": chance.randbytes(size) for size in [*SIZES, 6000, HUGE]}


class Served:
    def __init__(self, server: FileServer, log: EventLog) -> None:
        self.address = server.address
        self.port = server.tftp_port
        self.log = log
        self._ended = asyncio.Event()
        log.subscribe(self._note)

    def _note(self, record: EventRecord) -> None:
        if isinstance(record.event, FileServed | TransferFailed):
            self._ended.set()

    async def end(self) -> FileServed:
        """How the first transfer ended: the client may be gone before its last acknowledgement is read."""
        await asyncio.wait_for(self._ended.wait(), PATIENCE_S)
        (ended,) = self.told(FileServed) + self.told(TransferFailed)
        assert isinstance(ended, FileServed), ended
        return ended

    def told(self, kind: type[Event]) -> list[Event]:
        return [record.event for record in self.log if isinstance(record.event, kind)]

    def granted(self) -> tuple[str, ...]:
        """Options of the last request."""
        request = self.told(FileRequested)[-1]
        assert isinstance(request, FileRequested)
        return request.options


@asynccontextmanager
async def serving(address: str, store: MappingStore | FolderStore, tftp_port: int = 0) -> AsyncIterator[Served]:
    log = EventLog()
    server = FileServer(address, store, tftp_port=tftp_port, http_port=0, emit=log.emitter("tftp"))
    await server.start()
    try:
        yield Served(server, log)
    finally:
        await server.stop()


async def run(*words: str | Path, feed: bytes = b"") -> tuple[int, bytes, bytes]:
    """Exit code, output and errors of a program."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*map(str, words), stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        output, errors = await asyncio.wait_for(process.communicate(feed), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, output, errors


Fetch = Callable[[Served, str, int, Path], Awaitable[None]]


async def curl(served: Served, name: str, block_size: int, into: Path) -> None:
    url = f"tftp://{served.address}:{served.port}/{name}"
    code, _, errors = await run("curl", "-sS", "--tftp-blksize", str(block_size), "-o", into, url)
    assert code == 0, errors
    if not into.exists():  # curl makes no file for an empty download
        into.touch()


async def tftp_hpa(served: Served, name: str, block_size: int, into: Path) -> None:
    assert block_size == 512  # it knows no options
    code, output, errors = await run("tftp", "-m", "binary", served.address, str(served.port), "-c", "get", name, into)
    assert code == 0, errors
    assert b"Error" not in output


async def atftp(served: Served, name: str, block_size: int, into: Path) -> None:
    option = ("--option", f"blksize {block_size}") if block_size != 512 else ()
    words = ("--get", "--remote-file", name, "--local-file", into, served.address, str(served.port))
    code, _, errors = await run("atftp", *option, *words)
    assert code == 0, errors


async def by_tftpy(served: Served, name: str, block_size: int, into: Path) -> None:
    options = {"blksize": block_size, "tsize": 0} if block_size != 512 else {}

    def download() -> None:
        logging.getLogger("tftpy").setLevel(logging.CRITICAL)
        tftpy.TftpClient(served.address, served.port, options=options).download(name, str(into), timeout=20)

    await asyncio.to_thread(download)


CURL = pytest.param(curl, marks=pytest.mark.needs("curl"), id="curl")
HPA = pytest.param(tftp_hpa, marks=pytest.mark.needs("tftp"), id="tftp-hpa")
ATFTP = pytest.param(atftp, marks=pytest.mark.needs("atftp"), id="atftp")
TFTPY = pytest.param(by_tftpy, id="tftpy")


async def compare(served: Served, fetch: Fetch, name: str, block_size: int, folder: Path, file: bytes) -> None:
    into = folder / "received"
    await fetch(served, name, block_size, into)
    assert hashlib.sha256(into.read_bytes()).digest() == hashlib.sha256(file).digest()
    if block_size != 512:
        assert f"blksize={block_size}" in served.granted()
    done = await served.end()
    assert (done.size, done.digest) == (len(file), hashlib.sha256(file).hexdigest())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("fetch", [CURL, ATFTP, TFTPY])
async def test_small_files(
    loopback: Callable[[], str], files: dict[str, bytes], tmp_path: Path, fetch: Fetch, block_size: int, size: int
) -> None:
    async with serving(loopback(), MappingStore(files)) as served:
        await compare(served, fetch, f"file-{size}", block_size, tmp_path, files[f"file-{size}"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fetch", [HPA])
async def test_small_files_without_options(
    loopback: Callable[[], str], files: dict[str, bytes], tmp_path: Path, fetch: Fetch, size: int
) -> None:
    async with serving(loopback(), MappingStore(files)) as served:
        await compare(served, fetch, f"file-{size}", 512, tmp_path, files[f"file-{size}"])


@pytest.mark.parametrize(
    ("fetch", "block_size"),
    [
        pytest.param(curl, 512, marks=pytest.mark.needs("curl"), id="curl-512"),
        pytest.param(curl, 8192, marks=pytest.mark.needs("curl"), id="curl-8192"),
        pytest.param(tftp_hpa, 512, marks=pytest.mark.needs("tftp"), id="tftp-hpa-512"),
        pytest.param(atftp, 512, marks=pytest.mark.needs("atftp"), id="atftp-512"),
        pytest.param(atftp, 1428, marks=pytest.mark.needs("atftp"), id="atftp-1428"),
        pytest.param(by_tftpy, 512, id="tftpy-512"),
        pytest.param(by_tftpy, 8192, id="tftpy-8192"),
    ],
)
async def test_40_mib(
    loopback: Callable[[], str], files: dict[str, bytes], tmp_path: Path, fetch: Fetch, block_size: int
) -> None:
    async with serving(loopback(), MappingStore(files)) as served:
        await compare(served, fetch, f"file-{HUGE}", block_size, tmp_path, files[f"file-{HUGE}"])


@pytest.mark.needs("atftp")
async def test_atftp_with_windows(loopback: Callable[[], str], files: dict[str, bytes], tmp_path: Path) -> None:
    async with serving(loopback(), MappingStore(files)) as served:
        into = tmp_path / "received"
        words = ("--get", "--remote-file", f"file-{HUGE}", "--local-file", into, served.address, str(served.port))
        code, _, errors = await run("atftp", "--option", "windowsize 8", "--option", "blksize 1428", *words)
        assert code == 0, errors
        assert into.read_bytes() == files[f"file-{HUGE}"]
        assert {"windowsize=8", "blksize=1428"} <= set(served.granted())


@pytest.mark.needs("tftp")
async def test_netascii_with_tftp_hpa(loopback: Callable[[], str], tmp_path: Path) -> None:
    text = b"one\ntwo\r\nthree\rfour\n"
    async with serving(loopback(), MappingStore({"text": text})) as served:
        into = tmp_path / "received"
        code, _, errors = await run("tftp", "-m", "ascii", served.address, str(served.port), "-c", "get", "text", into)
        assert code == 0, errors
        assert into.read_bytes() == text


@pytest.mark.needs("curl")
async def test_the_standard_port(loopback: Callable[[], str]) -> None:
    async with serving(loopback(), MappingStore({"a": b"69"}), tftp_port=69) as served:
        assert (await run("curl", "-sS", f"tftp://{served.address}/a"))[:2] == (0, b"69")


@pytest.mark.needs("curl", "tftp")
async def test_what_clients_say_about_a_missing_file(loopback: Callable[[], str], tmp_path: Path) -> None:
    async with serving(loopback(), MappingStore({})) as served:
        code, _, _ = await run("curl", "-sS", f"tftp://{served.address}:{served.port}/nothing")
        assert code == 68  # CURLE_TFTP_NOTFOUND
        words = ("tftp", served.address, str(served.port), "-c", "get", "nothing", tmp_path / "received")
        _, output, errors = await run(*words)
        assert b"Error code 1: File not found" in output + errors
        with pytest.raises(tftpy.TftpShared.TftpFileNotFoundError):
            await by_tftpy(served, "nothing", 512, tmp_path / "received")
        assert len(served.told(FileNotFound)) == 3


@pytest.mark.needs("curl", "tftp")
async def test_writing_is_an_access_violation(loopback: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    files: dict[str, bytes] = {}
    async with serving(loopback(), MappingStore(files)) as served:
        code, _, _ = await run("curl", "-sS", "-T", tmp_path / "new", f"tftp://{served.address}:{served.port}/new")
        assert code == 69  # CURLE_TFTP_PERM
        words = ("tftp", served.address, str(served.port), "-c", "put", tmp_path / "new", "new")
        _, output, errors = await run(*words)
        assert b"Error code 2" in output + errors
        client = tftpy.TftpClient(served.address, served.port)
        with pytest.raises(tftpy.TftpShared.TftpException):
            await asyncio.to_thread(client.upload, "new", str(tmp_path / "new"))
        assert len(served.told(FileRefused)) == 3
    assert files == {}


@pytest.mark.needs("curl", "tftp")
async def test_no_client_gets_out_of_the_folder(loopback: Callable[[], str], tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "inside").write_bytes(b"inside")
    (tmp_path / "outside").write_bytes(b"outside")
    async with serving(loopback(), FolderStore(folder)) as served:
        url = f"tftp://{served.address}:{served.port}"
        assert (await run("curl", "-sS", f"{url}/inside"))[1] == b"inside"
        for name in ("../outside", "%2e%2e%2foutside", "/etc/passwd", "%2fetc%2fpasswd", "x" * 300):
            code, output, _ = await run("curl", "-sS", "--path-as-is", f"{url}/{name}")
            assert (code, output) == (68, b"")
        words = ("tftp", served.address, str(served.port), "-c", "get", "../../../../etc/passwd", tmp_path / "received")
        _, output, errors = await run(*words)
        assert b"Error code 1" in output + errors
