"""Our TFTP client against TFTP servers that others wrote."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from what_is_missing import lacking

from phone_agent.commands import FetchStatus
from phone_agent.tftp_client import PHONE_OPTIONS, fetch_tftp, read_request

PORT = 69
READY_TRIES = 200
SIZES = (0, 511, 512, 513, 1428, 100 * 1024)
OPTIONS = {
    "as the phone": dict(PHONE_OPTIONS),
    "blksize 1428, tsize": {"blksize": 1428, "tsize": 0},
    "blksize 8192": {"blksize": 8192},
    "blksize 512, tsize": {"blksize": 512, "tsize": 0},
}


def content_of(size: int) -> bytes:
    """Bytes without a period that a lost or doubled block would leave unnoticed."""
    blocks = (hashlib.sha256(f"{size} {number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """in.tftpd serves what everyone may read."""
    for size in SIZES:
        (tmp_path / f"SIZE{size}.tlv").write_bytes(content_of(size))
        (tmp_path / f"SIZE{size}.tlv").chmod(0o644)
    return tmp_path


@contextmanager
def running(command: list[str], address: str) -> Iterator[None]:
    """The server, from when it answers until it has ended, with the process it makes for every transfer."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as server:
        try:
            wait_until_answering(server, address)
            yield
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself, and the test says so
                os.killpg(server.pid, signal.SIGKILL)


def wait_until_answering(server: subprocess.Popen[bytes], address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _ in range(READY_TRIES):
            if server.poll() is not None:
                assert server.stdout is not None
                pytest.fail(f"{server.args!r} ended: {server.stdout.read().decode(errors='replace')}")
            asking.sendto(read_request("ready?", {}), (address, PORT))
            if select.select([asking], [], [], 0.05)[0]:
                return
    pytest.fail(f"{server.args!r} does not answer")


def in_tftpd(address: str, folder: Path) -> list[str]:
    return ["in.tftpd", "-L", "-a", f"{address}:{PORT}", "-u", "root", "-s", str(folder)]


def in_tftpd_without_options(address: str, folder: Path) -> list[str]:
    refused = [argument for option in ("blksize", "tsize") for argument in ("-r", option)]
    return [*in_tftpd(address, folder)[:-2], *refused, "-s", str(folder)]


def dnsmasq(address: str, folder: Path) -> list[str]:
    return [
        "dnsmasq",
        "--conf-file=/dev/null",
        "--keep-in-foreground",
        "--port=0",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
        "--enable-tftp",
        f"--tftp-root={folder}",
        f"--listen-address={address}",
        "--bind-interfaces",
    ]


def dnsmasq_without_blocksize(address: str, folder: Path) -> list[str]:
    return [*dnsmasq(address, folder), "--tftp-no-blocksize"]


Server = Callable[[str, Path], list[str]]
SERVERS = [
    pytest.param(in_tftpd, marks=pytest.mark.needs("in.tftpd")),
    pytest.param(in_tftpd_without_options, marks=pytest.mark.needs("in.tftpd")),
    pytest.param(dnsmasq, marks=pytest.mark.needs("dnsmasq")),
    pytest.param(dnsmasq_without_blocksize, marks=pytest.mark.needs("dnsmasq")),
]


@pytest.mark.parametrize("server", SERVERS)
async def test_files_arrive_byte_for_byte(server: Server, folder: Path, loopback: Callable[[], str]) -> None:
    address, phone_address = loopback(), loopback()
    with running(server(address, folder), address):
        for name, options in OPTIONS.items():
            for size in SIZES:
                attempt, content = await fetch_tftp(
                    address, f"SIZE{size}.tlv", local_address=phone_address, options=options
                )
                assert (attempt.status, attempt.detail) == (FetchStatus.OK, f"{size} bytes"), name
                assert content == content_of(size)


@pytest.mark.parametrize("server", SERVERS)
async def test_a_missing_file_is_not_found(server: Server, folder: Path, loopback: Callable[[], str]) -> None:
    address = loopback()
    with running(server(address, folder), address):
        attempt, content = await fetch_tftp(address, "CTLSEPB000B4BA0AEE.tlv")
    assert (attempt.status, content) == (FetchStatus.NOT_FOUND, None)
    assert attempt.detail.startswith("error 1: ")


@pytest.mark.parametrize("server", SERVERS)
async def test_a_file_above_the_limit_is_refused(server: Server, folder: Path, loopback: Callable[[], str]) -> None:
    address = loopback()
    with running(server(address, folder), address):
        for options in OPTIONS.values():
            attempt, content = await fetch_tftp(address, "SIZE102400.tlv", max_size=102_399, options=options)
            assert (attempt.status, content) == (FetchStatus.ERROR, None)


@pytest.mark.needs("in.tftpd")
async def test_a_file_that_may_not_be_read_is_an_access_error(folder: Path, loopback: Callable[[], str]) -> None:
    """in.tftpd serves what everyone may read, and nothing else."""
    if os.getuid() != 0:
        lacking("in.tftpd must change to another user to be refused a file, which only root can")
    (folder / "secret.tlv").write_bytes(b"secret")
    (folder / "secret.tlv").chmod(0o600)
    address = loopback()
    with running(in_tftpd(address, folder), address):
        attempt, content = await fetch_tftp(address, "secret.tlv")
    assert (attempt.status, content) == (FetchStatus.ACCESS_ERROR, None)
