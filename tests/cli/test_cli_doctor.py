from __future__ import annotations

import json

import pytest

from lab.cli import examinations
from lab.cli.examinations import Verdict, examine, examine_addresses, examine_key_cache, examine_receive_buffer
from tftp_server import request_port, udp


def verdicts(findings) -> dict[str, str]:
    return {finding["subject"]: finding["verdict"] for finding in findings}


def test_this_machine_can_run_the_lab(cucm_lab):
    done = cucm_lab("doctor")
    assert done.returncode == 0, done.stdout
    assert "ok    TLS as old phones speak it: handshake with AES256-SHA in TLSv1.2" in done.stdout
    assert done.stdout.endswith("\nThe lab can run here.\n")


def test_as_json(cucm_lab):
    answer = json.loads(cucm_lab("doctor", "--json").stdout)
    assert (answer["schema"], answer["able"]) == (1, True)
    found = verdicts(answer["findings"])
    assert list(found)[:2] == ["Python", "libraries"]
    assert set(found.values()) <= {"ok", "warn", "fail"}
    assert found["addresses"] == found["signatures"] == "ok"


def test_a_bare_machine_is_warned_about_and_told_how_to_mend(cucm_lab, tmp_path, monkeypatch):
    monkeypatch.setattr(examinations, "TOOL_PATH", str(tmp_path))
    monkeypatch.setattr("lab.namespace._search_path", lambda: str(tmp_path))
    findings = {finding.subject: finding for finding in examine()}
    assert findings["openssl"].verdict is Verdict.WARN
    assert findings["user namespaces"].mend == "install the package util-linux (its name in Debian)"
    assert all(finding.mend for finding in findings.values() if finding.verdict is not Verdict.OK)


def test_a_key_cache_that_cannot_be_made_is_exit_3(cucm_lab):
    done = cucm_lab("doctor", CUCM_LAB_CACHE="/proc/self/nowhere/keys")
    assert done.returncode == 3
    assert "fail  key cache: /proc/self/nowhere/keys does not exist and cannot be made" in done.stdout
    assert "mend: set CUCM_LAB_CACHE to a directory that you may write" in done.stdout
    assert "The lab cannot run here" in done.stdout


def test_a_key_cache_others_can_read(tmp_path, monkeypatch):
    monkeypatch.setenv("CUCM_LAB_CACHE", str(tmp_path))
    tmp_path.chmod(0o755)
    finding = examine_key_cache()
    assert (finding.verdict, finding.mend) == (Verdict.WARN, f"chmod 700 {tmp_path}")
    tmp_path.chmod(0o700)
    assert examine_key_cache().verdict is Verdict.OK


def test_a_key_cache_that_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CUCM_LAB_CACHE", str(tmp_path / "file"))
    assert examine_key_cache().verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("platform", "command"),
    [("darwin", "sudo ifconfig lo0 alias 203.0.113.9 up"), ("linux", "sudo ip address add 203.0.113.9/8 dev lo")],
)
def test_addresses_the_machine_lacks(monkeypatch, platform, command):
    monkeypatch.setattr(examinations, "lab_addresses", lambda: ("127.0.0.1", "203.0.113.9"))
    monkeypatch.setattr(examinations.sys, "platform", platform)
    finding = examine_addresses()
    assert (finding.verdict, finding.mend) == (Verdict.FAIL, command)


def test_a_receive_buffer_that_the_kernel_caps(monkeypatch):
    """More than any kernel grants: what is told is what was really granted."""
    monkeypatch.setattr(request_port, "_SO_RCVBUFFORCE", -1)  # as for a user who is not root
    limit = int(examinations.RMEM_MAX.read_text())
    monkeypatch.setattr(udp, "RECEIVE_BUFFER_BYTES", 2 * limit)
    finding = examine_receive_buffer()
    assert finding.verdict is Verdict.WARN
    assert finding.result.startswith(f"port 69 gets {limit} bytes, net.core.rmem_max is {limit}: the kernel caps it")
    assert finding.mend == f"sudo sysctl -w net.core.rmem_max={2 * limit}"
    monkeypatch.setattr(udp, "RECEIVE_BUFFER_BYTES", limit)
    assert examine_receive_buffer().verdict is Verdict.OK


def test_a_machine_in_disorder_is_a_finding(monkeypatch):
    def broken() -> tuple[str, ...]:
        raise RuntimeError("no topology")

    monkeypatch.setattr(examinations, "lab_addresses", broken)
    finding = next(finding for finding in examine() if finding.subject == "addresses")
    assert (finding.verdict, finding.result) == (Verdict.FAIL, "RuntimeError: no topology")


def test_wrong_words(cucm_lab):
    assert cucm_lab("doctor", "now").returncode == 2
