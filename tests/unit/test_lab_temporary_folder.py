from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from what_is_missing import lacking

from cucm.errors import EnvironmentProblem
from lab.temporary_folder import LOCK_NAME, remove_dead_folders, temporary_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go meanwhile."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def dead_folder(place: Path, name: str = "lab-dead", mode: int = 0o700) -> Path:
    """As a run leaves it that was killed."""
    folder = place / name
    (folder / "security").mkdir(parents=True)
    (folder / "security" / "key.pem").write_text("secret")
    (folder / LOCK_NAME).touch(0o600)
    folder.chmod(mode)
    return folder


def test_a_folder_is_private_and_goes_with_its_run(place: Path) -> None:
    with temporary_folder("lab-") as folder:
        assert folder.parent == place
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "clusters").mkdir()
        (folder / "clusters" / "node.db").touch()
    assert list(place.iterdir()) == []


def test_what_a_killed_run_left_goes_at_the_next_start(place: Path) -> None:
    dead = dead_folder(place)
    with temporary_folder("lab-") as folder:
        assert not dead.exists()
        assert folder.exists()


def test_a_run_that_lives_keeps_its_folder(place: Path) -> None:
    with temporary_folder("lab-") as living:
        (living / "key.pem").touch()
        remove_dead_folders("lab-")
        assert (living / "key.pem").exists()


def test_the_folder_of_another_kind_of_program_is_left_alone(place: Path) -> None:
    other, unlocked = dead_folder(place, "other"), place / "lab-of-who-takes-no-lock"
    unlocked.mkdir(0o700)
    remove_dead_folders("lab-")
    assert other.exists()
    assert unlocked.exists()


def test_a_folder_that_others_may_write_to_is_left_alone(place: Path) -> None:
    open_to_all = dead_folder(place, mode=0o770)
    remove_dead_folders("lab-")
    assert (open_to_all / "security" / "key.pem").exists()


def test_a_folder_of_another_user_is_left_alone(place: Path) -> None:
    if os.geteuid() != 0:
        lacking("only root can give a folder away")
    foreign = dead_folder(place)
    os.chown(foreign, 12345, -1)
    remove_dead_folders("lab-")
    assert (foreign / "security" / "key.pem").exists()


def test_links_lead_nowhere(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = dead_folder(tmp_path_factory.mktemp("elsewhere"))
    precious = elsewhere.parent / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (place / "lab-link").symlink_to(elsewhere)
    false_lock = dead_folder(place, "lab-false-lock")
    (false_lock / LOCK_NAME).unlink()
    (false_lock / LOCK_NAME).symlink_to(elsewhere / LOCK_NAME)
    with_links = dead_folder(place, "lab-with-links")
    (with_links / "clusters").symlink_to(precious)
    (with_links / "security" / "more").symlink_to(precious)
    remove_dead_folders("lab-")
    assert (elsewhere / "security" / "key.pem").exists()
    assert (precious / "file").exists()
    assert false_lock.exists()
    assert not with_links.exists()


def test_what_cannot_be_removed_keeps_nothing_else_and_is_tried_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = dead_folder(place)
    for name in ("a", "z"):
        (dead / name).mkdir()
        (dead / f"{name}.key").touch()
    remove = shutil.rmtree

    def busy(name: str, *, dir_fd: int) -> None:
        if name == "security":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        remove(name, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", busy)
        remove_dead_folders("lab-")
    assert sorted(path.name for path in dead.iterdir()) == [LOCK_NAME, "security"]
    remove_dead_folders("lab-")
    assert not dead.exists()


def test_a_dead_folder_that_another_start_is_removing_is_left_to_it(place: Path) -> None:
    dead = dead_folder(place)
    with (dead / LOCK_NAME).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_dead_folders("lab-")
        assert dead.exists()
    remove_dead_folders("lab-")
    assert not dead.exists()


def test_no_place_for_it_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "none"))
    with pytest.raises(EnvironmentProblem, match="no folder can be made: No such file") as told, temporary_folder("x-"):
        pass
    assert "TMPDIR" in (told.value.mend or "")
