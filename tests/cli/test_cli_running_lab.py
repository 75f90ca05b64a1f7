"""Commands against one running lab, started once for this module with `cucm-lab up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_block import FOR_RUNNING_LAB

ROOT = Path(__file__).parent.parent.parent
PHONE = "SEPB000B4BA0AEE"


class RunningLab:
    """A process of `cucm-lab up` in a folder of its own; `said` is what it printed up to "ready"."""

    def __init__(self, directory: Path, network: str, *words: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.cli", "up", "--directory", directory, "--network", network, *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "error"},
        )
        self.said = self._until_ready()

    def _until_ready(self) -> str:
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "ready\n":
                return "".join(lines)
        raise AssertionError(f"never ready: {''.join(lines)}{self.process.communicate()[1]}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit code and what else was printed on stdout and stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[RunningLab]:
    running = RunningLab(tmp_path_factory.mktemp("up") / "lab", str(FOR_RUNNING_LAB))
    yield running
    assert running.end() == (0, "ending (SIGTERM)\n", "")


@pytest.fixture
def ask(cucm_lab, lab):
    return lambda *words: cucm_lab(*words, "--directory", lab.directory)


def answer(done) -> dict:
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["schema"] == 1
    return value


def test_up_says_where_everything_is(lab):
    assert f"folder   {lab.directory} (new)\n" in lab.said
    assert ".32:2445" in lab.said
    assert ".51:6970" in lab.said
    assert f"control  {lab.directory}/control.sock\n" in lab.said


def test_status(ask, lab):
    done = ask("status")
    assert done.returncode == 0, done.stderr
    assert "cluster source: CUCM 10.5.2.11900-3, mixed" in done.stdout
    assert PHONE in done.stdout
    status = answer(ask("status", "--json"))
    assert status["directory"] == str(lab.directory)
    (node,) = status["clusters"][0]["nodes"]
    assert node["publisher"]
    states = {service["name"]: (service["state"], service["reachability"]) for service in node["services"]}
    assert {name: states[name] for name in ("CallManager", "TVS", "TFTP", "CAPF")} == dict.fromkeys(
        ("CallManager", "TVS", "TFTP", "CAPF"), ("running", "open")
    )


def test_a_phone_is_booted_and_the_truth_told(ask):
    done = ask("op", "reset-phone", f"phone={PHONE}")
    assert done.returncode == 0, done.stderr
    assert "REGISTERED with ucm105pub" in done.stdout
    line = ask("truth", "phones").stdout.splitlines()[2]
    assert line.split()[:4] == [PHONE, "registered", "source", "ucm105pub"]
    detail = ask("truth", "phones", PHONE).stdout
    assert f"{PHONE}: registered, registered: source (ucm105pub)\n" in detail
    assert "signed in    source" in detail
    truth = answer(ask("truth", "phones", "--json"))["phones"][PHONE]
    assert truth["ctl_list"]["sha1"] in detail
    assert truth["itl_list"]["signer_cluster"] == "source"


def test_screens_of_a_phone_and_of_its_flash_in_a_folder(ask, cucm_lab, lab):
    ask("op", "reset-phone", f"phone={PHONE}")
    done = ask("show", "phone", PHONE)
    assert done.returncode == 0, done.stderr
    sha1 = answer(ask("truth", "phones", "--json"))["phones"][PHONE]["ctl_list"]["sha1"]
    assert f"CTL Signature: {bytes.fromhex(sha1).hex(' ').upper()}" in done.stdout
    assert "Security Mode: Encrypted" in done.stdout
    assert f"\n  {PHONE}.cnf.xml\n" in done.stdout.partition("Status messages")[2]
    screens = answer(ask("show", "phone", PHONE, "--json"))
    assert screens["security"]["ctl"]["entries"][0]["has_certificate"]
    of_folder = answer(cucm_lab("show", "phone", lab.directory / "phones" / PHONE, "--json"))
    assert of_folder["security"] == screens["security"]
    unknown = ask("show", "phone", "SEP000000000000")
    assert (unknown.returncode, "no phone 'SEP000000000000'" in unknown.stderr) == (2, True)


def test_operations_as_json_and_refusals(ask):
    answer(ask("op", "power-off-phone", f"phone={PHONE}", "--json"))
    done = ask("op", "boot-phone", "phone=SEP000000000000")
    assert done.returncode == 2
    assert "mend:" in done.stderr
    answer(ask("op", "reset-phone", f"phone={PHONE}", "--json"))
    again = ask("op", "boot-phone", f"phone={PHONE}", "--json")
    assert again.returncode == 1
    assert "registered" in json.loads(again.stdout)["error"]["what"]


def test_sql(ask):
    done = ask("sql", "source", "select name, nodeid from processnode order by name limit 1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["name", "nodeid"]
    assert done.stdout.endswith("\n1 row\n")
    assert answer(ask("sql", "source/ucm105pub", "select 1 as one", "--json")) == {
        "schema": 1,
        "columns": ["one"],
        "rows": [[1]],
    }


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        (("source", "delete from device"), 2, "cannot be run: not authorized"),
        (("source", "delete from device"), 2, "--write"),
        (("source", "select * from nosuch"), 2, "select name from sqlite_master"),
        (("source", "selct 1"), 2, "syntax error"),
        (("nowhere", "select 1"), 2, "no cluster 'nowhere'"),
        (("source/nobody", "select 1"), 2, "no node 'nobody'"),
        (("a/b/c", "select 1"), 2, "names no cluster or node"),
    ],
)
def test_wrong_queries(ask, words, exit_code, text):
    done = ask("sql", *words)
    assert (done.returncode, text in done.stderr) == (exit_code, True), done


def test_sql_that_writes(ask):
    set_it = "update processconfig set paramvalue='{}' where paramname='ClusterSecurityMode'"
    done = ask("sql", "source", set_it.format("0"), "--write")
    assert (done.returncode, done.stdout) == (0, "1 row changed\n"), done.stderr
    assert answer(ask("status", "--json"))["clusters"][0]["security_mode"] == "non-secure"
    ask("sql", "source", set_it.format("1"), "--write")
    assert answer(ask("status", "--json"))["clusters"][0]["security_mode"] == "mixed"


def test_certificates_are_listed_shown_and_downloaded(ask, tmp_path):
    web = ask("certificates", "list", "source").stdout
    assert web.startswith("Certificate ")
    assert "CAPF-a7fb32bf" in web
    listing = ask("certificates", "list", "destination", "--format", "cli").stdout
    assert "CallManager/CallManager.pem: Certificate Signed by stormin-WIN2012-CA\n" in listing
    shown = ask("certificates", "show", "source/ucm105pub", "CAPF").stdout
    assert "  Subject Name: L=Sydney,ST=NSQ,CN=CAPF-a7fb32bf,OU=IST,O=stormin,C=AU\n" in shown
    out = tmp_path / "CallManager.pem"
    assert ask("certificates", "download", "destination", "callmanager", "--out", out).returncode == 0
    assert out.read_text() == ask("certificates", "download", "destination", "CallManager").stdout
    found = answer(ask("certificates", "list", "destination", "CallManager", "--json"))["certificates"]
    assert [one["pem"] for one in found] == [out.read_text()]
    again = ask("certificates", "download", "destination", "CallManager", "--out", out)
    assert (again.returncode, "cannot be written: File exists" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("show", "source"), "which certificate?"),
        (("show", "source", "Phone-SAST-trust"), "has no such certificate"),
        (("show", "source", "CallManager", "nobody"), "has no such certificate"),
        (("show", "source", "nothing"), "no certificate unit 'nothing'"),
        (("list", "nowhere"), "no cluster 'nowhere'"),
    ],
)
def test_certificates_that_are_not_there(ask, words, text):
    done = ask("certificates", *words)
    assert (done.returncode, text in done.stderr) == (2, True), done


def test_lists_of_a_node_are_shown_as_files_are(ask, cucm_lab, lab, tmp_path):
    done = ask("show", "ctl", "source/ucm105pub")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("The CTL file was verified successfully.\n")
    assert "ITL Record #:1" in ask("show", "itl", "destination/ucm11pub").stdout
    on_disk = next((lab.directory / "clusters" / "source").rglob("CTLFile.tlv"))
    assert cucm_lab("show", "ctl", on_disk).stdout == done.stdout
    unknown = ask("show", "itl", "source/nobody")
    assert (unknown.returncode, "no node 'nobody'" in unknown.stderr) == (2, True)


def test_a_node_without_the_file_in_ciscos_words(ask, lab):
    (ctl,) = (lab.directory / "clusters" / "destination").rglob("CTLFile.tlv")
    kept = ctl.read_bytes()
    ctl.unlink()
    done = ask("show", "ctl", "destination/ucm11pub")
    ctl.write_bytes(kept)
    assert done.returncode == 2
    assert done.stdout.startswith("Length of CTL file: 0\nCTL File not found .")


def test_a_second_lab_in_the_folder_is_refused(cucm_lab, lab):
    done = cucm_lab("up", "--directory", lab.directory)
    assert done.returncode == 3
    assert "a lab is running in this folder already" in done.stderr
    assert cucm_lab("status", "--directory", lab.directory).returncode == 0
