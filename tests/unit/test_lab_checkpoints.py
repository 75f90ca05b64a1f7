from __future__ import annotations

import os
import sqlite3
import stat
import threading

import pytest

from cucm.errors import EnvironmentProblem, LimitExceeded, UsageError
from lab import checkpoints as module
from lab.checkpoints import START, Checkpoints, finish_restore

DATABASE = "clusters/a/n1/node.db"


def value_in(path):
    with sqlite3.connect(path) as connection:
        (value,) = connection.execute("select value from t").fetchone()
    connection.close()
    return value


def write(directory, value):
    """A lab's folder in which everything says `value`."""
    (directory / "clusters/a/n1").mkdir(parents=True, exist_ok=True, mode=0o700)
    with sqlite3.connect(directory / DATABASE) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table if not exists t (value)")
        connection.execute("delete from t")
        connection.execute("insert into t values (?)", (value,))
    connection.close()
    (directory / "phones/p").mkdir(parents=True, exist_ok=True)
    (directory / "phones/p/lock").touch()
    (directory / "phones/p/manifest").write_text(value)
    (directory / "dhcp.json").write_text(value)
    (directory / "dhcp.json").chmod(0o600)
    (directory / "lab.json").write_text("{}")


def values(directory):
    texts = [(directory / name).read_text() for name in ("phones/p/manifest", "dhcp.json")]
    return {value_in(directory / DATABASE), *texts}


def make(directory, name, standing=None):
    Checkpoints(directory).make(name, [directory / DATABASE], standing or {})


def go_back(directory, name):
    kept = Checkpoints(directory)
    kept.stage(name)
    kept.swap()


def test_a_lab_goes_back_and_forth(tmp_path):
    for value in ("one", "two"):
        write(tmp_path, value)
        make(tmp_path, value, {"is": value})
    for value in ("one", "two", "one", "one"):
        go_back(tmp_path, value)
        assert values(tmp_path) == {value}
        assert Checkpoints(tmp_path).standing(value) == {"is": value}
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "checkpoints",
            "clusters",
            "dhcp.json",
            "lab.json",
            "phones",
        ]
    assert [one.name for one in Checkpoints(tmp_path)] == ["one", "two"]


