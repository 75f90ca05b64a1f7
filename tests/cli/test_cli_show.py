from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cucm.roles import TrustRole

ROOT = Path(__file__).parent.parent.parent


def test_a_ctl_is_printed_and_verified(cucm_lab, files):
    os.utime(files.source_ctl, (1_425_667_513, 1_425_667_513))
    done = cucm_lab("show", "ctl", files.source_ctl)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    data = files.source_ctl.read_bytes()
    assert lines[:3] == [
        "The checksum value of the CTL file:",
        f"{hashlib.md5(data).hexdigest()}(MD5)",
        f"{hashlib.sha1(data).hexdigest()}(SHA1)",
    ]
    assert f"Length of CTL file: {len(data)}" in lines
    assert "The CTL File was last modified on Fri Mar 06 18:45:13 UTC 2015" in lines
    assert "4       FUNCTION        2       System Administrator Security Token" in lines
    assert "This etoken was used to sign the CTL file." in lines
    assert lines[-1] == "The CTL file was verified successfully."


def test_an_itl_from_standard_input(cucm_lab, files):
    done = cucm_lab("show", "itl", "-", stdin=files.source_itl.read_bytes())
    assert done.returncode == 0
    assert "ITL Record #:3" in done.stdout
    assert "4       FUNCTION        2       TVS" in done.stdout


def test_as_json(cucm_lab, files, source):
    done = cucm_lab("show", "itl", files.source_itl, "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert (answer["schema"], answer["kind"], answer["verified"], answer["problem"]) == (1, "ITL", True, None)
    assert [record["function"]["number"] for record in answer["records"]] == [0, 2, 21]
    assert [record["signed_the_file"] for record in answer["records"]] == [True, False, False]
    assert answer["signer"]["subject"] == source.identity.subject
    assert bytes.fromhex(answer["records"][0]["certificate"]) == source.identity.certificate_der


def test_a_file_of_the_other_kind_is_shown_with_a_note(cucm_lab, files):
    done = cucm_lab("show", "ctl", files.source_itl)
    assert done.returncode == 0
    assert done.stderr == "cucm-lab: note: this file calls itself ITLFile.tlv\n"


def test_a_changed_file_is_shown_and_exit_1(cucm_lab, files):
    data = bytearray(files.source_ctl.read_bytes())
    data[-1] ^= 1
    changed = files.add("changed.tlv", bytes(data))
    done = cucm_lab("show", "ctl", changed)
    assert done.returncode == 1
    assert "[cucm-lab] The CTL file was NOT verified: signature-mismatch" in done.stdout
    answer = json.loads(cucm_lab("show", "ctl", changed, "--json").stdout)
    assert answer["problem"]["reason"] == "signature-mismatch"


def test_a_signer_that_is_no_security_token(cucm_lab, files, source):
    data = source.trust_list(source.record(TrustRole.CALLMANAGER_TFTP))
    done = cucm_lab("show", "ctl", files.add("no-sast.tlv", data))
    assert done.returncode == 1
    assert "NOT verified: signer-lacks-role" in done.stdout


def test_no_such_file_in_ciscos_words(cucm_lab, tmp_path):
    done = cucm_lab("show", "ctl", tmp_path / "none.tlv")
    assert done.returncode == 2
    assert done.stdout.startswith("Length of CTL file: 0\nCTL File not found . Please run CTLClient plugin")
    assert "there is no such file" in done.stderr
    assert "error" in json.loads(cucm_lab("show", "ctl", tmp_path / "none.tlv", "--json").stdout)


def test_half_a_file_says_where_it_ends(cucm_lab, files):
    data = files.source_ctl.read_bytes()
    half = files.add("half.tlv", data[: len(data) // 2])
    done = cucm_lab("show", "ctl", half)
    assert done.returncode == 1
    assert "not a whole trust list" in done.stderr
    assert "half.tlv, offset " in done.stderr
    assert "record[1]" in done.stderr


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "the file is empty"), (b"\x00\xff" * 500, "not a whole trust list"), (b"<xml/>", "not a")],
)
def test_what_is_no_list(cucm_lab, files, content, text):
    done = cucm_lab("show", "itl", files.add("bad.tlv", content))
    assert done.returncode == 1
    assert text in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("name", "exit_code", "text"), [("/", 2, "this is a directory"), ("/dev/zero", 1, "longer than the 2097152 bytes")]
)
def test_what_cannot_be_read(cucm_lab, name, exit_code, text):
    done = cucm_lab("show", "ctl", name)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert text in done.stderr


def test_wrong_words(cucm_lab):
    assert cucm_lab("show", "stl", "x").returncode == 2
    assert cucm_lab("show").returncode == 2


@pytest.mark.parametrize("words", [("show", "ctl", "-"), ("decode", "-"), ("decode",)])
def test_a_closed_standard_input(words):
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "lab.cli", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b"standard input is closed" in done.stderr) == (2, True), done
