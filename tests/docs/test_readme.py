"""What the README promises is tried: its commands run as written, its files and lines exist, make does as it says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_on_sockets import PHONE, make_lab, network_of
from own_block import FOR_README

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^ {4}(?:\.venv/bin/)?cucm-lab ([^#\n]+?)\s*(?:#|$)", re.MULTILINE)
INLINE = re.compile(r"`(?:\.venv/bin/)?cucm-lab ([^`]+)`")
MODULE = re.compile(r"`(?:\s*)python -m ([a-z_]+) --help`")
COMMANDS = sorted({*BLOCK.findall(README), *INLINE.findall(README)})
SERVED = {
    "tvs query HOST --certificate CERT.pem": "SAST",
    "tvs verify HOST CERT.pem": "0 (valid)",
}
"""Commands that ask a running TVS, and a word of the answer."""
TRIED = {
    "scenarios": "migrate ",
    "run callmanager-trust-only": "tvs-answer-lacks-role",
    "run tvs-not-restarted": "tvs-certificate-not-found",
    "run rollback-parameter": "tvs-not-in-trust-list",
    "run ./mine.toml": "Verdict   ended as it should",
    "show ctl CTLFile.tlv": "The CTL file was verified successfully.",
    "verify NEW.tlv --against OLD.tlv ...": "ACCEPTED",
    "decode trace.txt": "QUERY_CERT",
    "fleet --phones 200 --out out/fleet": "200 of 200 phones are registered at destination",
    "exec -- curl -sk https://ucm11pub:8443/": "This is ucm11pub of an emulated lab",
}
"""Every other command and a text of what it prints; exit code 0 is promised."""
UP = "up campus --network 127.0.12.0/24"
RUNNING = {
    "status": "src-sub1",
    "op reset-phone phones=all": "REGISTERED with src-sub1",
    "op upload-certificate certificate=CallManager from=destination to=source stores=Phone-SAST-trust": "dst-tftp",
    "op --list": "upload-certificate",
    "truth phones": "SEP00A1B2000001",
    "show ctl source/src-pub": "The CTL file was verified successfully.",
    "show phone SEP00A1B2000001": "Trust List Updated",
    "certificates list source/src-sub1 Phone-SAST-trust": "dst-pub",
    'sql source/src-sub1 "select subjectname from certificate"': "CN=src-pub",
    "fault points http.response": "wrong-length",
    "fault set http.response status code=503 match.phone=SEP00A1B2000001 times=1 id=busy": "busy is in force",
    "phone reset SEP00A1B2000001": "FAULT busy hits (1)",
    """wait --for "phones.SEP00A1B2000001.registered == 'source'" --timeout 60""": "true",
    "fault list": "busy",
    "fault end --all": "busy ended after 1 hit\n",
    "checkpoint before": "before is kept",
    "clock +30d": "moved by +30d",
    "restore before": "as it was at before",
    "logs SEP00A1B2000001 --tail 20": "SECUREAPP",
    "logs src-sub1 --as plain": "registered from",
    "events --kind 'fault.*'": "fault.fired",
    "inspect faults": "{}",
    "down": "ended;",
}
"""Commands for the lab that `UP` runs, in the README's order, and a text of what they print."""


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make lab`'s command, its printed text in `stdout.txt` beside the folder."""
    folder = tmp_path_factory.mktemp("readme") / "migrate"
    done = cucm_lab(ROOT, "run", "migrate", "--logs", "--out", str(folder), "--network", str(FOR_README))
    assert done.returncode == 0, done.stderr
    (folder.parent / "stdout.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def cucm_lab(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab.cli", *words],
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, migrated: Path) -> Path:
    """A folder with the files that the README's commands name."""
    after = migrated / "flash" / PHONE / "after"
    for name, source in {
        "CTLFile.tlv": after / "CTLFile.tlv",
        "OLD.tlv": after / "CTLFile.tlv",
        "NEW.tlv": after / "ITLFile.tlv",
        "trace.txt": migrated / "tvs-ucm105pub.log",
        "mine.toml": ROOT / "lab" / "scenarios" / "tvs-down.toml",
    }.items():
        shutil.copy(source, tmp_path / name)
    return tmp_path


def test_every_command_of_the_readme_is_tried() -> None:
    validated = "validate ./mine.toml"
    assert set(COMMANDS) == {*TRIED, *SERVED, *RUNNING, UP, validated, "doctor"}


def test_a_running_lab_does_what_the_readme_says(tmp_path: Path, loopback: Callable[[], str]) -> None:
    words = [*shlex.split(UP)[:-1], str(network_of(loopback))]
    up = subprocess.Popen(
        [sys.executable, "-m", "lab.cli", *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert up.stdout is not None
        assert "ready\n" in iter(up.stdout.readline, "")
        for command, promised in RUNNING.items():
            done = cucm_lab(tmp_path, *shlex.split(command))
            assert done.returncode == 0, done.stdout + done.stderr
            assert promised in done.stdout
    finally:
        up.terminate()
        assert up.wait(60) == 0
        if up.stdout is not None:
            up.stdout.close()


def test_a_story_of_ones_own_is_validated(desk: Path) -> None:
    done = cucm_lab(desk, "validate", "./mine.toml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", TRIED)
def test_a_command_does_what_the_readme_says(command: str, desk: Path, loopback: Callable[[], str]) -> None:
    words = shlex.split(command.removesuffix(" ..."))
    if words[0] == "run":
        words += ["--network", str(network_of(loopback))]  # the tests run in parallel
    done = cucm_lab(desk, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert TRIED[command] in done.stdout
    if command.startswith("run ") and "mine" not in command:
        for promised in ("\nCause     ", "\nRepair    ", "\nEvidence  ", "\nVerdict   ended as it should"):
            assert promised in done.stdout


@pytest.mark.parametrize("command", SERVED)
async def test_a_tvs_is_asked(command: str, tmp_path: Path, loopback: Callable[[], str]) -> None:
    async with make_lab(tmp_path / "lab", network_of(loopback)) as lab:
        node = lab.cluster("source").publisher
        shutil.copy(node.directory / "security" / "CallManager.pem", tmp_path / "CERT.pem")
        words = [node.address if word == "HOST" else word for word in shlex.split(command)]
        done = await asyncio.to_thread(cucm_lab, tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SERVED[command] in done.stdout


def test_the_doctor_says_what_this_machine_can_do() -> None:
    done = cucm_lab(ROOT, "doctor")
    assert done.returncode in (0, 3), done.stderr
    assert "Python" in done.stdout


@pytest.mark.parametrize("module", ["tvs_server", "tftp_server", "phone_agent"])
def test_the_parts_run_alone(module: str) -> None:
    assert module in MODULE.findall(README)
    words = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "usage:" in done.stdout


def test_make_labs_files_are_those_named(migrated: Path) -> None:
    paragraph = README.partition("Its files are in `out/migrate/`")[2].partition("\n\n")[0]
    names = [name for name in re.findall(r"`([^`]+)`", paragraph) if not name.startswith("make")]
    assert len(names) == 6
    assert [name for name in names if not (migrated / name).exists()] == []


def test_make_lab_ends_with_the_verdict_after_console_and_trace(migrated: Path) -> None:
    text = (migrated.parent / "stdout.txt").read_text(encoding="utf-8")
    verdict = re.search(r"ends with\n\n {4}(.+)\n", README)
    assert verdict
    places = [text.index(part) for part in ("----- phone-", "----- tvs-", verdict.group(1))]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("line", "log"),
    [
        ("bytes written : 153", f"phone-{PHONE}.log"),
        ("Hashes match... authentication successful.", f"phone-{PHONE}.log"),
        ("Found entry {rolecount : 2}", "tvs-ucm105pub.log"),
    ],
)
def test_lines_that_the_readme_explains_are_in_the_logs(line: str, log: str, migrated: Path) -> None:
    assert f"`{line}`" in README
    assert line in (migrated / log).read_text(encoding="utf-8")


# --- make


@pytest.fixture
def makefile(tmp_path: Path) -> Path:
    """A copy of the Makefile with what it depends on, and stamps of a finished installation."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    for moment, stamp in ((2**31, "run.stamp"), (2**31 + 1, "dev.stamp")):
        (tmp_path / ".venv" / stamp).touch()
        os.utime(tmp_path / ".venv" / stamp, (moment, moment))
    return tmp_path


def planned(folder: Path, target: str) -> str:
    """What make would run."""
    done = subprocess.run(["make", "-n", target], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def targets() -> list[str]:
    return re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.needs("make")
def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    listed = re.findall(r"^ +make ([a-z-]+) +\S", done.stdout, re.MULTILINE)
    assert listed == targets()
    assert {"lab", "test", "lint", "failures", "bench", "clean"} <= set(listed)


@pytest.mark.needs("make")
@pytest.mark.parametrize("target", ["lab", "failures", "scenarios", "lint", "unit", "bench"])
def test_a_second_make_starts_no_installer(makefile: Path, target: str) -> None:
    assert "pip" not in planned(makefile, target)
    (makefile / ".venv" / "run.stamp").unlink()
    assert "pip" in planned(makefile, target)


@pytest.mark.needs("make")
def test_changed_requirements_are_installed(makefile: Path) -> None:
    os.utime(makefile / "constraints.txt", (2**31 + 9, 2**31 + 9))
    assert "pip" in planned(makefile, "lab")


@pytest.mark.needs("make")
def test_make_lab_runs_the_migration() -> None:
    assert "cucm-lab run migrate --logs --out out/migrate" in planned(ROOT, "lab")
