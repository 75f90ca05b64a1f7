"""The SFTP server over which two clusters exchange their certificates; usable from outside with any SFTP client.

One user, password authentication only, one folder; no shell, no command, no forwarding. SSH is asyncssh's. It runs on
one end of a socket pair whose other end a `Listener` feeds, so that limits, crashes and firewalls are the lab's own,
the same as of every other server here. It is imported for the first client (`lab.sftp_login`), not before: that costs
as much as starting a whole lab.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cucm.errors import EnvironmentProblem, UsageError
from cucm.events import Emit, ignore
from cucm.events.sftp import (
    SftpConnectionRefused,
    SftpServerStarted,
    SftpServerStopped,
)
from cucm.faults import NO_FAULTS, FaultSource
from cucm.faults.catalogue.sftp import SFTP_LOGIN, RefuseLogin
from cucm.net.listener import STOP_TIMEOUT_S, Limits, Listener
from cucm.net.reachability import Reachability
from cucm.net.stream import READ_SIZE, Address, Stream
from lab.sftp_host_key import HostKey, load_or_make

if TYPE_CHECKING:
    from lab.sftp_folder import FolderLimits
    from lab.sftp_login import Login

LIMITS: Final = Limits(connections=64, connections_per_address=32, idle_timeout_s=600.0)


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
        self.emit = emit
        self.faults = faults
        self.folder_limits = folder_limits
        self._listener = Listener(
            address,
            port,
            self._serve,
            limits=limits,
            faults=faults.at(service="SFTP"),
            on_refused=self._tell_refused,
        )
        self._key: HostKey | None = None
        self._logins: set[Login] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def _tell_refused(self, peer: Address, why: str) -> None:
        self.emit(SftpConnectionRefused(peer[0], why))

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def is_running(self) -> bool:
        return self._listener.is_listening

    @property
    def host_key(self) -> str:
        """Fingerprint of the host key, as `ssh-keygen -l` prints it: `SHA256:...`. Makes the key if need be."""
        return self.loaded_key().fingerprint

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
        self.emit(SftpServerStarted(self.address, self.port, fingerprint))

    async def stop(self) -> None:
        """Say goodbye to every client, then close the port."""
        if not self.is_running:
            return
        for login in tuple(self._logins):
            login.say_goodbye()
        if self._serving:
            await asyncio.wait(self._serving, timeout=STOP_TIMEOUT_S)
        await self._listener.stop()
        self.emit(SftpServerStopped())

    async def crash(self) -> None:
        """Every connection is reset, nothing is said."""
        if not self.is_running:
            return
        await self._listener.crash()
        self.emit(SftpServerStopped(crashed=True))

    def set_reachability(self, how: Reachability) -> None:
        self._listener.set_reachability(how)

    def loaded_key(self) -> HostKey:
        """Read, or made, when it is first asked for."""
        if self._key is None:
            self._key = load_or_make(self._key_file)
        return self._key

    async def _serve(self, stream: Stream) -> None:
        task = asyncio.ensure_future(self._carry(stream))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        await task

    async def _carry(self, stream: Stream) -> None:
        """Carry bytes between the client and its SSH session until one of them ends."""
        login = (await asyncio.to_thread(_login_class))(self, stream.peer_address[0])
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._logins.add(login)
        try:
            await self._carry_between(stream, ours, theirs, login)
        finally:
            self._logins.discard(login)
            if login.connection is None:
                theirs.close()  # else it is the connection's

    async def _carry_between(self, stream: Stream, ours: socket.socket, theirs: socket.socket, login: Login) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        tasks = [
            asyncio.ensure_future(work)
            for work in (login.run_on(theirs), _carry_in(stream, writer), _carry_out(reader, stream))
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

    def may_log_in(self, user: str, password: str, peer: str) -> bool:
        """Whether user and password are the ones that were set, and no fault refuses them."""
        if isinstance(self.faults.fire(SFTP_LOGIN, peer=peer, user=user[:64]), RefuseLogin):
            return False
        known = hmac.compare_digest(user.encode(), self.user.encode())
        return hmac.compare_digest(password.encode(), self._password) and known


def _login_class() -> type[Login]:
    """In a thread: the first time it imports asyncssh, and the loop has other things to serve meanwhile."""
    from lab.sftp_login import Login

    return Login


async def _carry_in(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read():
        writer.write(data)
        await writer.drain()


async def _carry_out(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(READ_SIZE):
        stream.write(data)
        await stream.drain()
