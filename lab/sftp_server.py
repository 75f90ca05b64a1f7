"""The SFTP server over which two clusters exchange their certificates; usable from outside with any SFTP client.

One user, password authentication only, one folder; no shell, no command, no forwarding. SSH is asyncssh's. It runs on
one end of a socket pair whose other end a `Listener` feeds, so that limits, crashes and firewalls are the lab's own,
the same as of every other server here.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.stream import SSHServerStreamSession

from cucm.errors import EnvironmentProblem, UsageError
from cucm.events import Emit, ignore
from cucm.events.sftp import (
    SftpConnectionRefused,
    SftpLoginAccepted,
    SftpLoginRefused,
    SftpServerStarted,
    SftpServerStopped,
)
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.sftp import SFTP_CONNECT, SFTP_LOGIN, RefuseLogin, WrongHostKey
from cucm.net.listener import STOP_TIMEOUT_S, Limits, Listener
from cucm.net.reachability import Reachability
from cucm.net.stream import READ_SIZE, Stream
from cucm.whole_files import write_private
from lab.sftp_folder import FolderFile, FolderLimits, ServedFolder
from lab.sftp_session import FolderSession

LOGIN_TIMEOUT_S: Final = 20.0
MAX_LOGIN_ATTEMPTS: Final = 6
"""Wrong passwords on one connection, as OpenSSH's MaxAuthTries."""
MAX_SESSIONS: Final = 64
"""Channels that a client may open on one connection, in all; ours. OpenSSH's `sftp` opens one."""
MAX_HOST_KEY: Final = 16 * 1024
LIMITS: Final = Limits(connections=64, connections_per_address=32, idle_timeout_s=600.0)
_KEY_KIND: Final = "ssh-ed25519"


