from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from select import select
from typing import Any

import pytest

from lab.fleet.footprint import descriptors
from lab.fleet.request import FleetRequest
from lab.topology import load_topology

ROOT = Path(__file__).parent.parent.parent
Done = subprocess.CompletedProcess[str]


def told(done: Done) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_every_phone_of_a_fleet_migrates(cucm_lab: Callable[..., Done], tmp_path: Path) -> None:
    done = cucm_lab("fleet", "--phones", 20, "--workers", 0, "--json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    result = told(done)
    assert (result["schema"], result["fleet_schema"], result["mode"]) == (1, 1, "sockets")
    assert (result["arrived"], result["stranded"], result["is_good"]) == (20, 0, True)
    ends = result["phones"].values()
    assert {(end["registered"], end["ctl"], end["itl"], end["configuration"]) for end in ends} == {("destination",) * 4}
    boot, reset = result["stages"]
    assert boot["latencies"]["registration"]["count"] == reset["latencies"]["tvs"]["count"] == 20
    load = {(one["node"], one["service"]): one["requests"] for one in result["loads"]}
    assert load["ucm105pub", "TVS"] == 20
    assert load["ucm105pub", "TFTP"] == load["ucm11pub", "TFTP"] == 60
    assert json.loads((tmp_path / "fleet.json").read_text())["phones"] == result["phones"]


def test_a_fleet_that_cannot_ask_tvs_is_stranded_and_told_why(cucm_lab: Callable[..., Done]) -> None:
    done = cucm_lab("fleet", "--phones", 12, "--story", "tvs-down", "--json")
    assert done.returncode == 1, done.stderr
    result = told(done)
    assert (result["arrived"], result["reasons"], result["where"]) == (0, {"tvs-unreachable": 12}, {"source": 12})


@pytest.mark.parametrize("how", [("--workers", 0), ("--workers", 2), ("--simulate",)])
def test_phones_that_the_story_leaves_where_they_are_have_not_stranded(
    cucm_lab: Callable[..., Done], how: tuple[object, ...]
) -> None:
    words = ("fleet", "--phones", 9, "--story", "sha512-newer-series", "--json", *how)
    broken, repaired = cucm_lab(*words), cucm_lab(*words, "--repair")
    assert (broken.returncode, repaired.returncode) == (1, 0), repaired.stderr
    without, with_it = told(broken), told(repaired)
    assert [without[name] for name in ("arrived", "stayed", "stranded")] == [3, 3, 3]
    assert [with_it[name] for name in ("arrived", "stayed", "stranded")] == [6, 3, 0]
    assert without["reasons"] == {"algorithm-unsupported": 3}
    assert with_it["where"] == {"destination": 6, "source": 3}


def test_cpu_of_steps_that_boot_nobody_is_told_apart(cucm_lab: Callable[..., Done]) -> None:
    result = told(cucm_lab("fleet", "--phones", 3, "--workers", 0, "--json"))
    assert result["other_cpu_s"] > 0
    stages_ms = 1000 * sum(stage["phone_cpu_s"] + stage["server_cpu_s"] for stage in result["stages"]) / 3
    assert result["cpu_ms_per_phone"] == pytest.approx(stages_ms, abs=1)


def test_phones_with_weak_keys_have_a_floor_too(cucm_lab: Callable[..., Done]) -> None:
    done = cucm_lab("fleet", "--phones", 3, "--workers", 0, "--story", "eight-to-twelve", "--json")
    assert done.returncode == 0, done.stderr
    result = told(done)
    assert result["trouble"] is None
    assert {"handshake ECDHE with client certificate", "handshake RSA with client certificate"} <= set(
        result["floor_ms"]
    )
    assert all(stage["floor_s"] > 0 for stage in result["stages"])


def test_the_repair_brings_them_home(cucm_lab: Callable[..., Done]) -> None:
    done = cucm_lab("fleet", "--phones", 6, "--story", "tvs-down", "--repair")
    assert done.returncode == 0, done.stderr
    assert "6 of 6 phones are registered at destination" in done.stdout


def test_devices_are_added_for_all_phones_that_a_step_speaks_of(cucm_lab: Callable[..., Done]) -> None:
    assert cucm_lab("fleet", "--phones", 5, "--story", "phone-not-provisioned").returncode == 1
    assert cucm_lab("fleet", "--phones", 5, "--story", "phone-not-provisioned", "--repair").returncode == 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "required: --phones"),
        (("--phones", "0"), "0 is not between 1 and 60000"),
        (("--phones", "many"), "invalid int value"),
        (("--phones", "5", "--concurrency", "0"), "0 is not between 1 and 4096"),
        (("--phones", "5", "--story", "migrat"), "did you mean migrate?"),
        (("--phones", "5", "--topology", "nowhere"), "no topology 'nowhere'"),
        (("--phones", "5", "--network", "10.0.0.0/24"), "is not a /24 of 127.0.0.0/8"),
        (("--phones", "5", "--out", "/dev/null/x"), "cannot be made"),
        (("--phones", "5", "--out", "/proc/self"), "cannot be written to"),
        (("--phones", "-1"), "give a number from 1 to 60000"),
        (("--phones", "1000000000000", "--simulate"), "1000000000000 is not between 1 and 10000000"),
        (("--phones", "5", "--story", "capf-regenerated"), "which a fleet cannot"),
    ],
)
def test_what_cannot_be_asked(cucm_lab: Callable[..., Done], words: tuple[str, ...], what: str) -> None:
    done = cucm_lab("fleet", *words)
    assert done.returncode == 2
    assert what in done.stderr
    assert "Traceback" not in done.stderr


