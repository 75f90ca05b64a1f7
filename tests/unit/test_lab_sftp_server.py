"""The SFTP server over real sockets: who gets in, what a session may do, how it ends."""

from __future__ import annotations

import asyncio
import gc
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from both_loops import on_both_loops
from sftp_exchange import PASSWORD, USER, sftp_server

from cucm.errors import AddressBusy, UsageError
from cucm.events import Event
from cucm.events.sftp import (
    SftpConnectionRefused,
    SftpFileRead,
    SftpFileRemoved,
    SftpFileRenamed,
    SftpFileStored,
    SftpLoginAccepted,
    SftpLoginRefused,
    SftpServerStarted,
    SftpServerStopped,
)
from cucm.net.listener import Limits
from cucm.net.reachability import Reachability
from cucm.net.tls import open_stream
from lab import sftp_session
from lab.sftp_folder import FolderLimits
from lab.sftp_login import MAX_LOGIN_ATTEMPTS
from lab.sftp_server import SftpServer

Draw = Callable[[], str]
DEADLINE_S = 20


def connection_to(server: SftpServer, password: str = PASSWORD, **options: Any) -> Any:
    given = {"username": USER, "password": password, "known_hosts": None, "config": None, "client_keys": None}
    return asyncssh.connect(server.address, server.port, agent_path=None, **(given | options))


@asynccontextmanager
async def session(server: SftpServer) -> AsyncIterator[asyncssh.SFTPClient]:
    async with connection_to(server) as connection, connection.start_sftp_client() as client:
        yield client


