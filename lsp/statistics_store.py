"""Where the statistics lie: one SQLite file in the user's state folder, which all windows add to.

Knows SQLite and that file; knows nothing of suggestions. Whatever is wrong with the disk or the file is one StoreError.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

import platformdirs

from lsp.counts import Count, Sums, Time

VERSION = 1
KEPT_DAYS = 400
BUSY_S = 5.0  # that another window's writing is waited for
_N_TRIES, _TRY_S = 20, 0.05  # while another process makes the file, SQLite does not wait but refuses

# Our own statements fail for SQLITE_ERROR only where the tables are not ours.
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES = (
    "CREATE TABLE counts (day TEXT, language TEXT, name TEXT, n INTEGER, PRIMARY KEY (day, language, name)) WITHOUT ROWID",
    "CREATE TABLE times (day TEXT, language TEXT, source TEXT, bucket INTEGER, n INTEGER, "
    "PRIMARY KEY (day, language, source, bucket)) WITHOUT ROWID",
)
_ADD_COUNT = "INSERT INTO counts VALUES (?, ?, ?, ?) ON CONFLICT (day, language, name) DO UPDATE SET n = n + excluded.n"
_ADD_TIME = "INSERT INTO times VALUES (?, ?, ?, ?, ?) ON CONFLICT (day, language, source, bucket) DO UPDATE SET n = n + excluded.n"

_Result = TypeVar("_Result")


class StoreError(Exception):
    """The file cannot be used. One line, for people. `is_damaged`: it is there and is no statistics file, or no more."""

    def __init__(self, message: str, *, is_damaged: bool = False) -> None:
        super().__init__(message)
        self.is_damaged = is_damaged


class Store:
    """The file, opened when it is first needed. One thread's business."""

    def __init__(self, path: Path | None = None, *, today: Callable[[], date] = date.today) -> None:
        self.path = path or statistics_path()
        self._today = today
        self._open: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None  # device and inode of what is open
        self._pruned: date | None = None

    def add(self, sums: Sums) -> str | None:
        """Adds to what is there, all of it or nothing. A damaged file is moved aside, and the message says so. Raises StoreError."""
        try:
            self._guarded(lambda: self._add(sums))
        except StoreError as error:
            if not error.is_damaged:
                raise
            aside = self._move_aside()
            self._guarded(lambda: self._add(sums))
            return f"{error}; it is {aside.name} now, and counting begins anew" if aside is not None else None
        return None

    def read(self, *, since: date) -> Sums:
        """What was counted from that day on; nothing where there is no file. Raises StoreError."""
        return self._guarded(lambda: self._read(since.isoformat()) if self.path.exists() else Sums())

    def reset(self) -> None:
        """Forgets everything. Raises StoreError."""
        try:
            self._guarded(lambda: self._reset() if self.path.exists() else None)
        except StoreError as error:
            if not error.is_damaged:
                raise
            if (aside := self._move_aside()) is not None:
                self._guarded(aside.unlink)

    def close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(sqlite3.Error):  # what was added is committed
                self._open.close()
        self._open = self._opened = None

    def _guarded(self, work: Callable[[], _Result]) -> _Result:
        """The result; whatever SQLite or the disk has to say becomes a StoreError, and the next use opens the file anew."""
        try:
            return work()
        except sqlite3.Error as error:
            self.close()
            raise StoreError(f"{self.path}: {error}", is_damaged=_code(error) in _DAMAGED) from None
        except OSError as error:
            self.close()
            raise StoreError(f"{error.filename or self.path}: {error.strerror or error}") from None

    def _add(self, sums: Sums) -> None:
        connection = self._connection()
        with _transaction(connection):
            if self._pruned != self._today():
                oldest = (self._today() - timedelta(days=KEPT_DAYS)).isoformat()
                for table in ("counts", "times"):
                    connection.execute(f"DELETE FROM {table} WHERE day < ?", (oldest,))
                self._pruned = self._today()
            connection.executemany(_ADD_COUNT, [(*key, n) for key, n in sums.counts.items()])
            connection.executemany(_ADD_TIME, [(*key, n) for key, n in sums.times.items()])

    def _read(self, since: str) -> Sums:
        connection, sums = self._connection(), Sums()
        with _transaction(connection, "BEGIN"):
            for *key, n in connection.execute(
                "SELECT day, language, name, CAST(n AS INTEGER) FROM counts WHERE day >= ?", (since,)
            ):
                sums.count(Count(*key), n)
            for *key, n in connection.execute(
                "SELECT day, language, source, CAST(bucket AS INTEGER), CAST(n AS INTEGER) FROM times WHERE day >= ?",
                (since,),
            ):
                sums.time(Time(*key), n)
        return sums

    def _reset(self) -> None:
        connection = self._connection()
        with _transaction(connection):
            for table in ("counts", "times"):
                connection.execute(f"DELETE FROM {table}")
        connection.execute("VACUUM")

    def _connection(self) -> sqlite3.Connection:
        """The file that is there now: somebody may have removed or moved the one that is open."""
        if self._open is not None and self._opened == _identity(self.path):
            return self._open
        self.close()
        if not self.path.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite's own files beside it get the same mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._open, self._opened = connection, _identity(self.path)
        for n_left in reversed(range(_N_TRIES)):
            try:
                _prepare(connection)
                return connection
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or not n_left:
                    raise
            time.sleep(_TRY_S)
        raise AssertionError("the last try has returned or raised")

    def _move_aside(self) -> Path | None:
        """Where the damaged file is now; None: another window has done it by now. Raises StoreError."""
        try:
            self._guarded(self._check)
        except StoreError as error:
            if not error.is_damaged:
                raise
            return self._guarded(self._moved)
        return None

    def _check(self) -> None:
        (found,) = self._connection().execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            self.close()
            raise StoreError(f"{self.path}: {found}", is_damaged=True)

    def _moved(self) -> Path:
        aside = self.path.with_name(self.path.name + ".damaged")
        os.replace(self.path, aside)
        for end in ("-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        return aside


def statistics_path() -> Path:
    return platformdirs.user_state_path("codestral-lsp") / "statistics.sqlite3"


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables where there are none. Several processes may write at once, and the disk is not waited for at each commit."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        with _transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for table in _TABLES:
                    connection.execute(table)
                connection.execute(f"PRAGMA user_version = {VERSION}")
    elif version > VERSION:
        raise sqlite3.NotSupportedError(f"made by a newer version (format {version}, expected {VERSION})")
    connection.execute("SELECT day, language, name, n FROM counts LIMIT 1").fetchall()
    connection.execute("SELECT day, language, source, bucket, n FROM times LIMIT 1").fetchall()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; None where the fault is not SQLite's."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if code is not None else None
