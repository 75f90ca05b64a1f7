from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import time
from ipaddress import IPv4Network

import pytest

from cucm.errors import EnvironmentProblem, UsageError
from lab.lab_folder import CLOCK_NAME, DESCRIPTION_NAME, LOCK_NAME, FolderLock, KeptClock, LabFolder, Wishes
from lab.topology import load_topology

NETWORK = IPv4Network("127.0.99.0/24")


def begin(directory, *, network=NETWORK, seed=5):
    """What a lab writes that begins here."""
    topology = load_topology("two-clusters").model_dump(mode="json", by_alias=True)
    value = {"topology": topology, "network": str(network), "seed": seed}
    (directory / DESCRIPTION_NAME).write_text(json.dumps(value))


def test_a_new_folder_is_made_for_the_user_alone(tmp_path):
    with LabFolder(tmp_path / "a" / "b") as folder:
        assert stat.S_IMODE(folder.directory.stat().st_mode) == 0o700
        assert not folder.is_resumed
        described = folder.describe(Wishes())
    assert described.topology == load_topology("two-clusters")
    assert (str(described.network), described.seed) == ("127.0.11.0/24", 0)
    assert described.options(tmp_path).directory == tmp_path


def test_an_open_folder_is_closed_to_others(tmp_path):
    tmp_path.chmod(0o755)
    with LabFolder(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    tmp_path.chmod(0o755)
    with pytest.raises(UsageError, match=r"thesis\.txt"), LabFolder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_lab_that_was_killed_before_it_began_anything(tmp_path):
    (tmp_path / LOCK_NAME).touch()
    with LabFolder(tmp_path) as folder:
        assert not folder.is_resumed


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be the folder"), LabFolder(tmp_path / "file"):
        pass


def test_one_process_at_a_time(tmp_path):
    code = (
        "import sys; from pathlib import Path; from lab.lab_folder import LabFolder\n"
        "with LabFolder(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(EnvironmentProblem, match="running in this folder already"), LabFolder(tmp_path):
            pass
        other.kill()
        other.wait()
        with LabFolder(tmp_path):
            pass


def test_a_resumed_lab_is_what_it_was(tmp_path):
    begin(tmp_path)
    with LabFolder(tmp_path) as folder:
        assert folder.is_resumed
        for wishes in (Wishes(), Wishes("two-clusters", NETWORK, 5)):
            described = folder.describe(wishes)
            assert described.topology == load_topology("two-clusters")
            assert (described.network, described.seed) == (NETWORK, 5)


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        (Wishes(seed=6), "another --seed"),
        (Wishes(network=IPv4Network("127.0.98.0/24")), "another --network"),
        (Wishes(seed=6, network=IPv4Network("127.0.98.0/24")), "another --network and another --seed"),
    ],
)
def test_a_resumed_lab_cannot_become_another(tmp_path, wishes, text):
    begin(tmp_path)
    with LabFolder(tmp_path) as folder, pytest.raises(UsageError, match=text):
        folder.describe(wishes)


def test_nor_one_of_another_topology(tmp_path):
    begin(tmp_path)
    other = tmp_path / "other.toml"
    text = load_topology.__globals__["packaged"]("topologies")["two-clusters"].read_text()
    other.write_text(text.replace("stormin.local", "elsewhere.local"))
    with LabFolder(tmp_path) as folder, pytest.raises(UsageError, match="another topology"):
        folder.describe(Wishes(str(other)))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"topology": {}, "network": "127.0.99.0/24", "seed": 0}'])
def test_a_damaged_description(tmp_path, content):
    (tmp_path / DESCRIPTION_NAME).write_text(content)
    with LabFolder(tmp_path) as folder, pytest.raises(UsageError, match="does not tell what lab this is"):
        folder.describe(Wishes())


def test_a_moved_clock_stays_moved(tmp_path):
    with LabFolder(tmp_path) as folder:
        clock = folder.clock()
        assert abs(clock.now() - time.time()) < 100
        assert not (tmp_path / CLOCK_NAME).exists()
        clock.move(1_000_000)
        clock.move(500_000)
        assert abs(folder.clock().now() - time.time() - 1_500_000) < 100


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"offset_s": "soon"}'])
def test_a_damaged_clock(tmp_path, content):
    (tmp_path / CLOCK_NAME).write_text(content)
    with pytest.raises(UsageError, match="date"):
        KeptClock(tmp_path / CLOCK_NAME)


