"""A directory on an SFTP server, as a publisher uses it: every step has a deadline, every failure says what to mend."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import asyncssh

from cucm.errors import LabError, LimitExceeded, UsageError
from lab.sftp_settings import SftpDeadlines, SftpSettings

__all__ = ["RemoteDirectory", "SftpDeadlines", "SftpSettings", "open_directory"]

MAX_NAMES: Final = 4096
"""Files looked at in a directory."""
_PARTIAL: Final = ".partial"
_GOODBYE_S: Final = 2.0


class RemoteDirectory:
    """An open session with one directory. Methods raise LabError, LimitExceeded for too much."""

    def __init__(self, settings: SftpSettings, host_key: str, client: asyncssh.SFTPClient, step_s: float) -> None:
        self.host_key = host_key
        self._settings = settings
        self._client = client
        self._step_s = step_s

    async def names(self) -> tuple[str, ...]:
        """What lies in the directory, in order; hidden files are left out."""
        found: list[str] = []
        async with self._step("listed", self._settings.directory):
            async for entry in self._client.scandir(self._settings.directory):
                if len(found) == MAX_NAMES:
                    raise LimitExceeded(f"more than {MAX_NAMES} files", where=self._settings.where, mend="tidy up")
                found.append(str(entry.filename))
        return tuple(sorted(name for name in found if not name.startswith(".")))

    async def read(self, name: str, limit: int) -> bytes:
        """The whole file. LimitExceeded if it has more than `limit` bytes."""
        async with self._step("read", name), self._open(self._path(name), "rb") as file:
            data: bytes = await file.read(limit + 1)
        if len(data) > limit:
            raise LimitExceeded(
                f"{name} has more than {limit} bytes", where=self._settings.where, mend="it is no bulk file: remove it"
            )
        return data

    async def write(self, name: str, data: bytes, writer: str) -> None:
        """Whole or not at all: written beside its place, then renamed. `writer` keeps two writers' files apart."""
        partial = self._path(f".{name}.{writer}{_PARTIAL}")
        async with self._step("written", name):
            try:
                async with self._open(partial, "wb") as file:
                    await file.write(data)
                await self._replace(partial, self._path(name))
            except BaseException:
                with suppress(asyncssh.Error, OSError, TimeoutError):
                    async with asyncio.timeout(1):
                        await self._client.remove(partial)
                raise

    async def _replace(self, partial: str, path: str) -> None:
        try:
            await self._client.posix_rename(partial, path)
        except asyncssh.SFTPOpUnsupported:  # servers other than OpenSSH and ours
            if await self._client.exists(path):
                await self._client.remove(path)
            await self._client.rename(partial, path)

    def _open(self, path: str, how: str) -> AbstractAsyncContextManager[Any]:
        """One request at a time: of several, asyncssh looks at one only when the connection is lost."""
        opened: AbstractAsyncContextManager[Any] = self._client.open(path, how, max_requests=1)
        return opened

    def _path(self, name: str) -> str:
        if "/" in name or name in ("", ".", ".."):
            raise UsageError(f"{name!r} is no file name")
        return posixpath.join(self._settings.directory, name)

    @asynccontextmanager
    async def _step(self, verb: str, what: str) -> AsyncIterator[None]:
        with _explained(self._settings, f"{what} cannot be {verb}"):
            async with asyncio.timeout(self._step_s):
                yield


@asynccontextmanager
async def open_directory(
    settings: SftpSettings, *, local_address: str | None = None, deadlines: SftpDeadlines | None = None
) -> AsyncIterator[RemoteDirectory]:
    """Log in and make sure that the directory is there. Raises LabError with what to mend."""
    times = deadlines or SftpDeadlines()
    login = _Login(settings.host_key)
    with _connecting(settings, login):
        connection = await _connect(settings, login, local_address, times.connect)
    try:
        with _explained(settings, "the SFTP session cannot be opened"):
            async with asyncio.timeout(times.step):
                client = await connection.start_sftp_client()
        directory = RemoteDirectory(settings, login.shown, client, times.step)
        await directory.names()
        yield directory
    finally:
        connection.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(times.step, _GOODBYE_S)):
                    await connection.wait_closed()
        finally:
            connection.abort()  # whoever waits no longer, cancelled or not, leaves nothing open


class _Login(asyncssh.SSHClient):
    """Compares the host key before the password is sent."""

    def __init__(self, expected: str | None) -> None:
        self._expected = expected
        self.shown = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        self.shown = key.get_fingerprint()
        return self._expected in (None, self.shown)


async def _connect(
    settings: SftpSettings, login: _Login, local_address: str | None, timeout_s: float
) -> asyncssh.SSHClientConnection:
    """Nothing of the user's own (keys, agent, configuration, known hosts) has a part in it."""
    async with asyncio.timeout(timeout_s):
        return await asyncssh.connect(
            settings.address,
            settings.port,
            local_addr=(local_address, 0) if local_address else None,
            config=None,
            username=settings.user,
            password=settings.password,
            client_factory=lambda: login,
            known_hosts=([], [], []),
            x509_trusted_certs=None,
            client_keys=None,
            agent_path=None,
            gss_host=None,
            preferred_auth=["password"],
            compression_algs=["none"],  # what is small on the wire is small in memory
            login_timeout=timeout_s,
        )


@contextmanager
def _connecting(settings: SftpSettings, login: _Login) -> Iterator[None]:
    where = settings.where
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise LabError(
            f"the host key of the SFTP server has changed: it shows {login.shown}, known is {settings.host_key}",
            where=where,
            mend="make sure that it is the right server, then set the SFTP data anew with its fingerprint",
        ) from error
    except asyncssh.PermissionDenied as error:
        raise LabError(
            f"the SFTP server refuses user {settings.user!r} or the password", where=where, mend="set the right ones"
        ) from error
    except TimeoutError as error:
        raise _unreachable("it does not answer", where) from error
    except asyncssh.Error as error:
        raise LabError(f"the SSH session failed: {error.reason}", where=where, mend="see the server's log") from error
    except ValueError as error:  # for instance a user id without a name, which asyncssh wants to know
        raise LabError(f"SSH cannot be used: {error}", where=where, mend="set LOGNAME in the environment") from error
    except OSError as error:
        raise _unreachable(os.strerror(error.errno) if error.errno else str(error), where) from error


def _unreachable(why: str, where: str) -> LabError:
    return LabError(
        f"the SFTP server cannot be reached: {why}",
        where=where,
        mend="start it, or set the right address and port; a firewall may be in between",
    )


@contextmanager
def _explained(settings: SftpSettings, what: str) -> Iterator[None]:
    where = settings.where
    try:
        yield
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
        raise LabError(
            f"{what}: there is no such file or directory on the server",
            where=where,
            mend="set a directory that exists there: both clusters need the same one",
        ) from error
    except asyncssh.SFTPPermissionDenied as error:
        raise LabError(
            f"{what}: the server does not permit it", where=where, mend="give the user the right to read and write"
        ) from error
    except TimeoutError as error:
        raise LabError(f"{what}: the SFTP server has fallen silent", where=where, mend="try again") from error
    except (asyncssh.Error, OSError) as error:
        reason = error.reason if isinstance(error, asyncssh.Error) else error.strerror
        raise LabError(f"{what}: {reason or error}", where=where, mend="see the server's log") from error
