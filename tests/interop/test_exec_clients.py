"""Unmodified public clients with hard-coded ports and addresses, inside `cucm-lab exec`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from what_is_missing import lacking

from cucm.errors import EnvironmentProblem
from lab.namespace import namespace_command

ROOT = Path(__file__).parents[2]
PATIENCE_S = 100
PHONE = "SEPB000B4BA0AEE"


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    try:
        namespace_command()
    except EnvironmentProblem as problem:
        lacking(str(problem))


def inside(script: str, directory: Path, *words: str) -> str:
    """What a shell script prints beside the lab of the seed."""
    command = [sys.executable, "-m", "lab.cli", "exec", *words, "--", "sh", "-ec", script]
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "SCRATCH": str(directory)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.needs("curl")
def test_curl_on_6970_and_the_web_ports(tmp_path: Path) -> None:
    said = inside(
        f"curl -sf http://ucm105pub:6970/{PHONE}.cnf.xml.sgn | wc -c; curl -sik http://ucm105pub/ | head -1;"
        "curl -skL http://ucm11pub/ | head -1; curl -sk https://192.168.11.32/ | head -1",
        tmp_path,
        "--phones",
        "off",
    ).splitlines()
    assert int(said[0]) > 1000
    assert "302 Found" in said[1]
    assert said[2].startswith("This is ucm11pub of an emulated lab")
    assert said[3].startswith("This is ucm105pub of an emulated lab")


@pytest.mark.needs("openssl")
def test_openssl_sees_the_certificates_of_tvs_callmanager_and_tomcat(tmp_path: Path) -> None:
    probe = "openssl s_client -connect ucm105pub:{port} {more} </dev/null 2>&1 | grep -m1 'subject=' ;"
    old = "-tls1_2 -cipher AES256-SHA:@SECLEVEL=0"
    script = "".join(
        probe.format(port=port, more=more) for port, more in ((2445, old), (5061, old), (8443, ""), (443, ""))
    )
    subjects = inside(script, tmp_path, "--phones", "off").splitlines()
    assert len(subjects) == 4
    assert all("ucm105pub" in subject for subject in subjects)


@pytest.mark.needs("tftp")
def test_tftp_hpa_on_69(tmp_path: Path) -> None:
    said = inside(f"cd $SCRATCH; tftp -m binary 192.168.11.32 -c get CTL{PHONE}.tlv; wc -c CTL{PHONE}.tlv", tmp_path)
    assert int(said.split()[0]) > 1000


@pytest.mark.needs("sftp")
@pytest.mark.needs("sshpass")
def test_openssh_sftp_on_22(tmp_path: Path) -> None:
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    said = inside(
        "cucm-lab op set-bulk-sftp cluster=source; cucm-lab op bulk-export cluster=source;"
        f"echo ls bulk | sshpass -p lab-toy sftp {options} bulk@192.168.11.3",
        tmp_path,
    )
    assert "p12" in said


@pytest.mark.needs("udhcpc")
def test_udhcpc_learns_option_150(tmp_path: Path) -> None:
    script = tmp_path / "told"
    script.write_text('#!/bin/sh\necho "$1 $ip $serverid $tftp $opt150"\n')
    script.chmod(0o755)
    ask = "udhcpc -i eth0 -n -q -f -O 150 -s $SCRATCH/told -t 5 -T 1;"
    said = inside(f"{ask} cucm-lab op set-option-150 cluster=destination; {ask} cucm-lab reset; {ask}", tmp_path)
    bound = [line for line in said.splitlines() if line.startswith("bound ")]
    assert bound[0].startswith("bound 192.168.11.2")
    assert "192.168.11.2 " in bound[0]
    assert "c0a80b20" in bound[0].lower() or "192.168.11.32" in bound[0]
    assert "c0a80b33" in bound[1].lower() or "192.168.11.51" in bound[1]
    assert "c0a80b20" in bound[2].lower() or "192.168.11.32" in bound[2], "as it was before the reset"


@pytest.mark.needs("sipp")
def test_sipp_gets_an_answer_on_5060(tmp_path: Path) -> None:
    scenario = tmp_path / "options.xml"
    scenario.write_text(
        '<?xml version="1.0"?><scenario name="options"><send retrans="500"><![CDATA[\n'
        "OPTIONS sip:[remote_ip]:[remote_port] SIP/2.0\n"
        "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n"
        "From: <sip:a@[local_ip]>;tag=1\nTo: <sip:b@[remote_ip]>\nCall-ID: [call_id]\nCSeq: 1 OPTIONS\n"
        'Max-Forwards: 70\nContent-Length: 0\n\n]]></send><recv response="200"/></scenario>'
    )
    said = inside(
        "cd $SCRATCH; sipp 192.168.11.32:5060 -sf options.xml -t t1 -m 1 -i 192.168.11.250 -nostdin >out 2>&1"
        " && echo answered",
        tmp_path,
        "--phones",
        "off",
    )
    assert "answered" in said