def test_what_a_first_start_left_that_failed_is_removed(tmp_path):
    (tmp_path / "there").mkdir()
    for name, stays in (("new", False), ("there", True)):
        with LabFolder(tmp_path / name) as folder:
            begin(folder.directory)
            (folder.directory / "clusters").mkdir()
        assert (tmp_path / name).exists() is stays
    assert list((tmp_path / "there").iterdir()) == []


def test_a_lab_that_was_ready_or_resumed_stays(tmp_path):
    with LabFolder(tmp_path / "lab") as folder:
        begin(folder.directory)
        folder.keep()
    with pytest.raises(ZeroDivisionError), LabFolder(tmp_path / "lab"):
        raise ZeroDivisionError
    assert (tmp_path / "lab" / DESCRIPTION_NAME).exists()


def test_a_temporary_folder_is_deleted_also_when_it_is_resumed(tmp_path):
    with LabFolder(tmp_path / "lab", temporary=True) as folder:
        begin(folder.directory)
        folder.keep()
        (folder.directory / "link").symlink_to(tmp_path)
    assert not (tmp_path / "lab").exists()
    shutil.copytree(ended_early(tmp_path / "killed"), tmp_path / "lab")
    with LabFolder(tmp_path / "lab"):
        pass
    assert not (tmp_path / "lab").exists()
    assert (tmp_path / "killed").exists()


def ended_early(directory):
    """What a kill leaves of a temporary lab."""
    directory.mkdir()
    begin(directory)
    (directory / "temporary").touch()
    return directory


def test_a_lab_that_was_to_stay_cannot_become_temporary(tmp_path):
    begin(tmp_path)
    with pytest.raises(UsageError, match="holds a lab that would be deleted"), LabFolder(tmp_path, temporary=True):
        pass
    assert (tmp_path / DESCRIPTION_NAME).exists()
    with LabFolder(tmp_path):
        pass


def test_a_restore_that_was_interrupted_is_completed_on_entering(tmp_path):
    begin(tmp_path)
    (tmp_path / ".restoring").mkdir()
    (tmp_path / ".restoring" / CLOCK_NAME).write_text('{"offset_s": 1000}')
    (tmp_path / "restore.json").write_text(json.dumps({"entries": [CLOCK_NAME]}))
    (tmp_path / "dhcp.json").write_text("of the state before")
    with LabFolder(tmp_path) as folder:
        assert round(folder.clock().moved_s) == 1000
    assert not (tmp_path / "dhcp.json").exists()
    assert not (tmp_path / ".restoring").exists()


def test_a_lock_that_its_holder_removes_is_taken_anew(tmp_path):
    """One process waits in `open` while another deletes the folder's files."""
    lock = FolderLock(tmp_path)
    lock.take()
    (tmp_path / LOCK_NAME).unlink()
    other = FolderLock(tmp_path)
    other.take()
    with pytest.raises(EnvironmentProblem, match="running in this folder already"):
        FolderLock(tmp_path).take()
    other.release()
    lock.release()


def test_who_waits_for_the_end_of_a_lab_sees_its_lock(tmp_path):
    lock, other = FolderLock(tmp_path), FolderLock(tmp_path)
    assert not other.is_taken()
    assert not (tmp_path / LOCK_NAME).exists(), "a look leaves nothing"
    lock.take()
    assert other.is_taken()
    lock.release()
    assert not other.is_taken()


def test_a_clock_keeps_moves_and_no_jumps(tmp_path):
    clock = KeptClock(tmp_path / CLOCK_NAME)
    clock.jump(1e6)
    clock.move(500)
    assert round(clock.moved_s) == 1_000_500
    assert round(KeptClock(tmp_path / CLOCK_NAME).moved_s) == 500
    clock.jump(-1e6)
    assert round(clock.moved_s) == round(KeptClock(tmp_path / CLOCK_NAME).moved_s) == 500
