"""Commands that steer one running lab, started with `cucm-lab up` for this module; each test begins with a reset."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_cli_running_lab import RunningLab, answer

from lab.api.client import ApiClient

ROOT = Path(__file__).parent.parent.parent
PHONE = "SEPB000B4BA0AEE"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    directory = tmp_path_factory.mktemp("up") / "lab"
    running = RunningLab(directory, "auto")
    yield running
    if running.process.poll() is None:
        assert running.end() == (0, "ending (SIGTERM)\n", "")


@pytest.fixture
def ask(cucm_lab: Run, lab: RunningLab) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return cucm_lab(*words, "--directory", lab.directory)

    assert run("reset").returncode == 0
    return run


def test_a_phone_is_reset_and_waited_for(ask: Run) -> None:
    assert ask("phone", "power-off", PHONE).returncode == 0
    assert answer(ask("inspect", f"phones.{PHONE}.registered", "--json"))["lab"] == "nowhere"
    done = ask("phone", "boot", PHONE)
    assert "REGISTERED with ucm105pub" in done.stdout
    waited = answer(ask("wait", "--for", f"phones.{PHONE}.registered == 'source'", "--json"))
    assert waited["value"] is True
    wrong = ask("phone", "boot", "SEP0")
    assert (wrong.returncode, "SEP0" in wrong.stderr) == (2, True)


def test_waiting_in_vain_says_what_was_last_and_an_expression_that_is_none_is_told(ask: Run) -> None:
    done = ask("wait", "--for", f"phones.{PHONE}.registered == 'destination'", "--timeout", "0.2")
    assert done.returncode == 1
    assert "last it was False" in done.stderr
    no = ask("wait", "--for", f"phones.{PHONE}.registered == 'destination'", "--timeout", "0.2", "--json")
    assert no.returncode == 1
    assert (json.loads(no.stdout)["true"], json.loads(no.stdout)["value"], no.stderr) == (False, False, "")
    wrong = ask("wait", "--for", "phones[")
    assert wrong.returncode == 2
    assert "cannot be read" in wrong.stderr
    assert ask("wait", "--for", "phones", "--timeout", "x").returncode == 2
    unfit = ask("inspect", "length(title, title)")
    assert unfit.returncode == 2


def test_a_fault_is_set_listed_hit_and_ended(ask: Run) -> None:
    done = ask("fault", "set", "dhcp.request", "no-answer", "id=quiet", f"match.phone={PHONE}", "must_fire=true")
    assert done.stdout == "quiet is in force\n", done.stderr
    assert ask("fault", "set", "dhcp.request", "nak", "id=quiet").returncode == 1
    ask("phone", "reset", PHONE)
    (listed,) = answer(ask("fault", "list", "--json"))["faults"]
    assert (listed["id"], listed["match"]) == ("quiet", {"phone": PHONE})
    assert listed["hits"] >= 1
    assert "quiet" in ask("fault", "list").stdout
    ended = ask("fault", "end", "quiet")
    assert (ended.returncode, ended.stdout.startswith("quiet ended after")) == (0, True)
    assert ask("fault", "list").stdout == "no fault is in force\n"
    assert ask("fault", "end", "quiet").returncode == 2


def test_a_fault_that_must_fire_and_did_not_is_a_no(ask: Run) -> None:
    ask("fault", "set", "dhcp.request", "nak", "must_fire=true", "id=idle")
    done = ask("fault", "end", "--all")
    assert done.returncode == 1
    assert "idle should have hit, and did not" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("set", "dhcp.request"), "needs a point and an action"),
        (("set", "dhcp.requests", "nak"), "did you mean dhcp.request"),
        (("set", "dhcp.request", "nak", "times"), "is not field=value"),
        (("set", "dhcp.request", "nak", "times=1", "times=2"), "given twice"),
        (("set", "dhcp.request", "nak", "times=0"), "times"),
        (("end",), "needs the id"),
        ((), "`set`, `list`"),
        (("points", "nonsense"), "no fault point"),
    ],
)
def test_wrong_words_about_faults(cucm_lab: Run, words: tuple[str, ...], told: str) -> None:
    done = cucm_lab("fault", *words)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_state_is_kept_and_come_back_to(ask: Run) -> None:
    ask("phone", "power-off", PHONE)
    assert ask("clock", "+30d").returncode == 0
    assert ask("checkpoint", "dark").stdout == "dark is kept\n"
    assert ask("checkpoint", "dark").returncode == 2
    assert ask("reset").stdout == "as it was at start\n"
    assert answer(ask("clock", "--json"))["moved_s"] == pytest.approx(0, abs=5)
    assert answer(ask("restore", "dark", "--json"))["different"] == []
    assert answer(ask("inspect", f"phones.{PHONE}.on", "--json"))["lab"] is False
    assert answer(ask("clock", "--json"))["moved_s"] == pytest.approx(30 * 86_400, abs=5)
    assert {one["name"] for one in answer(ask("checkpoint", "--json"))["checkpoints"]} == {"start", "dark"}
    assert ask("checkpoint", "dark", "--delete").returncode == 0
    assert ask("restore", "dark").returncode == 2
    assert ask("checkpoint", "--delete").returncode == 2
    assert ask("checkpoint", "../x").returncode == 2


@pytest.mark.parametrize("words", ["30d", "+1h", "1.5m"])
def test_the_clock_moves(ask: Run, words: str) -> None:
    assert answer(ask("clock", words, "--json"))["moved_s"] > 0


def test_the_clock_moves_back_and_wrong_times_are_told(cucm_lab: Run, ask: Run, lab: RunningLab) -> None:
    moved = cucm_lab("clock", "--json", "--directory", lab.directory, "--", "-2d")
    assert answer(moved)["moved_s"] < 0
    wrong = ask("clock", "tomorrow")
    assert (wrong.returncode, "+30d" in wrong.stderr) == (2, True)


def test_logs_by_name_and_form(ask: Run) -> None:
    ask("phone", "reset", PHONE)
    assert f"phone-{PHONE}" in ask("logs").stdout
    assert "SECUREAPP" in ask("logs", PHONE).stdout
    tftp = answer(ask("logs", "ucm105pub", "--as", "tftp", "--tail", "5", "--json"))
    assert (tftp["log"], tftp["as"], len(tftp["lines"])) == ("tftp-ucm105pub", "tftp", 5)
    assert "registered from" in ask("logs", "ucm105pub", "--as", "plain").stdout
    assert ask("logs", "nonsense").returncode == 2
    assert ask("logs", PHONE, "--as", "tvs").returncode == 2


def test_events_as_json_lines(ask: Run) -> None:
    ask("phone", "reset", PHONE)
    lines = ask("events", "--kind", "phone.*", "--source", f"phone:{PHONE}", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["source"] for event in events} == {f"phone:{PHONE}"}
    assert "phone.registered" in {event["kind"] for event in events}
    assert [event["sequence"] for event in events] == sorted(event["sequence"] for event in events)
    assert "phone.registered" in ask("events").stdout
    assert ask("events", "--after", "nonsense").returncode == 2


@pytest.mark.parametrize(
    ("words", "wanted"),
    [(("events", "--kind", "phone.registered", "--json"), "phone.registered"), (("logs", PHONE), "SECUREAPP")],
)
def test_following_goes_on_with_what_comes(ask: Run, lab: RunningLab, words: tuple[str, ...], wanted: str) -> None:
    tail = ("--tail", "1") if words[0] == "logs" else ("--after", last_id(lab))
    command = [sys.executable, "-m", "lab.cli", *words, *tail, "--follow", "--directory", str(lab.directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            if words[0] == "logs":
                assert following.stdout.readline(), "the last line there was: what comes is told from there on"
            assert ask("phone", "reset", PHONE).returncode == 0
            assert any(wanted in following.stdout.readline() for _ in range(20))
        finally:
            following.terminate()


def last_id(lab: RunningLab) -> str:
    """Of the newest event."""
    client = ApiClient(lab.directory)
    page = client.get("events", limit="1000")
    while page["events"]:
        page = client.get("events", limit="1000", after=page["next"])
    return str(page["next"])


def test_two_labs_side_by_side_do_not_know_of_each_other(cucm_lab: Run, lab: RunningLab, tmp_path: Path) -> None:
    other = RunningLab(tmp_path / "other", "auto", "--phones", "off")
    try:
        addresses = {
            json.loads(cucm_lab("status", "--directory", one.directory, "--json").stdout)["network"]
            for one in (lab, other)
        }
        assert len(addresses) == 2
        assert cucm_lab("phone", "boot", "all", "--directory", other.directory).returncode == 0
    finally:
        other.end()


def test_down_ends_it_and_leaves_the_folder(cucm_lab: Run, tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    started = cucm_lab("up", "--directory", directory, "--network", "auto", "--detach")
    assert started.returncode == 0, started.stderr
    done = cucm_lab("down", "--directory", directory)
    assert (done.returncode, done.stdout.startswith("ended;")) == (0, True)
    assert (directory / "lab.json").exists()
    assert not (directory / "control.sock").exists()
    again = cucm_lab("down", "--directory", directory)
    assert again.returncode == 3