def test_a_simulated_fleet_says_so_and_how_long_it_would_take(cucm_lab: Callable[..., Done], tmp_path: Path) -> None:
    done = cucm_lab("fleet", "--simulate", "--phones", 5000, "--cores", 4, "--json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    result = told(done)
    assert (result["mode"], result["arrived"], result["is_good"]) == ("simulated", 5000, True)
    assert result["wall_s"] == pytest.approx(sum(stage["wall_s"] for stage in result["stages"]), abs=0.01)
    assert len(json.loads((tmp_path / "fleet.json").read_text())["phones"]) == 5000
    text = cucm_lab("fleet", "--simulate", "--phones", 10, "--one-machine", "--story", "tvs-down")
    assert text.returncode == 1
    assert "10 stranded: tvs-unreachable" in text.stdout
    assert "it was simulated in" in text.stdout


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("--cores", "4"), "--cores"),
        (("--one-machine",), "--one-machine"),
        (("--figures", "fleet.json"), "--figures"),
        (("--simulate", "--workers", "2"), "--workers"),
        (("--simulate", "--scheduler", "tcp://127.0.0.1:1"), "--scheduler"),
        (("--simulate", "--cores", "0"), "--cores"),
        (("--scheduler", "tcp://127.0.0.1:1", "--workers", "2"), "--workers"),
    ],
)
def test_words_that_do_not_go_together(cucm_lab: Callable[..., Done], words: tuple[str, ...], where: str) -> None:
    done = cucm_lab("fleet", "--phones", 3, *words)
    assert done.returncode == 2
    assert f"where: {where}" in done.stderr
    assert "mend: " in done.stderr


