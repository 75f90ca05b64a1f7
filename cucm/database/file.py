"""The SQLite file of a node: making it, opening it, transactions, and reading it while others write."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from cucm.database.schema import TABLES, fill_type_tables
from cucm.errors import DatabaseError, DiskFull, EnvironmentProblem, UsageError
from cucm.machine import require_descriptors
from cucm.records import dataclass

APPLICATION_ID: Final = 0x4355434D
"""`CUCM`: marks the file as a node database, so that a stranger's file is never written to."""
SCHEMA_VERSION: Final = 2
BUSY_TIMEOUT_S: Final = 10.0
MAX_IDLE: Final = 5
"""Connections kept open between transactions."""
QUERY_TIMEOUT_S: Final = 5.0
MAX_QUERY_ROWS: Final = 10_000
MAX_QUERY_TEXT: Final = 100_000
MAX_QUERY_VALUE: Final = 1_000_000
MAX_QUERY_SIZE: Final = 32_000_000
"""Characters and bytes in all rows together: ten thousand rows of the longest values would be gigabytes."""
_LOCK_PAUSE_S: Final = 0.005
_PROGRESS_STEPS: Final = 10_000
_READING: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_WRITING: Final = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What `query` read: column names and rows in SQLite's types (str, int, float, bytes, None)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


