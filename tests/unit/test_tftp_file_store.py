from __future__ import annotations

import os
from pathlib import Path

import pytest

from cucm.errors import UsageError
from tftp_server import file_store
from tftp_server.file_store import FolderStore, MappingStore, NotServed, NotServedReason, look_up


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tftp"
    folder.mkdir()
    (folder / "ITLFile.tlv").write_bytes(b"itl")
    (folder / "empty").write_bytes(b"")
    (folder / "locale").mkdir()
    (folder / "locale" / "inner.xml").write_bytes(b"inner")
    (tmp_path / "secret").write_bytes(b"outside")
    return folder


def refusal(store: file_store.FileStore, name: str) -> NotServedReason:
    with pytest.raises(NotServed) as caught:
        look_up(store, name)
    return caught.value.reason


def settle(path: Path) -> None:
    """Make a file or folder look old, so that what is read of it may be kept."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


def test_serves_regular_files_of_the_folder(folder: Path) -> None:
    store = FolderStore(folder)
    assert store.read("ITLFile.tlv") == b"itl"
    assert store.read("empty") == b""
    assert store.names() == ("ITLFile.tlv", "empty")


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "locale",
        "locale/inner.xml",
        "locale\\inner.xml",
        "./ITLFile.tlv",
        "ITLFile.tlv\0",
        "ITLFile.tlv\0.xml",
        "itlfile.tlv",
        "ITLFile.tlv/",
        "\\xff",
        "x" * 256,
        "x" * 100_000,
    ],
)
def test_serves_nothing_else(folder: Path, name: str) -> None:
    assert refusal(FolderStore(folder), name) is NotServedReason.NOT_FOUND


def test_links_are_served_only_when_they_end_in_the_folder(folder: Path) -> None:
    (folder / "inside").symlink_to("ITLFile.tlv")
    (folder / "outside").symlink_to("../secret")
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "below").symlink_to("locale/inner.xml")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    store = FolderStore(folder)
    assert store.read("inside") == b"itl"
    for name in ("outside", "absolute", "below", "loop", "dangling"):
        assert refusal(store, name) is NotServedReason.NOT_FOUND


def test_a_file_replaced_by_a_link_after_the_scan_is_not_followed(folder: Path) -> None:
    settle(folder)
    store = FolderStore(folder)
    assert store.read("ITLFile.tlv") == b"itl"
    (folder / "ITLFile.tlv").unlink()
    (folder / "ITLFile.tlv").symlink_to("../secret")
    settle(folder)  # as if the folder had not changed: the index still says "regular file"
    assert refusal(store, "ITLFile.tlv") is NotServedReason.BUSY


def test_a_pipe_neither_blocks_nor_is_served(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    store = FolderStore(folder)
    assert refusal(store, "pipe") is NotServedReason.NOT_FOUND
    settle(folder)
    store.names()
    (folder / "empty").unlink()
    os.mkfifo(folder / "empty")
    settle(folder)
    assert refusal(store, "empty") is NotServedReason.NOT_FOUND


def test_changes_are_seen_and_unchanged_files_are_one_object(folder: Path) -> None:
    settle(folder / "ITLFile.tlv")
    store = FolderStore(folder)
    assert store.read("ITLFile.tlv") is store.read("ITLFile.tlv")
    (folder / "ITLFile.tlv").write_bytes(b"new")
    assert store.read("ITLFile.tlv") == b"new"
    (folder / "ITLFile.tlv").write_bytes(b"old")  # as long, and perhaps in the same tick of the clock
    assert store.read("ITLFile.tlv") == b"old"
    (folder / "later.xml").write_bytes(b"later")
    assert store.read("later.xml") == b"later"
    (folder / "later.xml").unlink()
    assert refusal(store, "later.xml") is NotServedReason.NOT_FOUND


def test_a_link_that_comes_to_lead_elsewhere_is_followed_there(folder: Path) -> None:
    for name in ("ITLFile.tlv", "empty"):
        settle(folder / name)
    (folder / "link").symlink_to("ITLFile.tlv")
    store = FolderStore(folder)
    assert store.read("link") is store.read("link")
    (folder / "link").unlink()
    (folder / "link").symlink_to("empty")
    assert store.read("link") == b""


def test_a_file_in_memory_that_may_no_more_be_read_or_is_gone_is_not_served(folder: Path) -> None:
    settle(folder / "ITLFile.tlv")
    store = FolderStore(folder)
    assert store.read("ITLFile.tlv") is store.read("ITLFile.tlv")
    (folder / "ITLFile.tlv").rename(folder / "moved")
    assert refusal(store, "ITLFile.tlv") is NotServedReason.NOT_FOUND
    (folder / "ITLFile.tlv").symlink_to("../secret")
    assert refusal(store, "ITLFile.tlv") is NotServedReason.NOT_FOUND


def test_what_is_kept_in_memory_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_store, "MAX_CACHED_BYTES", 10)
    for name in "abc":
        (folder / name).write_bytes(name.encode() * 6)
        settle(folder / name)
    store = FolderStore(folder)
    first = store.read("a")
    assert store.read("a") is first
    assert [store.read(name) for name in "bc"] == [b"bbbbbb", b"cccccc"]
    assert store.read("a") == first
    assert store.read("a") is not first


def test_a_file_too_large_is_not_served(folder: Path) -> None:
    assert refusal(FolderStore(folder, max_file_bytes=2), "ITLFile.tlv") is NotServedReason.BUSY


def test_a_folder_that_goes_away_is_busy_and_one_that_never_was_is_a_usage_error(folder: Path, tmp_path: Path) -> None:
    store = FolderStore(folder)
    folder.rename(tmp_path / "moved")
    assert refusal(store, "ITLFile.tlv") is NotServedReason.BUSY
    with pytest.raises(UsageError) as caught:
        FolderStore(tmp_path / "nowhere")
    assert caught.value.mend


def test_a_mapping_is_served_as_it_is_now() -> None:
    files = {"a": b"1"}
    store = MappingStore(files)
    assert store.read("a") == b"1"
    files["b"] = b"2"
    assert store.read("b") == b"2"
    assert refusal(store, "c") is NotServedReason.NOT_FOUND


def test_a_store_that_fails_is_busy(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def read(self, name: str) -> bytes:
            raise RuntimeError("database is locked")

    assert refusal(Broken(), "a") is NotServedReason.BUSY
    assert "database is locked" in caplog.text
