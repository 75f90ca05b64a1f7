from __future__ import annotations

import pytest

from cucm.errors import EnvironmentProblem
from cucm.whole_files import write_private, write_whole


def test_a_file_is_replaced_with_its_mode(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_whole(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o644)
    write_private(path, b"newer")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"newer", 0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_is_told_and_the_old_file_stays(tmp_path):
    target = tmp_path / "folder"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_whole(target, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_whole(tmp_path / "nowhere" / "file", b"new")
