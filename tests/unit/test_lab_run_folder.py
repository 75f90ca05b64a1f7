from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_on_sockets import PHONE, make_lab, network_of

from cucm.errors import UsageError
from cucm.events.administration import ActStarted
from lab.log_book import LogBook
from lab.run_folder import MARKER, RunFolder


@pytest.fixture
def lab(tmp_path, loopback):
    """Not started: it has events, served files and no phones, which is all a folder asks for."""
    lab = make_lab(tmp_path / "lab", network_of(loopback))
    lab.served.note("n1", f"CTL{PHONE}.tlv", b"list")
    return lab


def leave(target: Path, lab, **result: object) -> None:
    with RunFolder(target) as folder:
        folder.finish(lab, LogBook(lab.events), result)


def refusal(target: Path) -> UsageError:
    with pytest.raises(UsageError) as refused:
        RunFolder(target)
    assert refused.value.where == str(target)
    return refused.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_whole_with_its_parents(tmp_path, lab):
    target = tmp_path / "new" / "deep" / "run"
    with RunFolder(target) as folder:
        assert not target.exists()
        folder.finish(lab, LogBook(lab.events), {"a": 1})
    assert names(target) == [MARKER, "events.jsonl", "served"]
    assert json.loads((target / MARKER).read_text()) == {"a": 1}
    assert (target / "served" / "n1" / f"CTL{PHONE}.tlv").read_bytes() == b"list"
    assert names(target.parent) == ["run"]


@pytest.mark.parametrize("log", ["cluster-source", "lab-story", "capf-n1", "sftp-lab", "node-n1", f"phone-{PHONE}"])
def test_every_log_that_evidence_may_name_is_left(tmp_path, lab, log):
    target = tmp_path / "run"
    book = LogBook(lab.events)
    lab.events.emit(log.replace("-", ":", 1), ActStarted(1, "an act"))
    with RunFolder(target) as folder:
        folder.finish(lab, book, {})
    assert (target / f"{log}.log").is_file()
    leave(target, lab)  # and it counts as a run's: it is replaced
    assert not (target / f"{log}.log").exists()


def test_a_run_that_is_not_finished_leaves_nothing(tmp_path, lab):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path / "new" / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


def test_an_earlier_run_is_replaced_and_nothing_of_it_is_left(tmp_path, lab):
    target = tmp_path / "run"
    leave(target, lab, first=1)
    (target / "phone-OLD.log").write_text("an old log")
    leave(target, lab, second=2)
    assert json.loads((target / MARKER).read_text()) == {"second": 2}
    assert names(target) == [MARKER, "events.jsonl", "served"]
    assert names(tmp_path) == ["run"]


def test_an_earlier_run_stays_until_the_new_one_is_finished(tmp_path, lab):
    target = tmp_path / "run"
    leave(target, lab, first=1)
    with pytest.raises(ZeroDivisionError), RunFolder(target):
        raise ZeroDivisionError
    assert json.loads((target / MARKER).read_text()) == {"first": 1}


def test_foreign_files_are_left_alone(tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    assert "(notes.txt); they are left alone" in refusal(target).what
    assert names(target) == ["notes.txt"]


def test_a_file_added_to_an_earlier_run_is_left_alone(tmp_path, lab):
    target = tmp_path / "run"
    leave(target, lab)
    (target / "notes.txt").write_text("mine")
    assert "notes.txt" in refusal(target).what


def test_files_that_look_like_a_runs_without_its_mark_are_left_alone(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "events.jsonl").write_text("somebody's")
    assert "left alone" in refusal(target).what


def test_files_that_appear_during_the_run_are_left_alone(tmp_path, lab):
    target = tmp_path / "run"
    with RunFolder(target) as folder:
        target.mkdir()
        (target / "notes.txt").write_text("mine")
        with pytest.raises(UsageError, match="left alone"):
            folder.finish(lab, LogBook(lab.events), {})
    assert (target / "notes.txt").read_text() == "mine"
    assert names(tmp_path) == ["run"]


def test_when_the_new_folder_cannot_be_moved_the_old_one_comes_back(tmp_path, lab, monkeypatch):
    target = tmp_path / "run"
    leave(target, lab, first=1)
    real = Path.rename

    def rename(path: Path, to: Path) -> Path:
        if path.name == "new":
            raise OSError(28, "No space left on device")
        return real(path, to)

    with RunFolder(target) as folder:
        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(UsageError, match="No space left on device"):
            folder.finish(lab, LogBook(lab.events), {"second": 2})
    assert json.loads((target / MARKER).read_text()) == {"first": 1}
    assert names(tmp_path) == ["run"]


def test_a_link_stays_and_its_folder_is_replaced(tmp_path, lab):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to("elsewhere")
    for number in range(2):
        leave(link, lab, number=number)
    assert link.is_symlink()
    assert json.loads((tmp_path / "elsewhere" / MARKER).read_text()) == {"number": 1}


def test_places_where_no_folder_can_be(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    assert refusal(file).what == "is not a folder"
    assert refusal(file / "run").what.startswith("cannot be written: ")
    assert refusal(Path("/proc/nowhere/run")).what.startswith("cannot be written: ")
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop").what.startswith("cannot be written: ")
    assert refusal(tmp_path / ("x" * 300)).what.startswith("cannot be written: ")
    assert names(tmp_path) == ["file", "loop"]


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "current folder" in refusal(Path()).what


def test_a_name_from_the_wire_never_leaves_the_folder(tmp_path, lab):
    for name in ("../evil", "/evil", "..", ".hidden", "a/b", ""):
        lab.served.note("n1", name, b"evil " + name.encode())
    leave(tmp_path / "run", lab)
    assert names(tmp_path / "run" / "served" / "n1") == [f"CTL{PHONE}.tlv"]
    assert names(tmp_path) == ["run"]