class DatabaseFile:
    """One SQLite file in WAL mode, usable from several threads and processes at once."""

    def __init__(self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._pool: _Pool | None = None
        self._watcher: sqlite3.Connection | None = None
        self._watching: sqlite3.Cursor | None = None
        self._watcher_lock = threading.Lock()

    def create(self, complete: Callable[[sqlite3.Connection], None]) -> None:
        """Make the file (mode 0600) and its tables if they are not there yet, and open it. DatabaseError.

        `complete` adds what else a new file needs, in the transaction that makes the tables.
        """
        self._start(lambda: self._make_if_missing(complete))

    def open(self) -> None:
        """Open a file that `create` made. DatabaseError if there is none, or if it is something else."""
        self._start(self._require_ours)

    def close(self) -> None:
        """Close all connections; once more does no harm."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        with self._watcher_lock:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = self._watching = None

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing; a reader sees one state throughout. DatabaseError.

        Writers queue up at once (`BEGIN IMMEDIATE`): one that read first could not wait for another.
        """
        with self._translated(), self._opened().connection() as connection:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection
            connection.execute("COMMIT")

    def select(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """All rows of one of our SELECTs, which sees one state without a transaction around it. DatabaseError."""
        pool = self._opened()
        with self._translated():
            connection = pool.take()
            try:
                rows = connection.execute(statement, values).fetchall()
            except BaseException:
                connection.close()
                raise
            pool.give_back(connection)
            return rows

    @contextmanager
    def copying(self) -> Iterator[sqlite3.Connection]:
        """A writing transaction that does not enforce foreign keys, for rows that are copies. DatabaseError."""
        self._opened()
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("PRAGMA foreign_keys=OFF")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def data_version(self) -> int:
        """Another number than before if anybody committed something since the last call. Costs microseconds."""
        if self._pool is None:
            self._opened()  # which says so
        with self._watcher_lock:
            try:  # the short way of every call but the first: TVS asks before each of its answers
                if self._watching is not None:
                    return self._watching.execute("PRAGMA data_version").fetchone()[0]  # type: ignore[no-any-return]
            except sqlite3.Error:
                pass  # the long way says it in words
            with self._translated():
                if self._watcher is None:
                    self._watcher = self._connect()
                self._watching = self._watcher.cursor()
                (version,) = self._watching.execute("PRAGMA data_version").fetchone()
                return int(version)

    def query(self, sql: str) -> QueryResult:
        """Run one SELECT. UsageError for anything else, for faulty SQL, beyond MAX_QUERY_ROWS and the other limits."""
        if len(sql) > MAX_QUERY_TEXT:
            raise UsageError(f"a query of {len(sql)} characters, {MAX_QUERY_TEXT} are allowed")
        self._opened()
        with self._translated(), closing(self._connect()) as connection:
            _restrict(connection)
            try:
                cursor = connection.execute(sql)
                rows = _bounded_rows(cursor)
            except (sqlite3.Error, sqlite3.Warning, ValueError, UnicodeError) as error:
                raise UsageError(
                    f"the query cannot be run: {error}", where=sql[:200], mend=_mend_query(error)
                ) from error
        return QueryResult(tuple(item[0] for item in cursor.description or ()), tuple(rows))

    def execute(self, sql: str, before: str) -> int:
        """Run one INSERT, UPDATE or DELETE on tables of the schema, `before` it in the same transaction.

        How many rows it changed. UsageError for anything else, for faulty SQL, and beyond the limits; nothing is
        changed then.
        """
        if len(sql) > MAX_QUERY_TEXT:
            raise UsageError(f"a statement of {len(sql)} characters, {MAX_QUERY_TEXT} are allowed")
        self._opened()
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(before)
            seen = _restrict_to_data(connection)
            try:
                cursor = connection.execute(sql)
                if cursor.description is not None or not seen:
                    raise UsageError(
                        "is no statement that writes", where=sql[:200], mend="use one INSERT, UPDATE or DELETE"
                    )
            except (sqlite3.Error, sqlite3.Warning, ValueError, UnicodeError) as error:
                raise UsageError(
                    f"the statement cannot be run: {error}", where=sql[:200], mend=_mend_query(error)
                ) from error
            connection.set_authorizer(None)
            connection.set_progress_handler(None, 0)
            (changed,) = connection.execute("SELECT changes()").fetchone()  # without what triggers changed
            if changed > MAX_QUERY_ROWS:
                raise UsageError(f"changes {changed} rows, {MAX_QUERY_ROWS} are allowed", where=sql[:200])
            connection.execute(before)
            connection.execute("COMMIT")
        return int(changed)

    def _opened(self) -> _Pool:
        if self._pool is None:
            raise DatabaseError("is not open", where=str(self.path))
        return self._pool

    def _start(self, prepare: Callable[[], None]) -> None:
        """Open the file; one starter at a time, so that none meets a file half made."""
        self.close()
        self._pool = _Pool(self._connect)
        try:
            with self._translated(), _locked(self.path.parent):
                prepare()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        """A connection in autocommit mode, so that BEGIN is ours; it never makes a file."""
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys=ON")
            # a row that REPLACE throws out is a deleted one for the triggers, too
            connection.execute("PRAGMA recursive_triggers=ON")
            # in WAL mode a killed process loses nothing, and a power cut at most the newest commits, never the order
            connection.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_if_missing(self, complete: Callable[[sqlite3.Connection], None]) -> None:
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with self.transaction() as connection:
            if self._is_ours(connection):
                return
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise DatabaseError("is another program's database", where=str(self.path), mend="name another file")
        self._make_tables(complete)

    def _make_tables(self, complete: Callable[[sqlite3.Connection], None]) -> None:
        with closing(self._connect()) as connection:
            # the switch does not wait for others as transactions do: it fails if two try it at once
            connection.execute("PRAGMA journal_mode=WAL")
        with self.transaction(write=True) as connection:
            for table in TABLES.values():
                connection.execute(table.create_statement)
            fill_type_tables(connection)
            complete(connection)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _require_ours(self) -> None:
        with self.transaction() as connection:
            is_ours = self._is_ours(connection)
        if not is_ours:
            raise DatabaseError("is no node database", where=str(self.path), mend="name another file")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        (marked,) = connection.execute("PRAGMA application_id").fetchone()
        if marked != APPLICATION_ID:
            return False
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise DatabaseError(
                f"has tables of version {version}, this program knows {SCHEMA_VERSION}",
                where=str(self.path),
                mend="delete the lab's folder and let it be built again",
            )
        return True

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise self._disk_is_full() from error
            self._require_descriptor()  # SQLite does not tell why it cannot open a file
            raise self._error(str(error)) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._disk_is_full() from error
            self._require_descriptor()
            raise self._error(error.strerror or str(error)) from error

    def _require_descriptor(self) -> None:
        """Raises EnvironmentProblem where no file can be opened: the database may be as good as ever."""
        try:
            require_descriptors(1)
        except EnvironmentProblem as problem:
            problem.where = str(self.path)
            raise

    def _disk_is_full(self) -> DiskFull:
        return DiskFull("no room is left for the database", where=str(self.path), mend="make room on that disk")

    def _error(self, reason: str) -> DatabaseError:
        return DatabaseError(
            f"the database cannot be used: {reason}",
            where=str(self.path),
            mend="if the file is damaged, delete it and let the lab build it again",
        )


class _Pool:
    """Connections that are open and idle, for the next transaction; usable from several threads."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: deque[sqlite3.Connection] = deque()
        self._is_open = True

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One for the caller alone; a transaction that he leaves open is undone."""
        connection = self.take()
        try:
            yield connection
        except BaseException:
            connection.close()  # undoes its transaction, whatever state the error has left it in
            raise
        self.give_back(connection)

    def take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def give_back(self, connection: sqlite3.Connection) -> None:
        """One without an open transaction."""
        if self._is_open and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle ones now, those in use when they are given back."""
        self._is_open = False
        while self._idle:
            self._idle.pop().close()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, which the system frees should the process die. TimeoutError after BUSY_TIMEOUT_S."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError("another process has been opening it for too long") from None
                time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _bounded_rows(cursor: sqlite3.Cursor) -> list[tuple[object, ...]]:
    """UsageError beyond MAX_QUERY_ROWS, or MAX_QUERY_SIZE in texts and blobs."""
    rows: list[tuple[object, ...]] = []
    size = 0
    for row in cursor:
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(rows) == MAX_QUERY_ROWS or size > MAX_QUERY_SIZE:
            raise UsageError(
                f"the query finds more than {MAX_QUERY_ROWS} rows, or {MAX_QUERY_SIZE} characters and bytes",
                mend="add a where clause or a limit",
            )
        rows.append(row)
    return rows


def _mend_query(error: Exception) -> str | None:
    text = str(error)
    if "not authorized" in text:
        return "a query only reads; what changes rows is asked for as a write (`cucm-lab sql --write`)"
    if "no such table" in text:
        return "the tables: select name from sqlite_master where type='table'"
    return None


def _restrict(connection: sqlite3.Connection) -> None:
    """Nothing but reading, and not for ever."""
    deadline = time.monotonic() + QUERY_TIMEOUT_S

    def authorise(action: int, *_what: object) -> int:
        return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY

    connection.execute("PRAGMA query_only=ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_QUERY_VALUE)
    connection.set_authorizer(authorise)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_STEPS)


def _restrict_to_data(connection: sqlite3.Connection) -> list[str]:
    """Nothing but reading, and changing rows of the schema's tables, which the list tells of; not for ever."""
    deadline = time.monotonic() + QUERY_TIMEOUT_S
    seen: list[str] = []

    def authorise(action: int, table: str | None, _column: str | None, _file: str | None, trigger: str | None) -> int:
        if action in _READING:
            return sqlite3.SQLITE_OK
        if action not in _WRITING or (trigger is None and table not in TABLES):
            return sqlite3.SQLITE_DENY
        if trigger is None and table is not None:
            seen.append(table)
        return sqlite3.SQLITE_OK

    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_QUERY_VALUE)
    connection.set_authorizer(authorise)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_STEPS)
    return seen
