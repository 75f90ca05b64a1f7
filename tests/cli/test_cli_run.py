from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lab.network_claim import FIRST_BLOCK, LAST_BLOCK, NetworkClaim
from lab.scenario import load_story
from lab.topology import packaged

ROOT = Path(__file__).parent.parent.parent
PHONE = "SEPB000B4BA0AEE"
Done = subprocess.CompletedProcess[str]


class Runner:
    """`cucm-lab run` in a /24 and with a folder for temporary files of its own."""

    def __init__(self, command: Callable[..., Done], folder: Path, network: str) -> None:
        self._command = command
        self.folder = folder
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.network = network

    def address(self, host: int) -> str:
        return self.network.replace(".0/24", f".{host}")

    def __call__(self, *words: str | Path) -> Done:
        return self._command("run", *words, "--network", self.network, TMPDIR=str(self.temporary))

    def story(self, name: str, *changes: tuple[str, str], of: str = "migrate") -> Path:
        """A packaged story with changes, as a file of the user's."""
        text = packaged("scenarios")[of].read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def run(cucm_lab, tmp_path, loopback):
    runner = Runner(cucm_lab, tmp_path, loopback().rpartition(".")[0] + ".0/24")
    yield runner
    assert list(runner.temporary.iterdir()) == []


def events_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_tells_its_timeline_and_verdict(run):
    done = run("migrate")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("migrate: One phone moves between two secure clusters")
    assert "\nAct 3: Option 150 changes and the phone is reset\n" in done.stdout
    assert "query sent, 153 bytes" in done.stdout
    assert f"REGISTERED with ucm11pub ({run.address(51)}:5061, TLS)" in done.stdout
    assert done.stdout.endswith("\nVerdict   ended as it should\n")
    assert "-----" not in done.stdout