class Heard(list[Event]):
    """Events as they come; `until` waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()

    def emit(self, event: Event) -> None:
        self.append(event)
        self._wake.set()

    async def until(self, kind: type[Event]) -> Event:
        async with asyncio.timeout(DEADLINE_S):
            while not (found := [event for event in self if isinstance(event, kind)]):
                self._wake.clear()
                await self._wake.wait()
        return found[0]


async def test_files_go_there_and_back(tmp_path: Path, loopback: Draw) -> None:
    heard = Heard()
    async with sftp_server(tmp_path, loopback, heard.emit) as server:
        async with session(server) as client:
            async with client.open("/bulk/.part", "wb") as file:
                await file.write(b"certificates")
            await client.posix_rename("/bulk/.part", "/bulk/a.p12")
            async with client.open("bulk/a.p12", "rb") as file:
                assert await file.read() == b"certificates"
            assert sorted(await client.listdir("bulk")) == [".", "..", "a.p12"]
            await client.remove("/bulk/a.p12")
        peer = "127.0.0.1"
        assert heard == [
            SftpServerStarted(server.address, server.port, server.host_key),
            SftpLoginAccepted(peer, USER),
            SftpFileStored(peer, "/bulk/.part", 12),
            SftpFileRenamed(peer, "/bulk/.part", "/bulk/a.p12"),
            SftpFileRead(peer, "/bulk/a.p12", 12),
            SftpFileRemoved(peer, "/bulk/a.p12"),
        ]
    assert heard[-1] == SftpServerStopped()


@on_both_loops
async def test_large_files_on_both_event_loops(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server, session(server) as client:
        async with client.open("/bulk/big", "wb") as file:
            await file.write(bytes(range(256)) * 4000)
        async with client.open("/bulk/big", "rb") as file:
            assert await file.read() == bytes(range(256)) * 4000


@pytest.mark.parametrize(("user", "password"), [(USER, "wrong"), ("root", PASSWORD), (USER, ""), ("é" * 100, "é")])
async def test_strangers_stay_out(user: str, password: str, tmp_path: Path, loopback: Draw) -> None:
    heard = Heard()
    async with sftp_server(tmp_path, loopback, heard.emit) as server:
        with pytest.raises(asyncssh.PermissionDenied):
            await connection_to(server, password, username=user)
        assert await heard.until(SftpLoginRefused) == SftpLoginRefused("127.0.0.1", user[:64])
        assert not any(isinstance(event, SftpLoginAccepted) for event in heard)


async def test_passwords_cannot_be_tried_for_ever(tmp_path: Path, loopback: Draw) -> None:
    class Guessing(asyncssh.SSHClient):
        asked = 0

        def password_auth_requested(self) -> str:
            self.asked += 1
            return f"guess {self.asked}"

    guessing = Guessing()
    async with sftp_server(tmp_path, loopback) as server:
        with pytest.raises(asyncssh.DisconnectError):
            await connection_to(server, client_factory=lambda: guessing, password=None)
    assert guessing.asked == MAX_LOGIN_ATTEMPTS


async def test_only_passwords_are_asked_for(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        methods = await asyncssh.get_server_auth_methods(server.address, server.port, username=USER, config=None)
    assert methods == ["password"]


async def test_no_shell_no_command_no_forwarding_no_other_subsystem(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server, connection_to(server) as connection:
        for request in ({}, {"command": "id"}, {"subsystem": "netconf"}, {"command": "scp -t /"}):
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process(**request)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", 22)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/run/x")
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 22)


async def test_links_cannot_be_made_or_read(tmp_path: Path, loopback: Draw) -> None:
    (tmp_path / "secret").touch()
    async with sftp_server(tmp_path, loopback) as server, session(server) as client:
        (server.directory / "bulk" / "out").symlink_to(tmp_path)
        for attempt in (
            client.symlink("/", "/bulk/link"),
            client.link("/bulk", "/bulk/link"),
            client.readlink("/bulk/out"),
            client.open("/bulk/out/secret", "rb"),
            client.listdir("/bulk/out"),
            client.listdir("/../.."),
        ):
            with suppress(asyncssh.SFTPError):
                found = await attempt
                assert found == [".", "..", "bulk"]  # of `/../..`, which is `/`
        assert await client.realpath("/bulk/out/..") == "/bulk"
        assert [path.name for path in (server.directory / "bulk").iterdir()] == ["out"]


async def test_attributes(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server, session(server) as client:
        async with client.open("/bulk/a", "wb", asyncssh.SFTPAttrs(permissions=0o4777)) as file:
            await file.write(b"12345")
            await file.setstat(asyncssh.SFTPAttrs(size=4))
            assert (await file.stat()).size == 4
        await client.truncate("/bulk/a", 3)
        await client.chmod("/bulk/a", 0o777)
        await client.setstat("/bulk/a", asyncssh.SFTPAttrs(size=2), follow_symlinks=False)
        assert (await client.statvfs("/bulk")).bsize > 0
        kept = (server.directory / "bulk" / "a").stat()
        assert stat.S_IMODE(kept.st_mode) == 0o600
        assert kept.st_size == 2


async def test_open_modes(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server, session(server) as client:
        for mode, text in (("xb", b"one"), ("ab", b"two"), ("r+b", b"O")):
            async with client.open("/bulk/a", mode) as file:
                await file.write(text)
        assert (server.directory / "bulk" / "a").read_bytes() == b"Onetwo"
        with pytest.raises(asyncssh.SFTPError):
            await client.open("/bulk/a", "xb")
        async with client.open("/bulk/a", "rb") as file:
            with pytest.raises(asyncssh.SFTPError):
                await file.write(b"x")
        await client.mkdir("/bulk/f")
        await client.rmdir("/bulk/f")
        with pytest.raises(asyncssh.SFTPError):
            await client.rename("/bulk/a", "/bulk")


async def test_limits_of_a_session(tmp_path: Path, loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp_session, "MAX_OPEN_FILES", 2)
    monkeypatch.setattr(sftp_session, "MAX_LISTINGS", 2)
    async with (
        sftp_server(tmp_path, loopback, folder_limits=FolderLimits(file_size=1000)) as server,
        session(server) as client,
    ):
        async with client.open("/bulk/a", "wb") as file, client.open("/bulk/b", "wb"):
            with pytest.raises(asyncssh.SFTPFailure, match="2 files"):
                await client.open("/bulk/c", "wb")
            with pytest.raises(asyncssh.SFTPFailure, match="1000 bytes"):
                await file.write(bytes(1001))
        await client.open("/bulk/c", "wb")
        for _ in range(2):
            await client.listdir("/bulk")
        with pytest.raises(asyncssh.SFTPFailure, match="2 folders"):
            await client.listdir("/bulk")


async def test_limits_of_a_connection(tmp_path: Path, loopback: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions within it share one allowance of files, and there are not many of them."""
    monkeypatch.setattr(sftp_session, "MAX_OPEN_FILES", 2)
    monkeypatch.setattr("lab.sftp_login.MAX_SESSIONS", 2)
    async with sftp_server(tmp_path, loopback) as server, connection_to(server) as connection:
        first, second = await connection.start_sftp_client(), await connection.start_sftp_client()
        async with first.open("/bulk/a", "wb"), second.open("/bulk/b", "wb"):
            with pytest.raises(asyncssh.SFTPFailure, match="2 files"):
                await second.open("/bulk/c", "wb")
        async with first.open("/bulk/c", "wb"):
            pass
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()


