from __future__ import annotations

import os
from pathlib import Path

import pytest
from asyncssh import SFTPError, SFTPFailure, SFTPNoSuchFile, SFTPPermissionDenied

from lab.sftp_folder import FolderLimits, ServedFolder

LIMITS = FolderLimits(file_size=100, entries=5, depth=3, path_length=60, name_length=20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "bulk").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "root" / "bulk" / "a.p12").write_bytes(b"inside")
    return tmp_path / "root"


@pytest.fixture
def folder(root: Path) -> ServedFolder:
    return ServedFolder(root, LIMITS)


def content(folder: ServedFolder, path: bytes) -> bytes:
    with folder.open(path, os.O_RDONLY) as file:
        return os.pread(file.fileno(), 1000, 0)


@pytest.mark.parametrize("path", [b"/bulk/a.p12", b"bulk/a.p12", b"//bulk/./x/../a.p12", b"../../bulk/a.p12"])
def test_ways_to_a_file(path: bytes, folder: ServedFolder) -> None:
    assert content(folder, path) == b"inside"
    assert folder.status(path).st_size == 6
    assert folder.shown(path) == "/bulk/a.p12"


@pytest.mark.parametrize("path", [b"../secret", b"/../secret", b"bulk/../../secret", b"/etc/passwd"])
def test_ways_out_lead_nowhere(path: bytes, folder: ServedFolder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.open(path, os.O_RDONLY)


@pytest.mark.parametrize("path", [b"a\0b", b"\xff", b"a\nb", b"x" * 21, b"a/b/c/d", b"./" * 31, b"a\x1b[0m"])
def test_paths_that_cannot_be(path: bytes, folder: ServedFolder) -> None:
    with pytest.raises(SFTPNoSuchFile):
        folder.status(path)


def test_links_are_seen_but_not_followed(folder: ServedFolder, root: Path) -> None:
    (root / "out").symlink_to(root.parent)
    (root / "bulk" / "file").symlink_to(root.parent / "secret")
    assert os.path.stat.S_ISLNK(folder.status(b"out").st_mode)  # type: ignore[attr-defined]
    for path in (b"out/secret", b"bulk/file"):
        with pytest.raises(OSError):
            folder.open(path, os.O_RDONLY)
    for path in (b"bulk/file", b"out/new"):
        with pytest.raises(OSError):
            folder.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with pytest.raises(OSError):
        folder.make_folder(b"out/folder")
    with pytest.raises(OSError):
        folder.rename(b"bulk/a.p12", b"out/a.p12", replace=True)
    with pytest.raises(OSError):
        folder.listing(b"out")
    assert (root.parent / "secret").read_bytes() == b"outside"
    assert sorted(path.name for path in root.parent.iterdir()) == ["root", "secret"]


def test_a_link_can_be_removed_and_its_target_stays(folder: ServedFolder, root: Path) -> None:
    (root / "out").symlink_to(root.parent / "secret")
    folder.remove(b"out")
    assert not (root / "out").is_symlink()
    assert (root.parent / "secret").exists()


def test_only_regular_files_are_opened(folder: ServedFolder, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(SFTPPermissionDenied):
        folder.open(b"pipe", os.O_RDONLY)
    with pytest.raises(SFTPPermissionDenied):
        folder.open(b"bulk", os.O_RDONLY)


def test_new_files_are_private_and_bounded(folder: ServedFolder, root: Path) -> None:
    with folder.open(b"new", os.O_RDWR | os.O_CREAT) as file:
        assert folder.write(file, 10, b"x" * 90) == 90
        for offset, data in ((10, b"x" * 91), (1 << 62, b"x")):
            with pytest.raises(SFTPFailure, match="100 bytes"):
                folder.write(file, offset, data)
        folder.truncate(file, 5)
        with pytest.raises(SFTPFailure, match="100 bytes"):
            folder.truncate(file, 101)
    assert (root / "new").stat().st_mode & 0o777 == 0o600
    assert (root / "new").read_bytes() == bytes(5)


def test_the_number_of_entries_is_bounded(folder: ServedFolder, root: Path) -> None:
    for number in range(3):
        folder.open(b"bulk/%d" % number, os.O_WRONLY | os.O_CREAT).close()
    with pytest.raises(SFTPFailure, match="full"):
        folder.open(b"one more", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(SFTPFailure, match="full"):
        folder.make_folder(b"one more")
    folder.open(b"bulk/0", os.O_WRONLY | os.O_CREAT | os.O_TRUNC).close()  # it is there already
    folder.remove(b"bulk/0")
    folder.make_folder(b"one more")
    for number in range(9):
        (root / f"by hand {number}").touch()
    assert len(folder.listing(b"/")) == LIMITS.entries + 2


def test_listing(folder: ServedFolder) -> None:
    assert [name for name, _ in folder.listing(b"/")] == [".", "..", "bulk"]
    listed = dict(folder.listing(b"/bulk"))
    assert list(listed) == [".", "..", "a.p12"]
    assert listed["a.p12"].st_size == 6
    with pytest.raises(OSError):
        folder.listing(b"/bulk/a.p12")
    with pytest.raises(FileNotFoundError):
        folder.listing(b"/nowhere")


def test_renaming(folder: ServedFolder, root: Path) -> None:
    folder.open(b"new", os.O_WRONLY | os.O_CREAT).close()
    with pytest.raises(SFTPFailure, match="new name"):
        folder.rename(b"new", b"bulk/a.p12", replace=False)
    folder.rename(b"bulk/a.p12", b"b.p12", replace=False)
    folder.rename(b"b.p12", b"new", replace=True)
    assert (root / "new").read_bytes() == b"inside"
    with pytest.raises(FileNotFoundError):
        folder.rename(b"nothing", b"x", replace=True)


def test_folders(folder: ServedFolder, root: Path) -> None:
    folder.make_folder(b"more")
    assert (root / "more").stat().st_mode & 0o777 == 0o700
    with pytest.raises(SFTPPermissionDenied):
        folder.rename(b"more", b"bulk/more", replace=True)
    folder.rename(b"more", b"other", replace=True)
    folder.remove_folder(b"other")
    with pytest.raises(OSError):
        folder.remove_folder(b"bulk")


@pytest.mark.parametrize("operation", ["remove", "remove_folder", "make_folder"])
def test_the_root_itself_stays(operation: str, folder: ServedFolder, root: Path) -> None:
    with pytest.raises((OSError, SFTPError)):
        getattr(folder, operation)(b"/")
    with pytest.raises((OSError, SFTPError)):
        folder.rename(b"/", b"elsewhere", replace=True)
    assert root.is_dir()


def test_exclusive_and_missing(folder: ServedFolder) -> None:
    with pytest.raises(FileExistsError):
        folder.open(b"bulk/a.p12", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with pytest.raises(FileNotFoundError):
        folder.open(b"bulk/none", os.O_WRONLY)
