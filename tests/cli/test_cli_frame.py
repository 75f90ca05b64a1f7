from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli import frame
from lab.cli.frame import SUBCOMMANDS, Subcommand, main

COMMAND = """
from cucm.errors import TrustError, TrustReason
def add_arguments(parser):
    parser.add_argument("how")
    parser.add_argument("--json", action="store_true", help="worded by the command")
def run(arguments):
    match arguments.how:
        case "refuse":
            raise TrustError(TrustReason.UNSIGNED, "it is so", where="here", mend="do that")
        case "break":
            return {}["missing"]
        case "interrupt":
            raise KeyboardInterrupt
        case "machine":
            raise OSError(28, "No space left on device", "full.txt")
        case "chatter":
            for number in range(200_000):
                print("line", number)
        case "odd-letters":
            print("M\\u00fcnchen \\ud800")
    return 0
"""


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command `trial` beside the real ones, that does what it is told."""
    (tmp_path / "trial_command.py").write_text(COMMAND)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(frame, "SUBCOMMANDS", (*SUBCOMMANDS, Subcommand("trial", "try it", "trial_command")))


def test_help_lists_every_command_and_imports_none(cucm_lab):
    listing = cucm_lab("--help")
    assert listing.returncode == 0
    assert all(subcommand.name in listing.stdout for subcommand in SUBCOMMANDS)
    code = "import sys; from lab.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stderr.replace("'", "").strip("[]\n").split(", "))
    assert "lab.cli.frame" in loaded
    assert not loaded & {
        "asyncio",
        "cryptography",
        "OpenSSL",
        "pydantic",
        "sqlalchemy",
        "dataclasses",
        "json",
        "inspect",
    }
    assert not {name for name in loaded if name.startswith("lab.cli.")} - {"lab.cli.frame", "lab.cli.help_text"}


def test_version(cucm_lab):
    done = cucm_lab("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("cucm-lab 0.")


def test_version_as_json(cucm_lab):
    answer = json.loads(cucm_lab("--version", "--json").stdout)
    assert json.loads(cucm_lab("--json", "--version").stdout) == answer
    assert cucm_lab("--version").stdout == f"cucm-lab {answer['version']}\n"


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_help_is_as_wide_as_the_terminal(cucm_lab, columns):
    lines = cucm_lab("up", "--help", COLUMNS=str(columns)).stdout.splitlines()
    assert columns - 30 < max(map(len, lines)) <= columns
    assert next(line for line in lines if line.startswith("exit codes: 0 ended in order"))
    kept = cucm_lab("wait", "--help", COLUMNS=str(columns)).stdout
    assert """  cucm-lab wait --for 'events."tvs.response_sent"'\n""" in kept, "examples stay whole"


@pytest.mark.parametrize("subcommand", ["show", "verify", "tvs", "decode", "doctor"])
def test_every_command_has_help_with_common_arguments(cucm_lab, subcommand):
    done = cucm_lab(subcommand, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: cucm-lab {subcommand}" in done.stdout
    assert cucm_lab("help", subcommand).stdout == done.stdout


def test_no_word_is_wrong_words_with_help(cucm_lab):
    done = cucm_lab()
    assert done.returncode == 2
    assert "usage: cucm-lab" in done.stderr
    assert not done.stdout


def test_unknown_command_suggests_the_nearest(cucm_lab):
    done = cucm_lab("decoed")
    assert done.returncode == 2
    assert "did you mean `cucm-lab decode`?" in done.stderr
    assert "the commands are scenarios, run, validate" in cucm_lab("xyzzy").stderr


def test_wrong_words_as_json(cucm_lab):
    done = cucm_lab("decode", "--no-such-flag", "--json")
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    assert "--no-such-flag" in answer["error"]["what"]
    assert set(answer["error"]) == {"what", "where", "mend"}


def test_a_word_too_many_points_to_the_help_of_its_command(cucm_lab):
    done = cucm_lab("doctor", "too", "many")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "cucm-lab: error: unrecognized arguments: too many",
        "  mend: `cucm-lab doctor --help` lists the words it takes",
    ]


@pytest.mark.parametrize(
    ("words", "what", "mend"),
    [
        ("fleet --phnes 3", "there is no option '--phnes'", "did you mean --phones?"),
        ("decode --hx", "there is no option '--hx'", "did you mean --help?"),
        ("wait --four=x", "there is no option '--four'", "did you mean --for?"),
        ("tvs query localhost --isuer x", "there is no option '--isuer'", "did you mean --issuer?"),
        ("run migrate --zzz", "there is no option '--zzz'", "`cucm-lab run --help` lists the words it takes"),
        ("exec curl --head x", "'--head' stands behind a command", "put `--` before curl"),
        ("exec --phones off --debug ls -l", "'-l' stands behind a command", "put `--` before ls"),
        ("exec tool --topology x", "'--topology' stands behind a command", "put `--` before tool"),
        ("exec --topolgy campus curl x", "there is no option '--topolgy'", "did you mean --topology?"),
        ("exec --topolgy campus -- curl", "there is no option '--topolgy'", "did you mean --topology?"),
        ("tvs qeury x", "there is no 'qeury'", "did you mean query?"),
        ("phone restart all", "there is no 'restart'", "did you mean reset?"),
        ("up --phones perhaps", "there is no 'perhaps'", "use on, off"),
    ],
)
def test_a_misspelt_word_has_the_nearest(capsys, words, what, mend):
    assert main(words.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"cucm-lab: error: {what}\n")
    assert told.endswith(f"  mend: {mend}\n")


@pytest.mark.parametrize("words", [("sql", "--json"), ("sql",)])
def test_sql_that_begins_with_a_comment_is_no_option(capsys, tmp_path, words):
    assert main([*words, "node", "-- who\nselect 1", "--directory", str(tmp_path)]) == 3
    told = capsys.readouterr()
    assert "no lab is running here" in told.out + told.err


@pytest.mark.parametrize("subcommand", [one.name for one in SUBCOMMANDS])
def test_every_command_tells_its_exit_codes(capsys, subcommand):
    assert main([subcommand, "--help"]) == 0
    assert "\nexit codes: " in capsys.readouterr().out


def test_flags_are_not_abbreviated(cucm_lab):
    assert cucm_lab("decode", "--js", "57").returncode == 2


@pytest.mark.usefixtures("trial")
def test_an_error_on_purpose_tells_what_where_and_how_to_mend(capsys):
    assert main(["trial", "refuse"]) == 1
    told = capsys.readouterr()
    assert told.err == "cucm-lab: error: it is so\n  where: here\n  mend: do that\n"
    assert told.out == ""


@pytest.mark.usefixtures("trial")
def test_an_error_on_purpose_as_json(capsys):
    assert main(["trial", "refuse", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "error": {"what": "it is so", "where": "here", "mend": "do that"},
    }


@pytest.mark.usefixtures("trial")
def test_an_unforeseen_error_is_one_line_and_a_traceback_only_with_debug(capsys):
    assert main(["trial", "break"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("cucm-lab: error: internal error: KeyError: 'missing'\n  where: trial_command.py:")
    assert "Traceback" not in told
    assert main(["trial", "break", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.usefixtures("trial")
def test_the_machines_errors_are_the_machines(capsys):
    assert main(["trial", "machine"]) == 3
    told = "cucm-lab: error: No space left on device\n  where: full.txt\n  mend: make room on that disk\n"
    assert capsys.readouterr().err == told


@pytest.mark.usefixtures("trial")
def test_interrupted(capsys):
    assert main(["trial", "interrupt"]) == 130
    assert capsys.readouterr().err == "cucm-lab: interrupted\n"


@pytest.mark.usefixtures("trial")
def test_a_command_may_word_a_common_flag_its_own_way(capsys):
    assert main(["trial", "--help"]) == 0
    assert "worded by the command" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_error(tmp_path):
    (tmp_path / "trial_command.py").write_text(COMMAND)
    code = (
        "import sys; from lab.cli import frame; frame.SUBCOMMANDS = (frame.Subcommand('trial', 'x', 'trial_command'),);"
        "sys.exit(frame.main(['trial', 'chatter']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path.cwd(), env={"PYTHONPATH": str(tmp_path)}, stdout=-1, stderr=-1
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_letters_the_terminal_lacks_are_escaped(tmp_path):
    (tmp_path / "trial_command.py").write_text(COMMAND)
    code = (
        "import sys; from lab.cli import frame; frame.SUBCOMMANDS = (frame.Subcommand('trial', 'x', 'trial_command'),);"
        "sys.exit(frame.main(['trial', 'odd-letters']))"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"M\\xfcnchen \\ud800\n"


@pytest.mark.parametrize("words", [["scenarios"], ["scenarios", "--json"], ["no-such-command", "--json"]])
def test_an_output_that_is_full_is_the_machines_trouble_and_no_traceback(words):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lab.cli", *words], stdout=full, stderr=-1, text=True, timeout=60, check=False
        )
    assert done.returncode == (2 if words[0] == "no-such-command" else 3)
    assert "no-such-command" in done.stderr or "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_an_output_that_is_closed_is_none(closed):
    script = f'"$0" -m lab.cli scenarios --json {closed}'
    done = subprocess.run(["sh", "-c", script, sys.executable], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (closed == "2>&-")