def test_phones_in_processes_of_their_own_end_as_those_in_one(cucm_lab: Callable[..., Done], tmp_path: Path) -> None:
    done = cucm_lab("fleet", "--phones", 21, "--workers", 2, "--story", "campus", "--json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    result = told(done)
    assert len(result["phones"]) == result["arrived"] == 21
    assert all(stage["phone_cpu_s"] > 0 and stage["server_cpu_s"] > 0 for stage in result["stages"])
    assert sum(one["requests"] for one in result["loads"] if one["service"] == "CallManager") == 42
    assert "Plotly.newPlot" in (tmp_path / "fleet.html").read_text()


def test_more_phones_than_the_machine_has_room_for_are_refused_before_the_start() -> None:
    words = ("-m", "lab.cli", "fleet", "--phones", "3000", "--workers", "0")
    script = 'ulimit -n 4096 && exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "open files in the servers' process" in done.stderr
    assert "--workers 1" in done.stderr  # which would do: not so for 5000
    more = subprocess.run([*command[:9], "5000", *command[10:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert more.returncode == 3
    assert "5000 phones need" in more.stderr
    assert "--workers" not in more.stderr


@pytest.mark.parametrize(
    ("topology", "story", "workers"),
    [("old-phones", "phone-without-security-by-default", 0), ("two-clusters", "migrate", 1)],
)
def test_the_files_that_are_asked_for_are_enough(topology: str, story: str, workers: int) -> None:
    request = FleetRequest(60, story, topology, concurrency=60, workers=workers, repair=True)
    needed = max(descriptors(request, load_topology(topology)))
    words = ("-m", "lab.cli", "fleet", "--phones", 60, "--concurrency", 60, "--workers", workers, "--story", story)
    command = [
        "sh",
        "-c",
        f'ulimit -n {needed} && exec "$@"',
        "sh",
        sys.executable,
        *map(str, words),
        "--repair",
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Too many open files" not in done.stderr
    assert told(done)["arrived"] == 60
    assert "open files" in refusal_with(needed - 1, command)


def refusal_with(limit: int, command: list[str]) -> str:
    """What the same command says with so many open files."""
    fewer = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', *command[3:]]
    done = subprocess.run(fewer, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    return done.stderr


class Running:
    """A fleet that is under way, in a session of its own."""

    def __init__(self, out: Path, *words: str, ignored: signal.Signals | None = None, **environment: str) -> None:
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.cli", "fleet", "--out", str(out), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | environment | {"CUCM_TEST_FLEET": str(out)},
            preexec_fn=None if ignored is None else lambda: signal.signal(ignored, signal.SIG_IGN),
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def wait_for(self, word: str) -> None:
        assert self.process.stderr is not None
        seen = []
        while line := self.process.stderr.readline():
            seen.append(line)
            if word in line:
                return
        raise AssertionError(f"{word!r} never came: {seen}")

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def end(self) -> dict[str, Any]:
        _told, trouble = self.process.communicate(timeout=100)
        assert "Traceback" not in trouble
        value: dict[str, Any] = json.loads((self.out / "fleet.json").read_text())
        return value

    def has_left_processes(self) -> bool:
        """Of whatever session; who has ended and was not waited for does not count."""
        mark = f"CUCM_TEST_FLEET={self.out}\0".encode()
        for process in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in process.read_bytes():
                    return True
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_a_killed_fleet_leaves_no_process_and_the_next_one_takes_its_folder_away(
    cucm_lab: Callable[..., Done], tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with Running(tmp_path / "out", "--phones", "600", "--workers", "2", TMPDIR=str(temporary)) as fleet:
        fleet.wait_for("boot-phone")
        workers = [os.pidfd_open(worker) for worker in fleet.workers()]
        fleet.process.kill()
        for worker in workers:
            assert select([worker], [], [], 60)[0] == [worker], "a worker goes on without its engine"
            os.close(worker)
    left = {path.name for path in temporary.iterdir()}
    assert left
    with Running(tmp_path / "out", "--phones", "1", TMPDIR=str(temporary)) as fleet:
        fleet.wait_for("setting up")
        assert fleet.end()["arrived"] == 1
    assert list(temporary.iterdir()) == []
    dead, simulated = temporary / "cucm-fleet-dead", ("fleet", "--simulate", "--phones", 1)
    dead.mkdir(0o700)
    (dead / "alive.lock").touch()
    assert cucm_lab(*simulated, TMPDIR=str(temporary)).returncode == 0
    assert not dead.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_no_process_is_started_that_has_no_work(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "64", "--phones", "120", "--concurrency", "2") as fleet:
        fleet.wait_for("these in 2 processes")
        fleet.wait_for("boot-phone")
        assert len(fleet.workers()) == 2
        assert fleet.end()["arrived"] == 120


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_ends_with_a_report_of_how_far_it_came(tmp_path: Path, workers: str) -> None:
    with Running(tmp_path, "--phones", "1500", "--workers", workers) as fleet:
        fleet.wait_for("boot-phone")
        os.killpg(fleet.process.pid, signal.SIGINT)  # as a terminal does: to all processes
        result = fleet.end()
        assert fleet.process.returncode == 130
        assert (result["interrupted"], result["is_good"]) == (True, False)
        assert len(result["phones"]) == 1500
        assert result["arrived"] == 0
        assert not fleet.has_left_processes()


def test_ctrl_c_while_all_is_set_up_begins_nothing(tmp_path: Path) -> None:
    with Running(tmp_path, "--phones", "600", "--workers", "1") as fleet:
        fleet.wait_for("setting up")
        os.kill(fleet.process.pid, signal.SIGINT)
        result = fleet.end()
        assert (fleet.process.returncode, result["interrupted"], len(result["stages"])) == (130, True, 0)
        assert {end["boots"] for end in result["phones"].values()} == {0}
        assert not fleet.has_left_processes()


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_ctrl_c_ends_also_a_worker_that_hangs_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    with Running(tmp_path, "--phones", "600", "--workers", "2") as fleet:
        fleet.wait_for("boot-phone")
        os.kill(fleet.workers()[0], signal.SIGSTOP)
        os.kill(fleet.process.pid, signal.SIGINT)
        os.kill(fleet.process.pid, signal.SIGTERM)
        result = fleet.end()
        assert (fleet.process.returncode in (130, 143), result["interrupted"]) == (True, True)
        assert sum(end["state"] == "lost" for end in result["phones"].values()) == 300
        assert not fleet.has_left_processes()


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_a_worker_that_is_killed_costs_its_phones_and_is_told(tmp_path: Path) -> None:
    with Running(tmp_path, "--phones", "2000", "--workers", "2") as fleet:
        fleet.wait_for("boot-phone")
        os.kill(fleet.workers()[0], signal.SIGKILL)
        result = fleet.end()
        assert fleet.process.returncode == 1
        assert "1000 phones was lost" in result["trouble"]
        lost = [end for end in result["phones"].values() if end["state"] == "lost"]
        assert len(lost) == 1000
        assert not fleet.has_left_processes()


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_a_worker_that_is_killed_while_all_is_set_up_is_told(tmp_path: Path) -> None:
    with Running(tmp_path, "--phones", "600", "--workers", "1") as fleet:
        fleet.wait_for("setting up")
        while not fleet.workers():
            assert fleet.process.poll() is None
        os.kill(fleet.workers()[0], signal.SIGKILL)
        _told, trouble = fleet.process.communicate(timeout=60)
        assert fleet.process.returncode == 3
        assert "worker process 0" in trouble
        assert "was lost" in trouble
        assert "mend: " in trouble
        assert not fleet.has_left_processes()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up in /proc")
def test_a_worker_that_hears_ctrl_c_as_it_is_started_is_an_interruption(tmp_path: Path) -> None:
    with Running(tmp_path, "--phones", "600", "--workers", "1") as fleet:
        fleet.wait_for("setting up")
        while not fleet.workers():
            assert fleet.process.poll() is None
        fleet.process.send_signal(signal.SIGINT)
        os.kill(fleet.workers()[0], signal.SIGKILL)
        _told, trouble = fleet.process.communicate(timeout=60)
        assert fleet.process.returncode == 130
        assert "lost" not in trouble
        assert not fleet.has_left_processes()


def test_an_impatient_user_gets_the_whole_report(tmp_path: Path) -> None:
    with Running(tmp_path, "--phones", "300", "--workers", "0") as fleet:
        fleet.wait_for("boot-phone")
        fleet.process.send_signal(signal.SIGTERM)
        while not any(path.name.startswith(("fleet", ".new-")) for path in tmp_path.iterdir()):
            fleet.process.send_signal(signal.SIGINT)
        if not (tmp_path / "fleet.html").exists():  # it still writes: the signal that a patient user would not send
            fleet.process.send_signal(signal.SIGINT)
        assert fleet.end()["interrupted"]
        # Of two that wait, the one with the lower number is heard first. -SIGINT: between our look at the folder and
        # the signal, a fleet that gets the CPU may have written all and come to the last instants of Python, which
        # hears no signal then. One that dies earlier leaves no fleet.html, or a .new- beside it.
        assert fleet.process.returncode in (130, 143, -signal.SIGINT)
        assert {path.name for path in tmp_path.iterdir()} == {"fleet.json", "fleet.html"}


def test_who_ignores_a_signal_goes_on(tmp_path: Path) -> None:
    with Running(tmp_path, "--phones", "60", "--workers", "0", ignored=signal.SIGHUP) as fleet:
        fleet.wait_for("boot-phone")
        fleet.process.send_signal(signal.SIGHUP)
        assert fleet.end()["arrived"] == 60
        assert fleet.process.returncode == 0


def test_a_reader_who_leaves_is_no_trouble(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab.cli", "fleet", "--phones", "3", "--workers", "0", "--json", "--out", tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        running.stdout.close()
        _, trouble = running.communicate(timeout=60)
    assert running.returncode == 141
    assert "Traceback" not in trouble
    assert json.loads((tmp_path / "fleet.json").read_text())["arrived"] == 3


@pytest.mark.parametrize("width", [40, 80, 200])
def test_all_that_is_told_fits_the_terminal(width: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    words = ("fleet", "--phones", "9", "--workers", "0", "--story", "sha512-newer-series")
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "lab.cli", *words]
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        told = b""
        try:
            while data := os.read(ours, 65536):
                told += data
        except OSError:  # the other end is closed
            os.close(ours)
        assert running.wait(timeout=60) == 1
    lines = re.sub(r"\x1b\[K", "", told.decode()).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= width
    assert any("reset-phone" in line for line in lines)
    assert "3 stranded: algorithm-unsupported" in " ".join(" ".join(lines).split())


def test_a_simulation_with_the_figures_of_a_run(cucm_lab: Callable[..., Done], tmp_path: Path) -> None:
    run = cucm_lab("fleet", "--phones", 10, "--workers", 0, "--json", "--out", tmp_path)
    words = ("fleet", "--simulate", "--phones", 500, "--json", "--figures")
    simulated = told(cucm_lab(*words, tmp_path / "fleet.json"))
    assert simulated["cpu_ms_per_phone"] == pytest.approx(told(run)["cpu_ms_per_phone"], rel=0.05)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"request": {"phones": 1}, "mode": "simulated", "arrived": 1}'])
def test_figures_that_are_none(cucm_lab: Callable[..., Done], tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.json").write_text(text)
    done = cucm_lab("fleet", "--simulate", "--phones", 5, "--figures", tmp_path / "fleet.json")
    assert done.returncode == 2
    assert "is no result of a fleet" in done.stderr
    assert "mend: give the fleet.json" in done.stderr
    missing = cucm_lab("fleet", "--simulate", "--phones", 5, "--figures", tmp_path / "none.json")
    assert (missing.returncode, "cannot be read" in missing.stderr) == (2, True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what memory a process has")
@pytest.mark.parametrize(
    ("story", "is_told"),
    [("phone-not-provisioned", True), ("default-configuration-without-tvs", False)],
    ids=["registered-at-first", "never-registered"],
)
def test_memory_of_a_registered_phone_is_counted_while_all_are(
    cucm_lab: Callable[..., Done], story: str, is_told: bool
) -> None:
    result = told(cucm_lab("fleet", "--phones", 3, "--story", story, "--json"))
    assert result["where"] == {"nowhere": 3}
    assert (result["memory"] is not None) == is_told
