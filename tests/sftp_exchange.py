"""An SFTP server and what tests say to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cucm.events import Event
from lab.sftp_client import SftpSettings
from lab.sftp_server import SftpServer

USER = "bulk"
PASSWORD = "lab-toy"
DIRECTORY = "/bulk"


@asynccontextmanager
async def sftp_server(
    tmp_path: Path, loopback: Callable[[], str], emit: Callable[[Event], None] = lambda _: None, **options: Any
) -> AsyncIterator[SftpServer]:
    """Running, with the folder `/bulk` in what it serves."""
    server = SftpServer(
        loopback(),
        port=0,
        directory=tmp_path / "served",
        user=USER,
        password=PASSWORD,
        host_key=tmp_path / "host_key",
        emit=emit,
        **options,
    )
    (tmp_path / "served" / "bulk").mkdir(parents=True, exist_ok=True)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def settings_of(server: SftpServer, **changes: Any) -> SftpSettings:
    return SftpSettings(
        **{
            "address": server.address,
            "port": server.port,
            "user": USER,
            "password": PASSWORD,
            "directory": DIRECTORY,
            **changes,
        }
    )