async def test_appending_goes_no_further_than_the_limit(tmp_path: Path, loopback: Draw) -> None:
    """Whatever offset a client names, the system appends."""
    limits = FolderLimits(file_size=1000)
    async with sftp_server(tmp_path, loopback, folder_limits=limits) as server, session(server) as client:
        async with client.open("/bulk/a", "ab", encoding=None) as file:
            await file.write(bytes(1000), 0)
            with pytest.raises(asyncssh.SFTPFailure, match="1000 bytes"):
                await file.write(b"x", 0)
        assert (server.directory / "bulk" / "a").stat().st_size == 1000


def packet(kind: int, *parts: bytes) -> bytes:
    content = bytes([kind]) + b"".join(parts)
    return len(content).to_bytes(4) + content


def text(value: bytes) -> bytes:
    return len(value).to_bytes(4) + value


async def test_a_client_that_asks_and_does_not_read_gets_no_more(
    tmp_path: Path, loopback: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftp_session, "MAX_UNREAD", 100_000)
    asked, size = 300, 50_000
    async with sftp_server(tmp_path, loopback) as server, connection_to(server) as connection:
        (server.directory / "bulk" / "a").write_bytes(bytes(size))
        stdin, stdout, _ = await connection.open_session(subsystem="sftp", encoding=None, window=100_000)
        stdin.write(packet(1, (3).to_bytes(4)))  # INIT
        stdin.write(packet(3, (1).to_bytes(4), text(b"/bulk/a"), (1).to_bytes(4), bytes(4)))  # OPEN to read
        for number in range(asked):
            stdin.write(packet(5, (2 + number).to_bytes(4), text(bytes(4)), bytes(8), size.to_bytes(4)))  # READ
        kinds: list[int] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(kinds) < 2 + asked:
                answer = await stdout.readexactly(int.from_bytes(await stdout.readexactly(4)))
                kinds.append(answer[0])
    assert kinds.count(103) < asked  # DATA
    assert kinds.count(101) == asked - kinds.count(103) > 0  # STATUS


async def test_nothing_is_compressed(tmp_path: Path, loopback: Draw) -> None:
    """A few bytes could become a thousand times as many."""
    async with sftp_server(tmp_path, loopback) as server:
        with pytest.raises(asyncssh.KeyExchangeFailed):
            await connection_to(server, compression_algs=["zlib@openssh.com"])


async def test_a_connection_cut_before_ssh_begins_leaves_no_socket(tmp_path: Path, loopback: Draw) -> None:
    """Cancelled at every step of its beginning: a socket that is forgotten is a warning, and that fails the test."""
    async with sftp_server(tmp_path, loopback) as server:
        for steps in range(12):
            stream = await open_stream(server.address, server.port)
            try:
                task = asyncio.ensure_future(server._carry(stream))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            finally:
                await stream.close()
            for _ in range(10):
                await asyncio.sleep(0)
            gc.collect()


