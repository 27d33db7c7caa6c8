"""Connections: how a file is opened to write, to read, and to read what someone else owns."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from storebridge.driver import DriverError, Durability, ErrorKind

SYNCHRONOUS = {"full": "FULL", "relaxed": "NORMAL", "off": "OFF"}
_CACHED_STATEMENTS = 512
_UNRECOVERED = {
    "SQLITE_CANTOPEN",
    "SQLITE_PROTOCOL",
    "SQLITE_READONLY_CANTINIT",
    "SQLITE_READONLY_CANTLOCK",
    "SQLITE_READONLY_RECOVERY",
    "SQLITE_READONLY_ROLLBACK",
}
"""What reading a log gives whose index is not there, or was left half made."""
_LARGEST_IDLE_WAL = 64 * 2**20
"""Bytes that the write-ahead log keeps on disk after a huge transaction has been folded in."""


class Stamp(NamedTuple):
    """By what a change of a file that is read without locks is seen. While a writer is there, or
    was not closed cleanly, SQLite's own locks serve: size and time are then 0.
    """

    inode: int
    size: int
    changed: int
    has_log: bool


class UnsettledError(DriverError):
    """A guest cannot read just now: a writer is coming or going, which takes a moment, or was
    killed at that.
    """


def stamp_of(path: Path) -> Stamp:
    """The state of the file now."""
    has_log = _has_log(path)
    file = os.stat(path)
    if has_log:
        return Stamp(file.st_ino, 0, 0, True)
    return Stamp(file.st_ino, file.st_size, file.st_mtime_ns, False)


def log_size(path: Path) -> int:
    """Bytes of the write-ahead log; 0 where there is none."""
    try:
        return _side(path, "-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _has_log(path: Path) -> bool:
    """Whether changes may be outside the file. An empty log without an index is what a guest made
    that came as the last writer left, or a writer who has written nothing yet.
    """
    if _side(path, "-journal").exists() or _side(path, "-shm").exists():
        return True
    return log_size(path) > 0


class Connection:
    """A connection to SQLite with the one cursor that all its statements go through: making a
    cursor for each costs as much as a short statement.
    """

    __slots__ = ("execute", "sqlite", "stamp")

    def __init__(self, uri: str, timeout: float, stamp: Stamp | None = None) -> None:
        self.stamp = stamp
        """Of a guest: the state of the file that it was opened for."""
        self.sqlite = sqlite3.connect(
            uri,
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
        self.execute: Callable[..., Any] = self.sqlite.cursor().execute

    def one(self, sql: str) -> Any:
        """The first column of a statement's first row."""
        return self.execute(sql).fetchall()[0][0]

    def close(self) -> None:
        """Close it. SQLite folds the write-ahead log in when the last one is closed."""
        self.sqlite.close()


def open_writer(path: Path, durability: Durability, cache: int) -> Connection:
    """The connection that writes; `cache` in KiB. It never waits for a lock by itself: SQLite's
    way of waiting is unfair.
    """
    connection = Connection(_uri(path, "mode=rw"), 0)
    if not path.stat().st_size:
        # Takes effect as it is compiled, on the first page that will be made. To execute it would
        # make that page now, without our mark.
        connection.execute("EXPLAIN PRAGMA auto_vacuum = INCREMENTAL").fetchall()
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
    connection.execute(f"PRAGMA cache_size = -{cache}")
    connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_IDLE_WAL}")
    return connection


def open_reader(path: Path, timeout: float) -> Connection:
    """A connection that reads beside a writer of the same user."""
    connection = Connection(_uri(path, "mode=rw"), timeout)
    connection.execute("PRAGMA query_only = 1")
    return connection


def open_guest(path: Path, timeout: float, stamp: Stamp) -> Connection:
    """A connection that only reads and leaves nothing behind: the owner, perhaps another user,
    could not write to side files that we had made. UnsettledError where that cannot be.
    """
    if not stamp.has_log:
        return _Frozen(path, stamp)
    index = _side(path, "-shm")
    if _side(path, "-wal").exists() and not index.exists():
        raise _needs_writer(path)
    # `readonly_shm` keeps SQLite from making the index file, should it be gone by now.
    connection = Connection(_uri(path, "mode=ro&readonly_shm=1"), timeout, stamp)
    try:
        connection.one("PRAGMA user_version")
    except BaseException as error:
        connection.close()
        _remove_own_log(path)
        if getattr(error, "sqlite_errorname", "") in _UNRECOVERED:
            raise _needs_writer(path) from error
        raise
    _remove_own_log(path)
    return connection


def _needs_writer(path: Path) -> UnsettledError:
    return UnsettledError(
        ErrorKind.CONFIGURATION,
        f"{path}: its write-ahead log was left without an index; open it once to write, as the"
        " user who owns it",
    )


class _Frozen(Connection):
    """A connection to a file that was closed cleanly: `immutable` opens it without a lock and
    without side files. Should a writer fold changes into it meanwhile, then what is read may be of
    two times: DriverError of kind CONFLICT.
    """

    __slots__ = ("_path", "_read")

    def __init__(self, path: Path, stamp: Stamp) -> None:
        super().__init__(_uri(path, "mode=ro&immutable=1"), 0, stamp)
        self._path = path
        self._read = self.execute
        self.execute = self._checked

    def _checked(self, sql: str, parameters: Any = ()) -> _Fetched:
        try:
            rows = self._read(sql, parameters).fetchall()
        except sqlite3.DatabaseError:
            self._check_stamp()  # pages of two times may look like a damaged file
            raise
        self._check_stamp()
        return _Fetched(rows)

    def _check_stamp(self) -> None:
        file = os.stat(self._path)
        if (file.st_ino, file.st_size, file.st_mtime_ns, False) != self.stamp:
            raise UnsettledError(
                ErrorKind.CONFLICT, f"{self._path}: changed while it was read; try again"
            )


class _Fetched:
    """Rows that stand ready, in the place of a cursor."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def fetchall(self) -> list[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None


def _remove_own_log(path: Path) -> None:
    """SQLite makes a write-ahead log that it does not find. It was there a moment ago; if its
    owner has closed the database in between, then what lies there now is ours, and in the way.
    """
    log = _side(path, "-wal")
    with suppress(FileNotFoundError):
        found, owner = os.stat(log), os.stat(path).st_uid
        if found.st_size == 0 and found.st_uid == os.geteuid() != owner:
            os.unlink(log)


def _side(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _uri(path: Path, query: str) -> str:
    escaped = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{escaped}?{query}"


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(os.stat(path).st_mode)
