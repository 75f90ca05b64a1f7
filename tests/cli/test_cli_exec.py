"""`cucm-lab exec`: a command in a network of its own, beside a lab at its real addresses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from others_doings import until
from what_is_missing import lacking

from cucm.errors import EnvironmentProblem
from lab.namespace import CLEARED, namespace_command

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    try:
        namespace_command()
    except EnvironmentProblem as problem:
        lacking(str(problem))


def test_the_command_sees_the_lab_and_nothing_else(cucm_lab: Run) -> None:
    script = "cat /etc/hosts /etc/resolv.conf; ip -j route; env"
    variables = dict.fromkeys(("http_proxy", "HTTPS_PROXY", "SSL_CERT_FILE"), "http://127.0.0.1:1")
    done = cucm_lab("exec", "--phones", "off", "--", "sh", "-c", script, **variables)
    assert done.returncode == 0, done.stderr
    assert "192.168.11.32 ucm105pub.stormin.local ucm105pub\n" in done.stdout
    assert "nameserver" not in done.stdout
    (routes,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert [route["dst"] for route in routes] == ["192.168.11.0/24"], "no route leads out"
    set_here = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert not [name for name in set_here if CLEARED.fullmatch(name)]
    assert "CUCM_LAB_API=http://192.168.11.1:8480" in done.stdout


def test_variables_that_lead_out_or_let_trust_are_cleared() -> None:
    cleared = """
        http_proxy HTTPS_PROXY no_proxy ALL_PROXY npm_config_https_proxy RSYNC_PROXY SSL_CERT_FILE SSL_CERT_DIR
        NIX_SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE AWS_CA_BUNDLE NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO
        GIT_SSL_CAPATH HTTPLIB2_CA_CERTS PIP_CERT DENO_CERT GRPC_DEFAULT_SSL_ROOTS_FILE_PATH npm_config_cafile
        CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE CARGO_HTTP_CAINFO BUNDLE_SSL_CA_CERT HTTPS_CA_FILE PERL_LWP_SSL_CA_FILE
    """
    assert [name for name in cleared.split() if not CLEARED.fullmatch(name)] == []
    kept = "PATH HOME TLS_CERT_FILE MY_TOOL_CERT AFRICA_PATH PROXY_USER SSLKEYLOGFILE CUCM_LAB_API"
    assert [name for name in kept.split() if CLEARED.fullmatch(name)] == []


def test_the_lab_answers_to_its_name_there_and_to_no_other(cucm_lab: Run) -> None:
    ask = "curl -s -o /dev/null -w '%{http_code} '"
    script = f"{ask} http://cucm-lab:8480/v1; {ask} -H 'Host: evil.example:8480' http://cucm-lab:8480/v1"
    done = cucm_lab("exec", "--phones", "off", "--", "sh", "-c", script)
    assert done.stdout == "200 403 ", done.stderr


def test_commands_of_ours_work_inside(cucm_lab: Run, tmp_path: Path) -> None:
    script = "cucm-lab wait --for \"phones.SEPB000B4BA0AEE.registered == 'source'\" && curl -s $CUCM_LAB_API/v1/clock"
    done = cucm_lab("exec", "--directory", tmp_path / "lab", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("true\n")
    assert (tmp_path / "lab" / "lab.json").exists(), "the folder that was named stays"
    assert not (tmp_path / "lab" / "control.sock").exists()


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_its_exit_code_is_returned(cucm_lab: Run, script: str, code: int) -> None:
    assert cucm_lab("exec", "--phones", "off", "--", "sh", "-c", script).returncode == code


def test_standard_input_is_the_commands(cucm_lab: Run) -> None:
    assert cucm_lab("exec", "--phones", "off", "--", "cat", stdin=b"through\n").stdout == "through\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("exec", "--phones", "off", "--", "no-such-program"), 127, "no-such-program: No such file"),
        (("exec", "--phones", "off", "--", "/etc"), 126, "Permission denied"),
        (("exec",), 2, "COMMAND"),
        (("exec", "--topology", "campsu", "--", "true"), 2, "campus"),
        (("exec", "--json", "--", "true"), 2, "--json"),
    ],
)
def test_what_cannot_be_run_is_told(cucm_lab: Run, words: tuple[str, ...], code: int, told: str) -> None:
    done = cucm_lab(*words)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_where_a_program_is_missing_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.namespace._search_path", lambda: str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="'unshare' is missing"):
        namespace_command()


def test_where_namespaces_are_refused_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("unshare", "ip", "mount"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
        program.chmod(0o700)
    monkeypatch.setattr("lab.namespace._search_path", lambda: f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(EnvironmentProblem, match="Operation not permitted") as refused:
        namespace_command()
    assert "sysctl" in (refused.value.mend or "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_outlives_the_one_who_asked(number: signal.Signals, tmp_path: Path) -> None:
    mark = f"{1000 + number}.{os.getpid()}"  # seconds to sleep, which nobody else does
    command = ["sh", "-c", f"echo up; exec sleep {mark}"]
    words = ["exec", "--phones", "off", "--directory", str(tmp_path / "lab"), "--", *command]
    with subprocess.Popen([sys.executable, "-m", "lab.cli", *words], cwd=ROOT, stdout=subprocess.PIPE) as asking:
        try:
            assert asking.stdout is not None
            assert asking.stdout.readline() == b"up\n"
            asking.send_signal(number)
            assert asking.stdout.read() == b"", "ends when the last process that holds it has"
            assert asking.wait(PATIENCE_S) == (128 + number if number is not signal.SIGKILL else -number)
            assert not sleeps(mark)
        finally:
            asking.kill()


def test_what_a_killed_one_left_goes_at_the_next_start(cucm_lab: Run, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lab.cli", "exec", "--phones", "off", "--", "sh", "-c", "echo up; exec sleep 3000"]
    given = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, env=given) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == b"up\n"
        (living,) = tmp_path.glob("cucm-lab-*")
        assert cucm_lab("exec", "--phones", "off", "--", "true", TMPDIR=str(tmp_path)).returncode == 0
        assert (living / "lab").is_dir()
        asking.kill()
        asking.stdout.read()
    assert living.is_dir()
    assert cucm_lab("exec", "--phones", "off", "--", "true", TMPDIR=str(tmp_path)).returncode == 0
    assert not list(tmp_path.glob("cucm-lab-*"))


def test_ctrl_c_while_the_lab_starts_ends_it(tmp_path: Path) -> None:
    mark = f"2000.{os.getpid()}"
    words = ["exec", "--directory", str(tmp_path / "lab"), "--", "sleep", mark]
    with subprocess.Popen(
        [sys.executable, "-m", "lab.cli", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as asking:
        try:
            until((tmp_path / "lab").exists, asking)
            os.killpg(asking.pid, signal.SIGINT)
            assert asking.wait(PATIENCE_S) == 128 + signal.SIGINT
            assert asking.stderr is not None
            assert asking.stderr.read() in ("cucm-lab: interrupted\n", ""), "or by the command, which was there already"
            assert not sleeps(mark)
        finally:
            asking.kill()


def test_the_command_has_its_signals_as_from_a_shell(cucm_lab: Run) -> None:
    done = cucm_lab("exec", "--phones", "off", "--", "grep", "SigIgn", "/proc/self/status")
    ignored = int(done.stdout.split()[1], 16)
    assert not [one for one in (signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ) if ignored & 1 << (one - 1)]


def sleeps(mark: str) -> bool:
    """Whether `sleep MARK` runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"sleep\0{mark}\0".encode():
                return True
        except OSError:
            continue
    return False


def test_variables_are_no_words_of_a_command_line(cucm_lab: Run) -> None:
    done = cucm_lab("exec", "--phones", "off", "--", "sh", "-c", "cat /proc/*/cmdline; echo; env", SECRET="hush-42")
    lines = done.stdout.split("\0")
    assert "SECRET=hush-42" in done.stdout, "the command has it"
    assert not any("hush-42" in word for word in lines[:-1])