async def test_limits_of_the_server(tmp_path: Path, loopback: Draw) -> None:
    heard = Heard()
    limits = Limits(connections=1, idle_timeout_s=60)
    async with sftp_server(tmp_path, loopback, heard.emit, limits=limits) as server, session(server):
        with pytest.raises((asyncssh.Error, OSError)):
            await connection_to(server)
        assert await heard.until(SftpConnectionRefused) == SftpConnectionRefused(
            "127.0.0.1", "1 connections are open already"
        )


async def test_an_idle_client_is_cut_off(tmp_path: Path, loopback: Draw) -> None:
    limits = Limits(idle_timeout_s=0.3)
    async with sftp_server(tmp_path, loopback, limits=limits) as server:
        connection = await connection_to(server)
        async with asyncio.timeout(DEADLINE_S):
            await connection.wait_closed()


async def test_noise_instead_of_ssh(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        reader, writer = await asyncio.open_connection(server.address, server.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n" * 2000)
        async with asyncio.timeout(DEADLINE_S):
            with suppress(ConnectionError):
                while await reader.read(4096):
                    pass
        writer.close()
        async with session(server) as client:
            assert await client.exists("/bulk")


async def test_stopping_says_goodbye(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        class Watching(asyncssh.SSHClient):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(exc)

        await connection_to(server, client_factory=Watching)
        await server.stop()
        async with asyncio.timeout(DEADLINE_S):
            end = await lost
        assert isinstance(end, asyncssh.DisconnectError), repr(end)
        assert end.reason == "the server is stopping"
        with pytest.raises(ConnectionRefusedError):
            await connection_to(server)
        await server.stop()
        await server.crash()
        await server.start()
        async with session(server) as client:
            assert await client.exists("/bulk")


async def test_crashing_says_nothing(tmp_path: Path, loopback: Draw) -> None:
    heard = Heard()
    async with sftp_server(tmp_path, loopback, heard.emit) as server:
        reader, writer = await asyncio.open_connection(server.address, server.port)
        await reader.readline()
        await server.crash()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), DEADLINE_S)
        assert heard[-1] == SftpServerStopped(crashed=True)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await connection_to(server)


async def test_a_firewall_refuses_new_connections_alone(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server, session(server) as client:
        server.set_reachability(Reachability.REFUSE)
        with pytest.raises((ConnectionError, asyncssh.ConnectionLost)):
            await connection_to(server)
        assert await client.exists("/bulk")
        server.set_reachability(Reachability.OPEN)
        await (await connection_to(server)).__aexit__(None, None, None)


async def test_an_unreachable_server_answers_nothing(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        server.set_reachability(Reachability.UNREACHABLE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await connection_to(server)
        server.set_reachability(Reachability.OPEN)
        async with session(server) as client:
            assert await client.exists("/bulk")


async def test_the_host_key_is_made_once(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        first = server.host_key
    key_file = tmp_path / "host_key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key_file.chmod(0o644)
    async with sftp_server(tmp_path, loopback) as server:
        assert server.host_key == first
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key_file.unlink()
    async with sftp_server(tmp_path, loopback) as server:
        assert server.host_key != first


async def test_a_damaged_host_key_is_not_replaced_in_silence(tmp_path: Path, loopback: Draw) -> None:
    (tmp_path / "host_key").write_text("no key")
    with pytest.raises(UsageError) as refused:
        async with sftp_server(tmp_path, loopback):
            pass
    assert "delete it" in str(refused.value.mend)


async def test_a_taken_port(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        second = SftpServer(
            server.address, port=server.port, directory=tmp_path, user="u", password="p", host_key=tmp_path / "k"
        )
        with pytest.raises(AddressBusy):
            await second.start()
        assert not second.is_running


@pytest.mark.parametrize(("user", "password"), [("", "p"), ("u", "")])
def test_no_server_without_password(user: str, password: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        SftpServer("127.0.0.1", port=0, directory=tmp_path, user=user, password=password, host_key=tmp_path / "k")