class SftpServer:
    """Serves `directory` (made if it is not there) to `user`. The host key is made once (mode 0600) and kept.

    Raises AddressBusy and EnvironmentProblem from `start`, UsageError for a host key file that holds none.
    """

    def __init__(
        self,
        address: str,
        *,
        port: int,
        directory: Path,
        user: str,
        password: str,
        host_key: Path,
        emit: Emit = ignore,
        limits: Limits = LIMITS,
        folder_limits: FolderLimits | None = None,
        faults: FaultSource = NO_FAULTS,
    ) -> None:
        if not user or not password:
            raise UsageError("an SFTP server without user or password", mend="give both")
        self.address = address
        self.directory = directory
        self.user = user
        self._password = password.encode()
        self._key_file = host_key
        self._emit = emit
        self._faults = faults
        self._folder = ServedFolder(directory, folder_limits)
        self._listener = Listener(
            address,
            port,
            self._serve,
            limits=limits,
            faults=faults.at(service="SFTP"),
            on_refused=lambda peer, why: emit(SftpConnectionRefused(peer[0], why)),
        )
        self._key: asyncssh.SSHKey | None = None
        self._sessions: set[asyncssh.SSHServerConnection] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def is_running(self) -> bool:
        return self._listener.is_listening

    @property
    def host_key(self) -> str:
        """Fingerprint of the host key, as `ssh-keygen -l` prints it: `SHA256:...`. Makes the key if need be."""
        return self._loaded_key().get_fingerprint()

    async def start(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise EnvironmentProblem(
                f"the folder to serve cannot be made: {error.strerror}",
                where=str(self.directory),
                mend="let the lab write there, or name another directory",
            ) from error
        fingerprint = self.host_key
        await self._listener.start()
        self._emit(SftpServerStarted(self.address, self.port, fingerprint))

    async def stop(self) -> None:
        """Say goodbye to every client, then close the port."""
        if not self.is_running:
            return
        for session in tuple(self._sessions):
            session.disconnect(asyncssh.DISC_SERVICE_NOT_AVAILABLE, "the server is stopping")
        if self._serving:
            await asyncio.wait(self._serving, timeout=STOP_TIMEOUT_S)
        await self._listener.stop()
        self._emit(SftpServerStopped())

    async def crash(self) -> None:
        """Every connection is reset, nothing is said."""
        if not self.is_running:
            return
        await self._listener.crash()
        self._emit(SftpServerStopped(crashed=True))

    def set_reachability(self, how: Reachability) -> None:
        self._listener.set_reachability(how)

    def _loaded_key(self) -> asyncssh.SSHKey:
        if self._key is None:
            self._key = _read_key(self._key_file) or _make_key(self._key_file)
        return self._key

    async def _serve(self, stream: Stream) -> None:
        task = asyncio.ensure_future(self._carry(stream))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        await task

    async def _carry(self, stream: Stream) -> None:
        """Carry bytes between the client and its SSH session until one of them ends."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        login = _Login(self, stream.peer_address[0])
        try:
            await self._carry_between(stream, ours, theirs, login)
        finally:
            if login.connection is None:
                theirs.close()  # else it is the connection's

    async def _carry_between(self, stream: Stream, ours: socket.socket, theirs: socket.socket, login: _Login) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        tasks = [
            asyncio.ensure_future(work)
            for work in (self._run_ssh(theirs, login), _carry_in(stream, writer), _carry_out(reader, stream))
        ]
        try:
            # the session's last words come out behind its end, so it is the way out that ends the connection
            await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
            await stream.flush()
        finally:
            writer.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_ssh(self, end: socket.socket, login: _Login) -> None:
        try:
            session = await asyncssh.run_server(
                end,
                server_factory=lambda: login,
                server_host_keys=[self._key_for(login.peer)],
                compression_algs=["none"],  # what is small on the wire is small in memory
                login_timeout=LOGIN_TIMEOUT_S,
                public_key_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                allow_pty=False,
                agent_forwarding=False,
                x11_forwarding=False,
            )
            await session.wait_closed()
        finally:
            if login.connection is not None:
                self._sessions.discard(login.connection)
                login.connection.abort()

    def _key_for(self, peer: str) -> asyncssh.SSHKey:
        if isinstance(self._faults.fire(SFTP_CONNECT, peer=peer), WrongHostKey):
            return asyncssh.generate_private_key(_KEY_KIND)
        return self._loaded_key()

    def _may_log_in(self, user: str, password: str, peer: str) -> bool:
        if isinstance(self._faults.fire(SFTP_LOGIN, peer=peer, user=user[:64]), RefuseLogin):
            return False
        known = hmac.compare_digest(user.encode(), self.user.encode())
        return hmac.compare_digest(password.encode(), self._password) and known


class _Login(asyncssh.SSHServer):
    """Authentication of one connection; asyncssh's own answers refuse everything that is not said here."""

    def __init__(self, server: SftpServer, peer: str) -> None:
        self._server = server
        self.peer = peer
        self._attempts = 0
        self._channels = 0
        self._open_files: set[FolderFile] = set()
        self.connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn
        self._server._sessions.add(conn)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        if self._server._may_log_in(username, password, self.peer):
            self._server._emit(SftpLoginAccepted(self.peer, username))
            return True
        self._server._emit(SftpLoginRefused(self.peer, username[:64]))
        self._attempts += 1
        if self._attempts >= MAX_LOGIN_ATTEMPTS and self.connection is not None:
            self.connection.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many wrong passwords")
        return False

    def session_requested(self) -> SSHServerStreamSession[bytes] | bool:
        """SFTP and nothing else: no shell, no command, no scp."""
        self._channels += 1
        if self._channels > MAX_SESSIONS:
            return False
        return SSHServerStreamSession(None, self._new_session, sftp_version=3)

    def _new_session(self, channel: SSHChannel[bytes]) -> FolderSession:
        return FolderSession(
            cast(asyncssh.SSHServerChannel[bytes], channel),
            self._server._folder,
            self.peer,
            self._server._emit,
            self._open_files,
            self._server._faults,
        )


async def _carry_in(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read():
        writer.write(data)
        await writer.drain()


async def _carry_out(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(READ_SIZE):
        stream.write(data)
        await stream.drain()


def _read_key(path: Path) -> asyncssh.SSHKey | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_HOST_KEY)
        path.chmod(0o600)
        return asyncssh.import_private_key(data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentProblem(f"cannot be read: {error.strerror}", where=str(path), mend="delete it") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise UsageError(
            f"holds no host key: {error}", where=str(path), mend="delete it: a new one is made, clients will notice"
        ) from error


def _make_key(path: Path) -> asyncssh.SSHKey:
    key = asyncssh.generate_private_key(_KEY_KIND, comment="cucm-migration-lab toy")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, key.export_private_key())
    return key
