"""One SSH connection to the lab's SFTP server: asyncssh's part of it, imported when the first client comes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, cast

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.stream import SSHServerStreamSession

from cucm.events.sftp import SftpLoginAccepted, SftpLoginRefused
from cucm.faults.catalogue.sftp import SFTP_CONNECT, WrongHostKey
from lab.sftp_folder import FolderFile, ServedFolder
from lab.sftp_session import FolderSession

if TYPE_CHECKING:
    from lab.sftp_server import SftpServer

LOGIN_TIMEOUT_S: Final = 20.0
MAX_LOGIN_ATTEMPTS: Final = 6
"""Wrong passwords on one connection, as OpenSSH's MaxAuthTries."""
MAX_SESSIONS: Final = 64
"""Channels that a client may open on one connection, in all; ours. OpenSSH's `sftp` opens one."""


class Login(asyncssh.SSHServer):
    """Authentication of one connection; asyncssh's own answers refuse everything that is not said here."""

    def __init__(self, server: SftpServer, peer: str) -> None:
        self._server = server
        self.peer = peer
        self._attempts = 0
        self._channels = 0
        self._open_files: set[FolderFile] = set()
        self.connection: asyncssh.SSHServerConnection | None = None

    async def run_on(self, end: socket.socket) -> None:
        """Speak SSH on this end of a socket pair until the client has gone."""
        try:
            session = await asyncssh.run_server(
                end,
                server_factory=lambda: self,
                server_host_keys=[self._host_key()],
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
            if self.connection is not None:
                self.connection.abort()

    def say_goodbye(self) -> None:
        """Tell the client that the server stops."""
        if self.connection is not None:
            self.connection.disconnect(asyncssh.DISC_SERVICE_NOT_AVAILABLE, "the server is stopping")

    def _host_key(self) -> asyncssh.SSHKey:
        if isinstance(self._server.faults.fire(SFTP_CONNECT, peer=self.peer), WrongHostKey):
            return asyncssh.generate_private_key("ssh-ed25519")
        return asyncssh.import_private_key(self._server.loaded_key().private)

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        if self._server.may_log_in(username, password, self.peer):
            self._server.emit(SftpLoginAccepted(self.peer, username))
            return True
        self._server.emit(SftpLoginRefused(self.peer, username[:64]))
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
            ServedFolder(self._server.directory, self._server.folder_limits),
            self.peer,
            self._server.emit,
            self._open_files,
            self._server.faults,
        )
