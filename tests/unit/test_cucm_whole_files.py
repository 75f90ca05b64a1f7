from __future__ import annotations

import pytest

from cucm.errors import EnvironmentProblem
from cucm.whole_files import remove_unfinished, write_private, write_whole


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


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path):
    for name in (".new-abc.key", ".new-", "new-key.pem", ".newer", "key.pem"):
        (tmp_path / name).write_bytes(b"")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".newer", "key.pem", "new-key.pem"]
    remove_unfinished(tmp_path / "nowhere")


def test_what_is_half_written_has_a_name_that_is_removed(tmp_path, monkeypatch):
    """A kill in between: what `write_whole` had begun is what `remove_unfinished` finds."""

    def killed(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_private(tmp_path / "some.key", b"half")
    (left,) = tmp_path.iterdir()
    assert left.stat().st_mode & 0o777 == 0o600
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_told(tmp_path):
    (tmp_path / ".new-folder").mkdir()
    with pytest.raises(EnvironmentProblem, match="cannot be tidied"):
        remove_unfinished(tmp_path)