def test_what_was_not_there_is_not_there_again_and_modes_stay(tmp_path):
    write(tmp_path, "one")
    make(tmp_path, "one")
    (tmp_path / "clock.json").write_text("{}")
    (tmp_path / "sftp").mkdir()
    (tmp_path / "phones/q").mkdir()
    go_back(tmp_path, "one")
    assert not (tmp_path / "clock.json").exists()
    assert not (tmp_path / "sftp").exists()
    assert not (tmp_path / "phones/q").exists()
    assert stat.S_IMODE((tmp_path / "dhcp.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / DATABASE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "clusters/a/n1").stat().st_mode) == 0o700


def test_a_database_is_copied_while_others_write_to_it(tmp_path):
    write(tmp_path, "0")
    connection = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    connection.execute("update t set value = 'in the log only'")
    make(tmp_path, "one")
    connection.close()
    copy = tmp_path / "checkpoints/one/state" / DATABASE
    assert sorted(path.name for path in copy.parent.iterdir()) == ["node.db"]
    assert value_in(copy) == "in the log only"


def test_a_flash_is_not_copied_while_its_phone_writes(tmp_path):
    import fcntl

    write(tmp_path, "old")
    with (tmp_path / "phones/p/lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copying = threading.Thread(target=make, args=(tmp_path, "one"))
        copying.start()
        (tmp_path / "phones/p/manifest").write_text("new")
    copying.join(10)
    assert (tmp_path / "checkpoints/one/state/phones/p/manifest").read_text() == "new"


def test_half_written_files_links_and_pipes_are_left_out(tmp_path):
    write(tmp_path, "one")
    (tmp_path / "sftp").mkdir()
    (tmp_path / "sftp/.new-x").touch()
    (tmp_path / "sftp/.hidden").touch()
    (tmp_path / "sftp/link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "sftp/pipe")
    make(tmp_path, "one")
    assert [path.name for path in (tmp_path / "checkpoints/one/state/sftp").iterdir()] == [".hidden"]


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a b", "ä", "x" * 65, "../x", "a\n"])
def test_names_that_are_none(tmp_path, name):
    write(tmp_path, "one")
    kept = Checkpoints(tmp_path)
    for act in (lambda: make(tmp_path, name), lambda: kept.stage(name), lambda: kept.delete(name)):
        with pytest.raises(UsageError, match="no name for a checkpoint"):
            act()


def test_names_that_are_taken_or_unknown(tmp_path):
    write(tmp_path, "one")
    make(tmp_path, "x" * 64)
    with pytest.raises(UsageError, match="already"):
        make(tmp_path, "x" * 64)
    for act in (Checkpoints(tmp_path).stage, Checkpoints(tmp_path).delete, Checkpoints(tmp_path).standing):
        with pytest.raises(UsageError, match="no checkpoint 'y'") as refused:
            act("y")
        assert refused.value.mend == f"there are: {'x' * 64}"


def test_start_is_made_again_and_cannot_be_deleted(tmp_path):
    for value in ("one", "two"):
        write(tmp_path, value)
        make(tmp_path, START)
    write(tmp_path, "three")
    go_back(tmp_path, START)
    assert values(tmp_path) == {"two"}
    with pytest.raises(UsageError, match="the lab's own"):
        Checkpoints(tmp_path).delete(START)


def test_deleting(tmp_path):
    write(tmp_path, "one")
    make(tmp_path, "one")
    Checkpoints(tmp_path).delete("one")
    assert list(Checkpoints(tmp_path)) == []
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_their_number_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_CHECKPOINTS", 2)
    write(tmp_path, "one")
    for name in (START, "1", "2"):
        make(tmp_path, name)
    with pytest.raises(LimitExceeded, match="2 checkpoints already"):
        make(tmp_path, "3")
    make(tmp_path, START)


def test_a_full_disk_leaves_no_half_checkpoint_and_no_half_restore(tmp_path, monkeypatch):
    write(tmp_path, "one")
    make(tmp_path, "one")
    write(tmp_path, "two")

    def full(*_words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.shutil, "copy2", full)
    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        make(tmp_path, "two")
    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        Checkpoints(tmp_path).stage("one")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["one"]
    finish_restore(tmp_path)
    assert values(tmp_path) == {"two"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_at": "x", "standing": {}}', '{"made_at": 1, "standing": 1}'])
def test_a_damaged_description(tmp_path, text):
    write(tmp_path, "one")
    make(tmp_path, "one")
    (tmp_path / "checkpoints/one/checkpoint.json").write_text(text)
    with pytest.raises(UsageError, match="is no checkpoint of a lab"):
        Checkpoints(tmp_path).standing("one")


def test_what_is_no_checkpoint_is_in_nobodys_way(tmp_path):
    write(tmp_path, "one")
    make(tmp_path, "one")
    make(tmp_path, "damaged")
    (tmp_path / "checkpoints/damaged/checkpoint.json").write_text("{")
    (tmp_path / "checkpoints/somebodys").mkdir()
    (tmp_path / "checkpoints/file").touch()
    assert [one.name for one in Checkpoints(tmp_path)] == ["one"]
    with pytest.raises(UsageError, match="no checkpoint 'somebodys'"):
        Checkpoints(tmp_path).standing("somebodys")
    with pytest.raises(UsageError, match="already"):
        make(tmp_path, "somebodys")
    make(tmp_path, "two")
    go_back(tmp_path, "two")
    Checkpoints(tmp_path).delete("damaged")


def test_a_damaged_journal(tmp_path):
    (tmp_path / "restore.json").write_text("{")
    with pytest.raises(UsageError, match="is no checkpoint of a lab"):
        finish_restore(tmp_path)


class Killed(BaseException):
    pass


def test_a_kill_at_any_step_leaves_the_old_or_the_new_state(tmp_path, monkeypatch):
    """Every system call that changes names in the folder is once the last."""
    seen, step = set(), 0
    while True:
        directory = tmp_path / f"{step}"
        directory.mkdir()
        write(directory, "new")
        make(directory, "new")
        write(directory, "old")
        with monkeypatch.context() as patch:
            left = [step]
            for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
                patch.setattr(module.os, name, _dying(getattr(os, name), left))
            try:
                go_back(directory, "new")
            except Killed:
                pass
            else:
                break
        finish_restore(directory)
        (value,) = values(directory)
        seen.add(value)
        assert sorted(path.name for path in directory.iterdir()) == [
            "checkpoints",
            "clusters",
            "dhcp.json",
            "lab.json",
            "phones",
        ]
        step += 1
    assert step > 10
    assert seen == {"old", "new"}


def _dying(call, left):
    def act(*words, **named):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return call(*words, **named)

    return act
