"""Every program that opens ports, on a machine that lets it open few: words and exit code 3, never a traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, Signer

PATIENCE_S = 60


@pytest.fixture
def words(tmp_path: Path, loopback) -> dict[str, tuple[str, ...]]:
    """The command line of each program, by name."""
    identity, own = Signer("ucm").identity, tmp_path / "own"
    own.mkdir()
    (own / "own.pem").write_bytes(identity.certificate_pem)
    (own / "own.key").write_bytes(identity.private_key_der)
    address, network = loopback(), loopback().rpartition(".")[0] + ".0/24"
    shown = ("--certificate", str(own / "own.pem"), "--private-key", str(own / "own.key"))
    return {
        "run": ("lab.cli", "run", "migrate", "--network", network),
        "up": ("lab.cli", "up", "--network", network, "--directory", str(tmp_path / "lab")),
        "fleet": ("lab.cli", "fleet", "--phones", "2"),
        "tvs_server": ("tvs_server", "--pem-folder", str(own), *shown, "--address", address, "--port", "0"),
        "tftp_server": ("tftp_server", str(own), "--address", address, "--tftp-port", "7069"),
        "phone_agent": ("phone_agent", "--mac", "001122334455", "--tftp", address, "--address", address),
    }


def with_few(words: tuple[str, ...], few: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (few, few)),
    )


@pytest.mark.parametrize("program", ["run", "up", "fleet", "tvs_server", "tftp_server", "phone_agent"])
@pytest.mark.parametrize("few", [8, 20])
def test_too_few_for_anything(words, program: str, few: int) -> None:
    told_of(with_few(words[program], few), few)


@pytest.mark.parametrize("program", ["run", "up"])
@pytest.mark.parametrize("few", [29, 32, 35, 38, 41, 44, 50, 56, 63, 69])
def test_too_few_for_a_lab(words, program: str, few: int) -> None:
    """Wherever it gets to with them."""
    told_of(with_few(words[program], few), few)


def told_of(done: subprocess.CompletedProcess[str], few: int) -> None:
    assert done.returncode == 3, done
    assert f"{few}" in done.stderr
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3, done.stderr
