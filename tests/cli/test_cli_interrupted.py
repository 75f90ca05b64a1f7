"""Ctrl-C while a program still imports: 130 and no traceback, for every entry point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AT = """
import sys, os, signal
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = [{program!r}, *{words!r}]
import runpy
runpy.run_module({program!r}, run_name="__main__", alter_sys=True)
"""
ENTRIES = [
    ("lab.cli", ["wait", "--for", "phones"], "lab.cli.frame", ""),
    ("lab.cli", ["wait", "--for", "phones"], "lab.api.client", "cucm-lab: interrupted\n"),
    ("lab.cli", ["tvs", "query", "127.0.0.1"], "lab.cli.tvs", "cucm-lab: interrupted\n"),
    ("lab.cli", ["tvs", "query", "127.0.0.1", "--certificate", "x.pem"], "cryptography", "cucm-lab: interrupted\n"),
    ("tvs_server", ["--help"], "cucm.certificates", ""),
    ("tftp_server", ["--help"], "cryptography", ""),
    ("phone_agent", ["--help"], "phone_agent.driver", ""),
]


AT_THE_END = """
import os, signal, sys
from lab.cli import frame, main
frame.main = lambda argv: 0
main()
os.kill(os.getpid(), signal.SIGINT)
print("goes on")
"""


def interrupted(code: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a Python program that sends itself the signal."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_interrupted_when_it_has_done_its_work() -> None:
    assert interrupted(AT_THE_END) == (130, "", "")


AT_ITS_EDGES = """
import os, signal, sys
from lab.cli import frame, main
whole = frame.{function}
def interrupted(*words):
    {before}os.kill(os.getpid(), signal.SIGINT)
    told = whole(*words)
    os.kill(os.getpid(), signal.SIGINT)
    return told
frame.{function} = interrupted
sys.argv = ["cucm-lab", "--version"]
raise SystemExit(main())
"""


@pytest.mark.parametrize("function", ["_open_closed_streams", "_main", "main"])
@pytest.mark.parametrize("before", ["", "pass  # "], ids=["before", "behind"])
def test_interrupted_just_before_its_work_or_just_behind(function: str, before: str) -> None:
    exit_code, _told, trouble = interrupted(AT_ITS_EDGES.format(function=function, before=before))
    assert (exit_code, trouble) == (130, "")


@pytest.mark.parametrize(("program", "words", "module", "says"), ENTRIES)
def test_interrupted_while_it_imports(program: str, words: list[str], module: str, says: str) -> None:
    assert interrupted(AT.format(module=module, program=program, words=words)) == (130, "", says)
