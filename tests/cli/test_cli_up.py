"""Beginning, ending and resuming a lab; commands where none runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from test_cli_running_lab import PHONE, ROOT, RunningLab

from lab.api.client import ApiClient


@pytest.fixture
def up(tmp_path, loopback):
    """Begins labs one after the other; what still runs at the end is killed."""
    network = loopback().rpartition(".")[0] + ".0/24"
    running: list[RunningLab] = []

    def begin(*words: str) -> RunningLab:
        running.append(RunningLab(tmp_path / "lab", network, *words))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def truth(lab: RunningLab) -> dict:
    return ApiClient(lab.directory).get("truth", "phones")["phones"][PHONE]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_lab_is_resumed_where_it_ended(up, end):
    first = up("--seed", "3")
    client = ApiClient(first.directory)
    client.perform({"do": "regenerate-certificate", "cluster": "source", "certificate": "TVS"})
    before, certificates = truth(first), client.get("clusters", "source", "certificates")
    code, out, err = first.end(end)
    if end is signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert (code, out, err) == (0, f"ending ({end.name})\n", "")
        assert not (first.directory / "control.sock").exists()
    second = up()
    assert "(resumed)" in second.said
    after = truth(second)
    assert after["ctl_list"] == before["ctl_list"]
    assert after["itl_list"]["sha1"] != before["itl_list"]["sha1"]  # TVS has a new certificate, the phone has booted
    assert after["registered"] == "source"
    assert ApiClient(second.directory).get("clusters", "source", "certificates") == certificates
    assert second.end()[0] == 0


def test_phones_that_stay_off(up):
    lab = up("--phones", "off")
    assert "phones   0 of 1 registered\n" in lab.said
    assert truth(lab)["state"] == "off"
    assert lab.end()[0] == 0


def test_resuming_with_other_words_is_refused(up, cucm_lab):
    lab = up()
    lab.end()
    done = cucm_lab("up", "--directory", lab.directory, "--seed", "9")
    assert (done.returncode, "was begun with another --seed" in done.stderr) == (2, True), done


def test_a_moved_clock_is_kept(up):
    lab = up()
    ApiClient(lab.directory).perform({"do": "advance-clock", "days": 7300})
    lab.end(signal.SIGKILL)
    (days,) = [json.loads((lab.directory / "clock.json").read_text())["offset_s"] / 86_400]
    assert days == pytest.approx(7300)
    assert up().end()[0] == 0


def test_ready_as_one_json_object(tmp_path, loopback):
    network = loopback().rpartition(".")[0] + ".0/24"
    words = ["up", "--directory", tmp_path / "lab", "--network", network, "--json"]
    with subprocess.Popen([sys.executable, "-m", "lab.cli", *words], stdout=-1, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        said = json.loads("".join(lines))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stdout.read() == ""
    assert (said["schema"], said["ready"], said["resumed"]) == (1, True, False)
    assert said["control"] == str(tmp_path / "lab" / "control.sock")
    assert {cluster["name"] for cluster in said["clusters"]} == {"source", "destination"}


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        (("nothing",), 2, "no topology 'nothing'"),
        (("--network", "10.0.0.0/24"), 2, "not a /24 of 127.0.0.0/8"),
        (("--seed", "x"), 2, "invalid int value"),
    ],
)
def test_wrong_words(cucm_lab, tmp_path, words, exit_code, text):
    done = cucm_lab("up", "--directory", tmp_path / "lab", *words)
    assert (done.returncode, text in done.stderr) == (exit_code, True), done


def test_a_folder_of_somebodys_files(cucm_lab, tmp_path):
    (tmp_path / "precious").touch()
    done = cucm_lab("up", "--directory", tmp_path)
    assert (done.returncode, "holds files that no lab made" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("op", "update-ctl-file", "cluster=source"),
        ("sql", "source", "select 1"),
        ("truth", "phones"),
        ("certificates", "list", "source"),
        ("show", "phone", "SEPB000B4BA0AEE"),
    ],
)
def test_where_no_lab_runs(cucm_lab, tmp_path, words):
    done = cucm_lab(*words, "--directory", tmp_path)
    assert done.returncode == 3
    assert "no lab is running here" in done.stderr
    assert f"mend: start it: cucm-lab up --directory {tmp_path}" in done.stderr


def test_a_node_where_no_lab_runs(cucm_lab, tmp_path):
    done = cucm_lab("show", "ctl", "source/ucm105pub", "--directory", tmp_path)
    assert (done.returncode, "no lab is running that could have such a node" in done.stderr) == (2, True)


def test_operations_explain_themselves_without_a_lab(cucm_lab):
    listing = cucm_lab("op", "--list").stdout
    assert "\nset-enterprise-parameter cluster=... parameter=... value=..." in listing
    assert any(
        kind["name"] == "boot-phone" for kind in json.loads(cucm_lab("op", "--list", "--json").stdout)["operations"]
    )
    done = cucm_lab("op", "upload-certificate", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: cucm-lab op upload-certificate certificate=... from=...")
    assert "Phone-SAST-trust" in done.stdout
    assert "usage: cucm-lab op [" in cucm_lab("op", "--help").stdout
    assert cucm_lab("op", "boot-phoen", "--help").returncode == 2
    assert cucm_lab("op").returncode == 2


def test_commands_that_ask_a_lab_read_no_server_code():
    code = (
        "import sys; from lab.cli import main\n"
        "for words in (['status'], ['truth', 'phones'], ['sql', 'a', 'b'], ['certificates', 'list', 'a']):\n"
        "    main([*words, '--directory', '/nonexistent'])\n"
        "print({'aiohttp', 'asyncio', 'pydantic', 'sqlalchemy', 'cryptography'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def at_a_terminal(*words: str) -> tuple[int, str]:
    """Exit code and what is said on stderr, a terminal, until the lab is ready; then it is asked to end."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "lab.cli", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n" or line.startswith("}"):
                process.terminate()
        code = process.wait(60)
    said = b""
    with suppress(OSError):  # a terminal whose other end is closed
        while data := os.read(ours, 4096):
            said += data
    os.close(ours)
    return code, said.decode().replace("\r\n", "\n")


def test_a_start_says_what_it_is_about_at_a_terminal(tmp_path, loopback):
    network = loopback().rpartition(".")[0] + ".0/24"
    words = ("up", "--directory", str(tmp_path / "lab"), "--network", network)
    assert at_a_terminal(*words) == (
        0,
        "cucm-lab: certificates and lists of 2 nodes ...\n"
        "cucm-lab: services of 2 nodes ...\n"
        "cucm-lab: boot of 1 phone ...\n",
    )
    assert at_a_terminal(*words, "--json") == (0, "")


def test_a_start_that_is_interrupted_is_none(tmp_path, loopback):
    network = loopback().rpartition(".")[0] + ".0/24"
    words = ["up", "campus", "--directory", str(tmp_path / "lab"), "--network", network]
    with subprocess.Popen(
        [sys.executable, "-m", "lab.cli", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "lab" / "up.pid").exists() and process.poll() is None:
            pass  # handlers are in place from here on, and forty phones have yet to boot
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "ending (SIGINT)\n", "")
    assert not (tmp_path / "lab").exists()
