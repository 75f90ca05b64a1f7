"""What transactions of a node's file promise, whatever is written in them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cucm.database.file import DatabaseFile
from cucm.errors import EXIT_ENVIRONMENT, DatabaseError, DiskFull


@pytest.fixture
def file(tmp_path: Path) -> Iterator[DatabaseFile]:
    made = DatabaseFile(tmp_path / "node.db", busy_timeout_s=0.0)
    made.create(lambda connection: None)
    yield made
    made.close()


def test_writers_queue_up_before_they_read(file: DatabaseFile) -> None:
    with file.transaction(write=True), pytest.raises(DatabaseError, match="locked"), file.transaction(write=True):
        pytest.fail("two writers at once")


def test_a_reader_waits_for_no_writer_and_sees_one_state(file: DatabaseFile) -> None:
    count = "SELECT count(*) FROM processconfig"
    with file.transaction() as reading:
        before = reading.execute(count).fetchone()
        with file.transaction(write=True) as writing:
            writing.execute("INSERT INTO processconfig VALUES ('1', 'name', 'value')")
        assert reading.execute(count).fetchone() == before
    with file.transaction() as reading:
        assert reading.execute(count).fetchone() == (before[0] + 1,)


def test_a_row_that_points_to_nothing_is_refused_but_in_a_copy(file: DatabaseFile) -> None:
    row = "INSERT INTO certificatehashmap VALUES ('1', 'no certificate', 'hash')"
    with pytest.raises(DatabaseError, match="FOREIGN KEY"), file.transaction(write=True) as connection:
        connection.execute(row)
    with file.copying() as connection:
        connection.execute(row)
    assert file.query("SELECT fkcertificate FROM certificatehashmap").rows == (("no certificate",),)


@pytest.mark.parametrize("trouble", [ValueError, KeyboardInterrupt])
def test_what_ends_in_an_error_is_undone_and_holds_nobody_up(file: DatabaseFile, trouble: type[BaseException]) -> None:
    def write_in_vain() -> None:
        with file.transaction(write=True) as connection:
            connection.execute("INSERT INTO processconfig VALUES ('1', 'name', 'value')")
            raise trouble

    with pytest.raises(trouble):
        write_in_vain()
    with file.transaction(write=True) as connection:
        assert connection.execute("SELECT count(*) FROM processconfig").fetchone() == (0,)


def test_want_of_room_is_told_as_such(file: DatabaseFile) -> None:
    def fill() -> None:
        with file.transaction(write=True) as connection:
            connection.execute("PRAGMA max_page_count=1")
            connection.execute("INSERT INTO processconfig VALUES ('1', 'name', ?)", ("x" * 1_000_000,))

    with pytest.raises(DiskFull, match="no room is left for the database") as told:
        fill()
    assert told.value.exit_code == EXIT_ENVIRONMENT


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_want_of_room_for_the_file_itself_too(file: DatabaseFile, number: int) -> None:
    with pytest.raises(DiskFull), file._translated():
        raise OSError(number, os.strerror(number))
