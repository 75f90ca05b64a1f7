from __future__ import annotations

import json
import os
import stat

import pytest

from cucm.errors import EnvironmentProblem, UsageError
from lab.ready_file import PID_NAME, ReadyFile, remove_pid, write_pid


def test_it_is_there_while_the_lab_is(tmp_path):
    path = tmp_path / "ready"
    ready = ReadyFile(path)
    assert not path.exists()
    ready.write("r1", {"api": "http://127.0.0.1:1"})
    said = json.loads(path.read_text())
    assert said == {"schema": 1, "ready": True, "run": "r1", "pid": os.getpid(), "api": "http://127.0.0.1:1"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ready.remove()
    assert list(tmp_path.iterdir()) == []
    ready.remove()


def test_that_of_a_killed_lab_and_an_empty_one_are_replaced(tmp_path):
    path = tmp_path / "ready"
    ReadyFile(path).write("r1", {})
    ReadyFile(path)
    assert not path.exists()
    path.touch()  # what mktemp makes
    ReadyFile(path).write("r2", {})
    assert json.loads(path.read_text())["run"] == "r2"


def test_that_of_another_lab_stays(tmp_path):
    first = ReadyFile(tmp_path / "ready")
    first.write("r1", {})
    ReadyFile(tmp_path / "ready").write("r2", {})
    first.remove()
    assert json.loads((tmp_path / "ready").read_text())["run"] == "r2"


@pytest.mark.parametrize("text", ["thesis", "{}", "[1]", '{"ready": true, "run": 1}', '{"ready": false, "run": "r"}'])
def test_other_files_are_left_alone(tmp_path, text):
    (tmp_path / "ready").write_text(text)
    with pytest.raises(UsageError, match="is no ready file of a lab"):
        ReadyFile(tmp_path / "ready")
    assert (tmp_path / "ready").read_text() == text


def test_places_where_none_can_be(tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        ReadyFile(tmp_path / "missing" / "ready")
    (tmp_path / "folder").mkdir()
    with pytest.raises((UsageError, EnvironmentProblem)):
        ReadyFile(tmp_path / "folder")


def test_the_number_of_the_process(tmp_path):
    write_pid(tmp_path)
    assert (tmp_path / PID_NAME).read_text() == f"{os.getpid()}\n"
    remove_pid(tmp_path)
    remove_pid(tmp_path)
    assert list(tmp_path.iterdir()) == []