def test_out_holds_what_is_promised(run, tmp_path):
    out = tmp_path / "out"
    done = run("migrate", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Files of this run: {out}\n")
    lists = {"CTLFile.tlv", "ITLFile.tlv", f"{PHONE}.cnf.xml", "status.json"}
    served = {f"CTL{PHONE}.tlv", f"ITL{PHONE}.tlv", f"{PHONE}.cnf.xml.sgn"}
    nodes = ("ucm105pub", "ucm11pub")
    assert files_below(out) == {
        "cucm-lab-run.json",
        "events.jsonl",
        f"phone-{PHONE}.log",
        *(f"{name}.log" for name in ("dhcp-lab", "sftp-lab", "lab-story", "cluster-source", "cluster-destination")),
        *(f"{kind}-{node}.log" for kind in ("tvs", "tftp", "callmanager", "node") for node in nodes),
        *(f"flash/{PHONE}/{moment}/{name}" for moment in ("before", "after") for name in lists),
        *(f"served/{node}/{name}" for node in nodes for name in served),
    }
    assert [event["sequence"] for event in events_of(out)] == list(range(1, len(events_of(out)) + 1))
    assert "bytes written : 153" in (out / f"phone-{PHONE}.log").read_text()
    assert "Found entry {rolecount : 2}" in (out / "tvs-ucm105pub.log").read_text()
    assert f"CTL{PHONE}.tlv" in (out / "tftp-ucm11pub.log").read_text()


def test_what_was_served_is_what_the_flash_holds_and_other_commands_read_it(run, cucm_lab, tmp_path):
    out = tmp_path / "out"
    assert run("migrate", "--out", out).returncode == 0
    before, after = (out / "flash" / PHONE / moment for moment in ("before", "after"))
    for folder, node in ((before, "ucm105pub"), (after, "ucm11pub")):
        for kind in ("CTL", "ITL"):
            served = out / "served" / node / f"{kind}{PHONE}.tlv"
            assert served.read_bytes() == (folder / f"{kind}File.tlv").read_bytes()
            shown = cucm_lab("show", kind.lower(), served)
            assert shown.returncode == 0
            assert f"The {kind} file was verified successfully." in shown.stdout
    new_itl = out / "served" / "ucm11pub" / f"ITL{PHONE}.tlv"
    assert cucm_lab("verify", new_itl, "--against", after / "CTLFile.tlv").returncode == 0
    new_ctl = out / "served" / "ucm11pub" / f"CTL{PHONE}.tlv"
    against = ("--against", before / "CTLFile.tlv", before / "ITLFile.tlv")
    refused = json.loads(cucm_lab("verify", new_ctl, *against, "--json").stdout)
    assert (refused["accepted"], refused["depends_on_tvs"]) == (False, True)


def test_json_is_one_object_with_a_schema(run, tmp_path):
    done = run("tvs-down", "--json", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    assert (answer["scenario"], answer["ended_as_expected"], answer["broken"]) == ("tvs-down", True, None)
    ends = [act["phones"][PHONE] for act in answer["acts"]]
    assert [end["registered"] for end in ends] == ["source", "source", "destination"]
    assert ends[1]["reasons"] == ["tvs-unreachable"]
    assert answer["events"] == len(events_of(tmp_path / "out"))
    assert answer["out"] == str(tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "cucm-lab-run.json").read_text())
    assert kept["acts"] == answer["acts"]


def test_a_failure_story_names_cause_repair_and_evidence(run):
    done = run("callmanager-trust-only")
    assert done.returncode == 0, done.stderr
    verdict = done.stdout.partition("Where each phone is")[2]
    assert "refused because of tvs-answer-lacks-role" in verdict
    for word in ("\nCause     ", "\nRepair    ", "\nEvidence  tvs-ucm105pub.log: Found entry {rolecount : 0}"):
        assert word in verdict


def test_logs_follow_the_timeline(run):
    done = run("migrate", "--logs")
    order = [done.stdout.index(text) for text in ("Act 3", f"----- phone-{PHONE}.log", "----- tvs-ucm", "Verdict ")]
    assert order == sorted(order)


def test_the_seed_decides_the_serial_numbers(run, tmp_path):
    serials = []
    for number, seed in enumerate((7, 7, 8)):
        out = tmp_path / str(number)
        assert run("migrate", "--seed", str(seed), "--out", out).returncode == 0
        events = events_of(out)
        serials.append([event["serial"] for event in events if event["kind"] == "certificate.stored"])
    assert len(serials[0]) > 10
    assert serials[0] == serials[1] != serials[2]


def test_a_free_network_is_drawn_from_those_that_are_not_for_people(cucm_lab, tmp_path):
    done = cucm_lab("run", "migrate", "--network", "auto", "--out", tmp_path / "out", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    addresses = {str(event["peer"]) for event in events_of(tmp_path / "out") if "peer" in event}
    assert len(addresses) == 1
    assert FIRST_BLOCK <= int(addresses.pop().split(".")[1]) <= LAST_BLOCK


def test_every_address_is_of_the_network_asked_for(run, tmp_path):
    assert run("migrate", "--out", tmp_path / "out").returncode == 0
    sources = {event["peer"] for event in events_of(tmp_path / "out") if "peer" in event}
    assert sources == {run.address(100)}
    assert "127.0.11." not in (tmp_path / "out" / "events.jsonl").read_text()


# --- wrong words


def test_a_wrong_name_is_told_also_where_another_lab_has_the_network(cucm_lab, tmp_path):
    with NetworkClaim.draw(tmp_path) as other:
        done = cucm_lab("run", "migrat", "--network", str(other.network))
    assert done.returncode == 2
    assert "did you mean migrate?" in done.stderr


@pytest.mark.parametrize(
    ("words", "where", "text"),
    [
        (("migrat",), None, "did you mean migrate?"),
        (("xyzzy",), None, "callmanager-trust-only, campus, "),
        (("",), None, "no scenario ''"),
        ((), None, "give either one NAME or --failures"),
        (("migrate", "--failures"), None, "give either one NAME or --failures"),
        (("--failures", "--logs"), None, "--logs is for one story"),
        (("migrate", "--seed", "x"), None, "--seed"),
        (("migrate", "--network", "127.0.12.0/25"), "--network", "is not a /24 of 127.0.0.0/8"),
        (("migrate", "--network", "192.168.11.0/24"), "--network", "is not a /24 of 127.0.0.0/8"),
        (("migrate", "--network", "127.0.12.1/24"), "--network", "has host bits set"),
        (("migrate", "--network", "somewhere"), "--network", "somewhere"),
        (("./none.toml",), "none.toml", "No such file or directory"),
        (("/",), "/", "Is a directory"),
        (("/dev/zero",), "/dev/zero", "is larger than"),
    ],
)
def test_wrong_words(cucm_lab, words, where, text):
    done = cucm_lab("run", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert text in done.stderr
    assert where is None or f"  where: {where}\n" in done.stderr
    assert "\n  mend: " in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"boot-phone", phone', '"boot-phone", fone', "acts[1].steps[1].fone (line 9): "),
        (
            '"reset-phone"',
            '"reset-fone"',
            "acts[3].steps[2].do (line 26): there is no 'reset-fone'; did you mean reset-",
        ),
        ("[[acts]]", "[[acts]", "is not TOML: "),
        ('"Phone-SAST-trust"]', '"Fone-trust"]', "acts[2].steps[1].stores[2] (line 15): "),
    ],
)
def test_a_story_file_with_an_error_is_told_with_file_and_place(run, old, new, place):
    path = run.story("mine.toml", (old, new))
    done = run(path)
    assert done.returncode == 2
    assert place in done.stderr
    assert f"  where: {path}\n" in done.stderr
    assert "\n  mend: " in done.stderr


def test_a_story_that_names_what_the_lab_lacks(run):
    done = run(run.story("mine.toml", ('cluster = "destination"', 'cluster = "nowhere"')))
    assert done.returncode == 2
    assert "no cluster 'nowhere' in this lab" in done.stderr
    assert "where: mine, act 2 “The administrator's six steps”" in done.stderr
    assert "mend: one of: source, destination" in done.stderr


# --- no as the answer


def test_a_wrong_expectation_is_a_no_that_says_what_differs(run, tmp_path):
    """Without the uploads the phone stays where it is."""
    path = run.story("mine.toml", ('["CallManager-trust", "Phone-SAST-trust"]', '["CallManager-trust"]'))
    done = run(path, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "Verdict   NOT as it should\n" in done.stdout
    act = "after “Option 150 changes and the phone is reset”"
    assert f"  {act}: {PHONE}: registered should be destination, is source\n" in done.stdout
    assert (tmp_path / "out" / "events.jsonl").is_file()
    told = json.loads((tmp_path / "out" / "cucm-lab-run.json").read_text())
    assert not told["ended_as_expected"]


def test_missing_evidence_is_a_no(run):
    path = run.story("mine.toml", ("rolecount : 0", "rolecount : 9"), of="callmanager-trust-only")
    done = run(path)
    assert done.returncode == 1
    assert "missing before the repair in tvs-ucm105pub.log: Found entry {rolecount : 9}\n" in done.stdout


def test_an_operation_that_the_system_refuses_breaks_the_story_off(run, tmp_path):
    """A byte is to be altered where the file has none."""
    step = '{ do = "set-option-150", cluster = "destination" },'
    path = run.story("mine.toml", (step, '{ do = "alter-ctl-file", cluster = "source", from_end = 99999999 },'))
    done = run(path, "--json", "--out", tmp_path / "out")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["broken"].startswith("act 3, “ucm105pub: one byte of CTLFile.tlv changes on the disk”: ")
    assert "bytes only" in answer["broken"]
    assert len(answer["acts"]) == 2
    assert (tmp_path / "out" / "flash" / PHONE / "after" / "CTLFile.tlv").is_file()


# --- the machine


def test_the_network_of_another_lab_is_not_played_on(run, tmp_path):
    with NetworkClaim.take(IPv4Network(run.network)):
        done = run("migrate", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert f"another lab has this network\n  where: {run.network}" in done.stderr
    assert done.stderr.count("--network auto") == 1
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()
    assert list(run.temporary.iterdir()) == []


def test_a_busy_address_is_named_and_nothing_is_left(run, tmp_path):
    with socket.socket() as taken:
        taken.bind((run.address(32), 2445))
        taken.listen()
        done = run("migrate", "--out", tmp_path / "new" / "out")
        as_json = run("migrate", "--json")
    assert done.returncode == 3
    assert run.address(32) in done.stderr
    assert "2445" in done.stderr
    assert "--network auto" in done.stderr
    assert "\n  mend: " in done.stderr
    assert not (tmp_path / "new").exists()
    assert as_json.returncode == 3
    assert json.loads(as_json.stdout)["error"]["mend"]


# --- --out


def test_foreign_files_are_left_alone(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    done = run("migrate", "--out", out)
    assert done.returncode == 2
    assert f"  where: {out}\n  mend: name an empty or new folder" in done.stderr
    assert files_below(out) == {"notes.txt"}


@pytest.mark.parametrize("place", ["file", "file/out", "/proc/nowhere/out"])
def test_places_where_nothing_can_be_written(run, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    done = run("migrate", "--out", tmp_path / place)
    assert done.returncode == 2
    assert f"  where: {tmp_path / place}\n" in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "file").read_text() == "mine"


def test_a_second_run_replaces_the_first(run, tmp_path):
    out = tmp_path / "out"
    assert run("tvs-down", "--out", out).returncode == 0
    assert run("migrate", "--out", out).returncode == 0
    assert json.loads((out / "cucm-lab-run.json").read_text())["scenario"] == "migrate"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "temporary"]


# --- signals


@pytest.mark.parametrize(
    ("number", "exit_code", "text"),
    [
        (signal.SIGINT, 130, "cucm-lab: interrupted\n"),
        (signal.SIGTERM, 143, "cucm-lab: ended by SIGTERM\n"),
        (signal.SIGHUP, 129, "cucm-lab: ended by SIGHUP\n"),
    ],
)
def test_a_signal_in_mid_run_ends_it_with_nothing_left(run, tmp_path, number, exit_code, text):
    words = ["run", "migrate", "--network", run.network, "--out", str(tmp_path / "new" / "out")]
    environment = os.environ | {"TMPDIR": str(run.temporary), "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [sys.executable, "-m", "lab.cli", *words], cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True
    ) as process:
        assert process.stdout is not None
        # a pipe of one page cannot take the whole timeline: the run waits in the middle of it until it is read
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        first = process.stdout.readline()
        while not first.startswith("Act 1"):
            first = process.stdout.readline()
        assert list(run.temporary.iterdir()) != []
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert errors == text
    assert "Verdict" not in output
    assert not (tmp_path / "new").exists()


def test_a_signal_that_the_caller_ignores_stays_ignored(run):
    """As under nohup."""
    words = ["run", "migrate", "--network", run.network]
    environment = os.environ | {"TMPDIR": str(run.temporary)}
    with subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-m", "lab.cli", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "ended as it should" in output


# --- other forms


def test_scenarios_are_listed_for_people_and_for_programs(cucm_lab):
    done = cucm_lab("scenarios")
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.partition("\n\n")[0].splitlines()]
    assert names[0] == "bulk-exchange"  # good ones first
    assert sorted(names) == sorted(packaged("scenarios"))
    answer = json.loads(cucm_lab("scenarios", "--json").stdout)
    assert answer["schema"] == 1
    by_name = {one["name"]: one for one in answer["scenarios"]}
    assert not by_name["migrate"]["is_failure"]
    assert by_name["tvs-down"]["catalogue"] == "F6"


@pytest.mark.timeout(300)  # thirty stories one after the other, two of which wait for packets that never come
def test_all_failures_as_a_table_and_a_folder_each(run, tmp_path):
    done = run("--failures", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    stories = {name for name in packaged("scenarios") if load_story(name)[1].failure}
    count = len(stories)
    end = f"{count} of {count} failure stories failed as documented and migrated after the documented repair.\n"
    assert done.stdout.endswith(end)
    assert f"not migrated: {PHONE} (registered: source)" in done.stdout
    assert f"not migrated: {PHONE} (registered nowhere)" in done.stdout
    assert done.stdout.count("afterwards: migrated\n") == count
    assert {path.name for path in (tmp_path / "out").iterdir()} == stories


@pytest.mark.timeout(300)
def test_all_failures_as_json(run):
    answer = json.loads(run("--failures", "--json").stdout)
    assert answer["schema"] == 1
    assert answer["as_expected"] == answer["stories_run"] == len(answer["stories"])
    assert all(story["failure"]["repair"] for story in answer["stories"])
