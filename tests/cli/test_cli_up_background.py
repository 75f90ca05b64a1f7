"""`up` as other programs use it: in the background, with a ready file, on a network of its own, several at once."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from network_namespace import HERE, have_an_address, run_apart
from test_cli_running_lab import PHONE, ROOT, RunningLab

from lab.api.client import ApiClient


@pytest.fixture
def network(loopback):
    return loopback().rpartition(".")[0] + ".0/24"


@pytest.fixture
def begun():
    """Folders of labs in the background; what still runs at the end is killed."""
    folders: list[Path] = []
    yield folders.append
    for folder in folders:
        if (folder / "up.pid").exists():
            end(folder, signal.SIGKILL)


def end(folder: Path, number: signal.Signals = signal.SIGTERM) -> None:
    """Returns when the process is gone."""
    pid = int((folder / "up.pid").read_text())
    gone = os.pidfd_open(pid)
    signal.pidfd_send_signal(gone, number)
    assert select.select([gone], [], [], 60)[0]
    os.close(gone)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


KEPT = {"checkpoints", "clusters", "dhcp.json", "lab.json", "phones", "served.log", "sftp", "up.lock"}


def test_a_lab_in_the_background(cucm_lab, tmp_path, network, begun):
    folder, ready = tmp_path / "lab", tmp_path / "ready"
    begun(folder)
    done = cucm_lab("up", "--detach", "--directory", folder, "--network", network, "--ready-file", ready)
    assert (done.returncode, done.stderr) == (0, "")
    api = f"http://{network.replace('.0/24', '.1')}:8480"
    assert done.stdout.endswith(f"phones   1 of 1 registered\nAPI      {api}\ncontrol  {folder}/control.sock\nready\n")
    said = json.loads(ready.read_text())
    assert (said["ready"], said["directory"], said["control"]) == (True, str(folder), f"{folder}/control.sock")
    assert said["api"] == api
    with urllib.request.urlopen(f"{api}/v1", timeout=20) as answer:
        assert json.load(answer)["run"] == said["run"]
    assert said["pid"] == int((folder / "up.pid").read_text())
    assert os.getsid(said["pid"]) == said["pid"]
    assert Path(f"/proc/{said['pid']}/fd/1").readlink() == folder / "up.log"
    assert ApiClient(folder).get("truth", "phones")["phones"][PHONE]["registered"] == "source"
    (folder / "mine.txt").write_text("stays")
    end(folder)
    assert not ready.exists()
    assert names(folder) >= KEPT
    assert {"control.sock", "up.pid", "token"} & names(folder) == set()
    assert (folder / "mine.txt").read_text() == "stays"
    assert (folder / "up.log").read_text() == "ending (SIGTERM)\n"


def test_nothing_is_left_of_a_first_start_that_fails(cucm_lab, tmp_path, network):
    for words in ((), ("--detach",)):
        with socket.socket() as taken:
            taken.bind((network.replace(".0/24", ".51"), 2445))
            taken.listen()
            done = cucm_lab("up", "--directory", tmp_path / "lab", "--network", network, *words)
        assert (done.returncode, done.stdout) == (3, ""), done
        assert "another program holds this address and port" in done.stderr
        assert not (tmp_path / "lab").exists()
    (tmp_path / "lab").mkdir()
    cucm_lab("up", "nothing", "--directory", tmp_path / "lab", "--detach")
    assert list((tmp_path / "lab").iterdir()) == []


def test_a_taken_port_of_the_api(cucm_lab, tmp_path, network):
    address = network.replace(".0/24", ".1")
    with socket.socket() as taken:
        taken.bind((address, 8481))
        taken.listen()
        done = cucm_lab("up", "--directory", tmp_path / "lab", "--network", network, "--api-port", "8481")
    assert done.returncode == 3
    assert f"{address} TCP port 8481" in done.stderr
    assert not (tmp_path / "lab").exists()


async def exposed_to_other_machines(directory: Path) -> None:
    have_an_address()
    lab = RunningLab(directory / "lab", "127.0.11.0/24", "--expose", HERE)
    token = (directory / "lab" / "token").read_text().strip()
    asked = urllib.request.Request(f"http://{HERE}:8480/v1")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=20)
    assert refused.value.code == 401
    refused.value.close()
    asked.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert answer.status == 200
    code, _, err = lab.end()
    assert code == 0
    assert err.startswith(f"WARNING: listening on {HERE}")
    assert token not in err + lab.said
    assert not (directory / "lab" / "token").exists()


@pytest.mark.needs("unshare", "ip")
@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_an_api_for_other_machines_is_told_loudly_and_asks_for_the_token(tmp_path):
    run_apart(exposed_to_other_machines, tmp_path)


def test_a_shutdown_by_the_api(cucm_lab, tmp_path, network, begun):
    folder, ready = tmp_path / "lab", tmp_path / "ready"
    begun(folder)
    assert (
        cucm_lab("up", "--detach", "--directory", folder, "--network", network, "--ready-file", ready).returncode == 0
    )
    gone = os.pidfd_open(int((folder / "up.pid").read_text()))
    ApiClient(folder).post("shutdown", body={})
    assert select.select([gone], [], [], 60)[0]
    os.close(gone)
    assert not ready.exists()
    assert names(folder) == KEPT | {"up.log"}
    assert (folder / "up.log").read_text() == "ending (shutdown)\n"


def test_a_resumed_lab_that_cannot_start_keeps_its_folder(cucm_lab, tmp_path, network):
    words = ("--directory", tmp_path / "lab", "--network", network)
    RunningLab(tmp_path / "lab", network).end()
    with socket.socket() as taken:
        taken.bind((network.replace(".0/24", ".51"), 2445))
        taken.listen()
        assert cucm_lab("up", *words).returncode == 3
    assert names(tmp_path / "lab") == KEPT


def test_a_parent_that_is_ended_ends_the_lab(tmp_path, network):
    words = ["up", "campus", "--detach", "--directory", tmp_path / "lab", "--network", network]
    with subprocess.Popen([sys.executable, "-m", "lab.cli", *words], cwd=ROOT, stdout=-1, stderr=-1) as parent:
        while not (tmp_path / "lab" / "up.pid").exists():  # begun, far from ready
            assert parent.poll() is None
        gone = os.pidfd_open(int((tmp_path / "lab" / "up.pid").read_text()))
        parent.send_signal(signal.SIGTERM)
        parent.communicate(timeout=60)
        assert parent.returncode == 130
    os.close(gone)
    assert not (tmp_path / "lab").exists()


def test_two_labs_side_by_side(cucm_lab, tmp_path, network, begun):
    folders = [tmp_path / "one", tmp_path / "two"]
    networks = [network, "auto"]
    for folder, each in zip(folders, networks, strict=True):
        begun(folder)
        assert cucm_lab("up", "--detach", "--directory", folder, "--network", each).returncode == 0
    clients = [ApiClient(folder) for folder in folders]
    clients[0].perform({"do": "power-off-phone", "phone": PHONE})
    states = [client.get("truth", "phones")["phones"][PHONE]["state"] for client in clients]
    assert states == ["off", "registered"]
    end(folders[0], signal.SIGINT)
    assert clients[1].get("truth", "phones")["phones"][PHONE]["state"] == "registered"
    end(folders[1])


def test_many_that_start_at_once_find_networks_of_their_own(cucm_lab, tmp_path, begun):
    folders = [tmp_path / f"{number}" for number in range(4)]
    for folder in folders:
        begun(folder)

    def up(folder):
        return cucm_lab("up", "--detach", "--json", "--phones", "off", "--directory", folder, "--network", "auto")

    with ThreadPoolExecutor(len(folders)) as pool:
        done = list(pool.map(up, folders))
    assert [one.returncode for one in done] == [0] * len(folders), done
    networks = [json.loads(one.stdout)["network"] for one in done]
    assert len(set(networks)) == len(folders)
    end(folders[0])
    again = up(folders[0])
    assert json.loads(again.stdout)["network"] == networks[0]
    for folder in folders:
        end(folder)


def test_a_network_that_another_lab_has(cucm_lab, tmp_path, network):
    lab = RunningLab(tmp_path / "one", network)
    done = cucm_lab("up", "--directory", tmp_path / "two", "--network", network)
    assert (done.returncode, "another lab has this network" in done.stderr) == (3, True), done
    assert not (tmp_path / "two").exists()
    assert lab.end()[0] == 0


@pytest.mark.parametrize("directory", ["named", "its own"])
def test_a_temporary_folder_goes_with_its_lab(cucm_lab, tmp_path, network, directory):
    words = ("--directory", tmp_path / "lab") if directory == "named" else ()
    made = cucm_lab("up", "--temporary", "--detach", "--json", "--network", network, *words, TMPDIR=str(tmp_path))
    assert made.returncode == 0, made.stderr
    folder = Path(json.loads(made.stdout)["directory"])
    assert folder.parent == tmp_path
    end(folder, signal.SIGKILL)
    assert folder.exists()
    assert cucm_lab("up", "--detach", "--directory", folder).returncode == 0
    end(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_lab_that_was_to_stay_is_not_made_temporary(cucm_lab, tmp_path, network):
    RunningLab(tmp_path / "lab", network).end()
    done = cucm_lab("up", "--directory", tmp_path / "lab", "--temporary")
    assert (done.returncode, "holds a lab that would be deleted" in done.stderr) == (2, True)
    assert names(tmp_path / "lab") == KEPT


def test_the_ready_file_of_a_killed_lab_is_taken_away_before_the_next_starts(tmp_path, network):
    ready = tmp_path / "ready"
    first = RunningLab(tmp_path / "lab", network, "--ready-file", ready)
    run = json.loads(ready.read_text())["run"]
    first.end(signal.SIGKILL)
    assert ready.exists()
    second = RunningLab(tmp_path / "lab", network, "--ready-file", ready)
    assert json.loads(ready.read_text())["run"] != run
    assert second.end(signal.SIGINT) == (0, "ending (SIGINT)\n", "")
    assert not ready.exists()


def test_a_ready_file_that_is_none(cucm_lab, tmp_path):
    (tmp_path / "thesis").write_text("precious")
    done = cucm_lab("up", "--directory", tmp_path / "lab", "--ready-file", tmp_path / "thesis")
    assert (done.returncode, "is no ready file of a lab" in done.stderr) == (2, True)
    assert (tmp_path / "thesis").read_text() == "precious"
    done = cucm_lab("up", "--directory", tmp_path / "lab", "--ready-file", tmp_path / "x" / "y")
    assert (done.returncode, "there is no such folder" in done.stderr) == (2, True)
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--expose", "here"), "is not an IP address"),
        (("--expose", "127.0.0.2,0.0.0.0"), "is every address"),
        (("--api-port", "0"), "not between 1 and 65535"),
        (("--events", "5"), "not between 1000 and"),
        (("--phones", "maybe"), "there is no 'maybe'\n  where: --phones\n  mend: use on, off\n"),
    ],
)
def test_wrong_words(cucm_lab, tmp_path, words, text):
    done = cucm_lab("up", "--directory", tmp_path / "lab", *words)
    assert (done.returncode, text in done.stderr) == (2, True), done
    assert not (tmp_path / "lab").exists()


def test_who_cannot_be_told_where_the_lab_is_gets_none(tmp_path, network, begun):
    begun(tmp_path / "lab")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lab.cli", "up", "--detach", "--directory", tmp_path / "lab", "--network", network],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert not (tmp_path / "lab" / "up.pid").exists()
    assert not ApiClient(tmp_path / "lab").is_running()
