"""What a publisher does on an SFTP server, and what it is told when that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from both_loops import on_both_loops
from sftp_exchange import PASSWORD, USER, settings_of, sftp_server
from stub_server import stub_server

from cucm.errors import LabError, LimitExceeded, UsageError
from cucm.events import Event
from cucm.events.sftp import SftpLoginAccepted
from cucm.net.reachability import Reachability
from lab import sftp_client
from lab.sftp_client import SftpDeadlines, SftpSettings, open_directory
from lab.sftp_folder import FolderLimits

Draw = Callable[[], str]
SHORT = SftpDeadlines(connect=0.5, step=0.5)


async def refusal(settings: SftpSettings, deadlines: SftpDeadlines | None = None) -> LabError:
    """What is said when the directory cannot be opened; there is always something to mend."""
    with pytest.raises(LabError) as refused:
        async with open_directory(settings, deadlines=deadlines):
            pass
    assert refused.value.mend
    assert refused.value.where == settings.where
    assert PASSWORD not in f"{refused.value} {refused.value.mend}"
    return refused.value


@on_both_loops
async def test_files_are_written_listed_and_read(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        async with open_directory(settings_of(server)) as directory:
            assert directory.host_key == server.host_key
            await directory.write("b.p12", b"old", "cluster1")
            await directory.write("b.p12", b"new", "cluster1")
            await directory.write("a.p12", b"", "cluster1")
            assert await directory.names() == ("a.p12", "b.p12")
            assert await directory.read("b.p12", 3) == b"new"
            assert await directory.read("a.p12", 3) == b""
        assert sorted(path.name for path in (server.directory / "bulk").iterdir()) == ["a.p12", "b.p12"]


async def test_the_directory_may_be_written_as_administrators_do(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        for name in ("bulk", "/bulk/", "./bulk", "/"):
            async with open_directory(settings_of(server, directory=name)):
                pass


async def test_connections_come_from_the_publishers_address(tmp_path: Path, loopback: Draw) -> None:
    heard: list[Event] = []
    publisher = loopback()
    async with (
        sftp_server(tmp_path, loopback, heard.append) as server,
        open_directory(settings_of(server), local_address=publisher),
    ):
        assert SftpLoginAccepted(publisher, USER) in heard


async def test_wrong_password(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        for changes in ({"password": "wrong"}, {"user": "other"}):
            assert "refuses user" in (await refusal(settings_of(server, **changes))).what


async def test_wrong_directory(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        (server.directory / "file").touch()
        for name in ("/nowhere", "/file", "/bulk/../nowhere"):
            error = await refusal(settings_of(server, directory=name))
            assert "no such file or directory" in error.what
            assert "both clusters" in str(error.mend)


async def test_no_server(loopback: Draw) -> None:
    error = await refusal(SftpSettings(loopback(), USER, PASSWORD, port=9))
    assert error.what == "the SFTP server cannot be reached: Connection refused"


async def test_a_server_nobody_hears_of(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        server.set_reachability(Reachability.UNREACHABLE)
        error = await refusal(settings_of(server), SHORT)
        assert error.what == "the SFTP server cannot be reached: it does not answer"
        server.set_reachability(Reachability.OPEN)


async def test_a_server_that_falls_silent(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        async with open_directory(settings_of(server), deadlines=SHORT) as directory:
            server.set_reachability(Reachability.UNREACHABLE)
            with pytest.raises(LabError, match="fallen silent"):
                await directory.names()
        server.set_reachability(Reachability.OPEN)


async def test_a_server_that_crashes(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server, open_directory(settings_of(server)) as directory:
        await server.crash()
        with pytest.raises(LabError, match=r"a\.p12 cannot be written: .*"):
            await directory.write("a.p12", b"x", "c")
        with pytest.raises(LabError, match=r"a\.p12 cannot be read: .*"):
            await directory.read("a.p12", 10)


async def test_what_is_no_ssh_server(loopback: Draw) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 400 Bad Request\r\n" * 100_000)

    address = loopback()
    async with stub_server(talk, address) as port:
        assert (await refusal(SftpSettings(address, USER, PASSWORD, port=port))).what


async def test_the_host_key_is_compared_before_the_password_is_sent(tmp_path: Path, loopback: Draw) -> None:
    heard: list[Event] = []
    async with sftp_server(tmp_path, loopback, heard.append) as server:
        error = await refusal(settings_of(server, host_key="SHA256:another"))
        assert server.host_key in error.what
        assert "SHA256:another" in error.what
        assert len(heard) == 1  # that the server started
        async with open_directory(settings_of(server, host_key=server.host_key)):
            pass


async def test_too_much(tmp_path: Path, loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sftp_server(tmp_path, loopback) as server, open_directory(settings_of(server)) as directory:
        await directory.write("a.p12", bytes(11), "c")
        with pytest.raises(LimitExceeded, match="more than 10 bytes"):
            await directory.read("a.p12", 10)
        monkeypatch.setattr(sftp_client, "MAX_NAMES", 2)
        with pytest.raises(LimitExceeded, match="more than 2 files"):
            await directory.names()


async def test_a_failed_upload_leaves_the_old_file_and_nothing_else(tmp_path: Path, loopback: Draw) -> None:
    limits = FolderLimits(file_size=10)
    async with (
        sftp_server(tmp_path, loopback, folder_limits=limits) as server,
        open_directory(settings_of(server)) as directory,
    ):
        await directory.write("a.p12", b"old", "c")
        with pytest.raises(LabError, match="10 bytes"):
            await directory.write("a.p12", bytes(11), "c")
        (kept,) = (server.directory / "bulk").iterdir()
        assert kept.read_bytes() == b"old"


async def test_a_user_without_a_name(tmp_path: Path, loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    async with sftp_server(tmp_path, loopback) as server:
        assert "LOGNAME" in str((await refusal(settings_of(server))).mend)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
async def test_names_are_no_paths(name: str, tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server, open_directory(settings_of(server)) as directory:
        with pytest.raises(UsageError):
            await directory.read(name, 10)
        with pytest.raises(UsageError):
            await directory.write(name, b"", "c")


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 0},
        {"port": 70_000},
        {"user": ""},
        {"password": ""},
        {"directory": "a\nb"},
        {"address": "sftp.example"},
        {"address": ""},
    ],
)
def test_settings_nobody_could_mean(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SftpSettings(**{"address": "127.0.0.1", "user": USER, "password": PASSWORD, **changes})


def test_the_password_is_not_shown() -> None:
    assert PASSWORD not in repr(SftpSettings("127.0.0.1", USER, PASSWORD))


class _Open(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


class _OldFashioned(asyncssh.SFTPServer):
    """Knows no `posix-rename@openssh.com`, and forbids a folder."""

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        raise asyncssh.SFTPOpUnsupported("what is that?")

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        if b"forbidden" in path:
            raise asyncssh.SFTPPermissionDenied("no")
        async for name in super().scandir(path):
            yield name


@asynccontextmanager
async def old_fashioned(folder: Path, address: str, *, sftp: bool = True) -> AsyncIterator[SftpSettings]:
    factory: Any = (lambda channel: _OldFashioned(channel, chroot=str(folder).encode())) if sftp else None
    key = asyncssh.generate_private_key("ssh-ed25519")
    acceptor = await asyncssh.listen(address, 0, server_factory=_Open, server_host_keys=[key], sftp_factory=factory)
    async with acceptor:
        yield SftpSettings(address, USER, PASSWORD, "/", acceptor.get_port())


async def test_servers_without_posix_rename(tmp_path: Path, loopback: Draw) -> None:
    async with old_fashioned(tmp_path, loopback()) as settings, open_directory(settings) as directory:
        for data in (b"old", b"new"):
            await directory.write("a.p12", data, "c")
            assert await directory.read("a.p12", 10) == data
        assert [path.name for path in tmp_path.iterdir()] == ["a.p12"]


async def test_a_folder_one_may_not_look_into(tmp_path: Path, loopback: Draw) -> None:
    async with old_fashioned(tmp_path, loopback()) as given:
        settings = SftpSettings(given.address, USER, PASSWORD, "/forbidden", given.port)
        assert "does not permit" in (await refusal(settings)).what


async def test_a_server_without_sftp(tmp_path: Path, loopback: Draw) -> None:
    async with old_fashioned(tmp_path, loopback(), sftp=False) as settings:
        assert "session cannot be opened" in (await refusal(settings)).what
