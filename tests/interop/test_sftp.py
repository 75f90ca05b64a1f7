"""OpenSSH's `sftp` uses the lab's server; what it fetches, `openssl pkcs12` opens."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sftp_exchange import PASSWORD, USER, settings_of, sftp_server

from cucm.certificates import node_certificate
from cucm.database import PutOutcome
from cucm.key_store import KeyStore
from cucm.roles import CertificateUnit
from lab.bulk_certificates import BulkCertificateManagement
from lab.bulk_files import BULK_PASSWORD
from lab.sftp_server import SftpServer

pytestmark = [pytest.mark.needs("sftp"), pytest.mark.needs("sshpass")]
Draw = Callable[[], str]
DEADLINE_S = 60


async def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Exit code and everything the program said."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(stdin), DEADLINE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")


def ssh_options(server: SftpServer, known_hosts: Path) -> list[str]:
    options = {
        "UserKnownHostsFile": known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "accept-new",
        "NumberOfPasswordPrompts": 1,
        "PubkeyAuthentication": "no",
        "ConnectTimeout": 20,
    }
    return ["-F", "/dev/null", *(f"-o{name}={value}" for name, value in options.items()), f"-oPort={server.port}"]


async def sftp(server: SftpServer, tmp_path: Path, commands: str, password: str = PASSWORD) -> tuple[int, str]:
    options = ssh_options(server, tmp_path / "known_hosts")
    return await run(
        "sshpass",
        "-p",
        password,
        "sftp",
        *options,
        "-oBatchMode=no",
        f"{USER}@{server.address}",
        stdin=commands.encode(),
    )


class OneNode:
    """A cluster of one node and one certificate."""

    version = "11.5"

    def __init__(self) -> None:
        self.der = node_certificate(
            KeyStore(), CertificateUnit.CALLMANAGER, "ucm11pub", seed=1, not_before=1_480_000_000
        ).certificate_der

    def require_up(self) -> None:
        pass

    def own_certificates(self, unit: CertificateUnit) -> list[tuple[str, bytes]]:
        return [("ucm11pub", self.der)] if unit is CertificateUnit.CALLMANAGER else []

    def upload(self, der: bytes, store: CertificateUnit) -> PutOutcome:
        raise AssertionError("nothing is imported here")


@pytest.mark.needs("openssl")
async def test_an_export_is_listed_fetched_and_opened(tmp_path: Path, loopback: Draw) -> None:
    source = OneNode()
    async with sftp_server(tmp_path, loopback) as server:
        bulk = BulkCertificateManagement("cluster2", "ucm11pub", "11.5", source, tmp_path / "state.json")
        await bulk.set_sftp(settings_of(server))
        await bulk.export("TFTP")
        code, output = await sftp(server, tmp_path, f"cd bulk\npwd\nls -l\nget *.p12 {tmp_path}/\n")
    assert code == 0, output
    assert "Remote working directory: /bulk" in output
    name = "ucm11pub@cluster2.tftp.p12"
    (line,) = (line for line in output.splitlines() if line.startswith("-rw") and name in line)
    assert line.startswith("-rw-------")
    password = f"pass:{BULK_PASSWORD.decode()}"
    code, text = await run("openssl", "pkcs12", "-in", str(tmp_path / name), "-nokeys", "-passin", password)
    assert code == 0, text
    assert "friendlyName: unit=CallManager node=ucm11pub cluster=cluster2 version=11.5" in text


async def test_files_and_folders_from_outside(tmp_path: Path, loopback: Draw) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(bytes(range(256)) * 2000)
    commands = [
        f"put -p {mine} bulk/a.bin",
        "rename bulk/a.bin bulk/b.bin",
        f"get bulk/b.bin {tmp_path}/back.bin",
        "mkdir bulk/folder",
        "rmdir bulk/folder",
        "chmod 777 bulk/b.bin",
        "df",
        "ls bulk",
    ]
    async with sftp_server(tmp_path, loopback) as server:
        code, output = await sftp(server, tmp_path, "\n".join(commands) + "\n")
        (stored,) = (server.directory / "bulk").iterdir()
    assert code == 0, output
    assert stored.name == "b.bin"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "back.bin").read_bytes() == mine.read_bytes()


@pytest.mark.parametrize(
    "command",
    ["get ../secret", "get /../secret", "get bulk/out/secret", "cd bulk/out", "ln -s /etc bulk/x", "cd /etc"],
)
async def test_there_is_no_way_out(command: str, tmp_path: Path, loopback: Draw) -> None:
    (tmp_path / "secret").write_text("outside")
    async with sftp_server(tmp_path, loopback) as server:
        (server.directory / "bulk" / "out").symlink_to(tmp_path)
        _, output = await sftp(server, tmp_path, f"lcd {server.directory}\n{command}\n")
        assert not any(path.name == "secret" for path in server.directory.rglob("*"))
        assert not (server.directory / "bulk" / "x").is_symlink()
    failures = ("not found", "No such file", "unsupported", "Failure", "is not a directory", "Can't ls")
    assert any(text in output for text in failures), output


async def test_wrong_password(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        code, output = await sftp(server, tmp_path, "ls\n", password="wrong")
    assert code != 0
    assert "Permission denied" in output


@pytest.mark.needs("ssh")
@pytest.mark.parametrize("extra", [["id"], ["-tt"], ["-N", "-oExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"]])
async def test_ssh_gets_no_shell_command_or_forwarding(extra: list[str], tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        options = ssh_options(server, tmp_path / "known_hosts")
        code, output = await run("sshpass", "-p", PASSWORD, "ssh", *options, f"{USER}@{server.address}", *extra)
    assert code != 0, output
    assert "uid=" not in output


@pytest.mark.needs("ssh-keygen")
async def test_the_fingerprint_is_the_one_openssh_prints(tmp_path: Path, loopback: Draw) -> None:
    async with sftp_server(tmp_path, loopback) as server:
        await sftp(server, tmp_path, "ls\n")
        _, output = await run("ssh-keygen", "-l", "-f", str(tmp_path / "known_hosts"))
        assert server.host_key in output
        _, output = await run("ssh-keygen", "-l", "-f", str(tmp_path / "host_key"))
        assert server.host_key in output
