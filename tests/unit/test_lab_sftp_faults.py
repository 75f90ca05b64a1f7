"""Faults of the SFTP server as clients meet them, over real SSH."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from sftp_exchange import PASSWORD, USER, settings_of, sftp_server

from cucm.errors import LabError
from cucm.events import EventLog
from cucm.faults import FaultBoard, fault_of
from lab.sftp_client import open_directory
from lab.sftp_server import SftpServer

Draw = Callable[[], str]


@asynccontextmanager
async def faulty(
    tmp_path: Path, loopback: Draw, point: str, action: str, **rule: Any
) -> AsyncIterator[tuple[SftpServer, FaultBoard]]:
    board = FaultBoard(EventLog().emitter("lab:faults"))
    board.set(fault_of({"id": "it", "point": point, "action": action, **rule}))
    async with sftp_server(tmp_path, loopback, faults=board) as server:
        yield server, board


@asynccontextmanager
async def session(server: SftpServer) -> AsyncIterator[asyncssh.SFTPClient]:
    async with (
        asyncssh.connect(
            server.address,
            server.port,
            username=USER,
            password=PASSWORD,
            known_hosts=None,
            config=None,
            client_keys=None,
            agent_path=None,
        ) as connection,
        connection.start_sftp_client() as client,
    ):
        yield client


async def test_another_host_key_is_noticed_by_who_knows_the_first(tmp_path: Path, loopback: Draw) -> None:
    async with faulty(tmp_path, loopback, "sftp.connect", "wrong-host-key", skip=1, times=1) as (server, board):
        async with open_directory(settings_of(server)) as there:
            known = there.host_key
        with pytest.raises(LabError, match="has changed"):
            async with open_directory(settings_of(server, host_key=known)):
                pass
        async with open_directory(settings_of(server, host_key=known)):
            pass
        assert board.status("it").hits == 1


async def test_a_right_password_is_refused(tmp_path: Path, loopback: Draw) -> None:
    async with faulty(tmp_path, loopback, "sftp.login", "refuse-login", match={"user": USER}) as (server, _):
        with pytest.raises(asyncssh.PermissionDenied):
            async with session(server):
                pass


async def test_a_full_disk_keeps_what_fits(tmp_path: Path, loopback: Draw) -> None:
    rule = {"match": {"file": "/bulk/*.p12"}, "attributes": {"after_bytes": 4}}
    async with faulty(tmp_path, loopback, "sftp.write", "disk-full", **rule) as (server, board):
        async with session(server) as client:
            async with client.open("/bulk/a.p12", "wb") as file:
                await file.write(b"1234")
                with pytest.raises(asyncssh.SFTPFailure, match="No space left"):
                    await file.write(b"5")
            async with client.open("/bulk/a.txt", "wb") as other:
                await other.write(b"12345678")
        assert (server.directory / "bulk" / "a.p12").read_bytes() == b"1234"
        assert board.status("it").hits == 1


@pytest.mark.parametrize("way", ["write", "read"])
async def test_a_transfer_is_cut(tmp_path: Path, loopback: Draw, way: str) -> None:
    async with faulty(tmp_path, loopback, f"sftp.{way}", "cut-transfer", times=1) as (server, _):
        (server.directory / "bulk" / "a").write_bytes(b"x" * 8)
        with pytest.raises((asyncssh.SFTPError, asyncssh.ConnectionLost)):
            async with session(server) as client, client.open("/bulk/a", "rb" if way == "read" else "wb") as file:
                await (file.read() if way == "read" else file.write(b"y"))
        async with session(server) as client:  # the server goes on
            assert await client.exists("/bulk/a")
