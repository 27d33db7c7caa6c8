"""The driver: connections, the writers' lock, and what the database knows of itself."""

from __future__ import annotations

import os
import random
import sqlite3
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from storebridge.driver import DriverError, ErrorKind, Options, Reclaimed, Table, Traits, Usage
from storebridge.driver.fileears import FileEars, ring
from storebridge.driver.lockfile import LockFile
from storebridge_sqlite import connection as connections
from storebridge_sqlite import reclaiming
from storebridge_sqlite.connection import Connection
from storebridge_sqlite.creation import layout_of, missing
from storebridge_sqlite.errors import kind, primary_code
from storebridge_sqlite.statements import Statements
from storebridge_sqlite.transaction import SqliteTransaction
from storebridge_sqlite.version import DataVersion

_MOST_IDLE = 8
_LONGEST_SLEEP = 0.005
_LONGEST_SETTLING, _SETTLING_STEP = 1.0, 0.001
"""Seconds. How long a guest waits for a writer that is coming or going, and how often it looks.
What a killed one left stays, and is told after that time."""
_T = TypeVar("_T")


class SqliteDriver:
    """An opened SQLite file: one connection that writes, and some that read."""

    traits = Traits(processes="many")

    def __init__(self, path: Path, options: Options, cache: int) -> None:
        self._path = path
        self._options = options
        self._cache = cache
        lock = path.with_name(path.name + "-lock")
        self._lock = LockFile(lock, connections.mode_of(path), beside=path)
        self._ears = FileEars(lock)
        self._bell = str(lock)
        """What writers ring when they have committed. Not the log: it is written to before."""
        self._writer: Connection | None = None
        self._idle: deque[Connection] = deque()
        self._statements: dict[str, Statements] = {}
        self._unusable: str | None = None
        _drivers.add(self)

    def layout(self) -> int | None:
        """`user_version`, in a file that bears our mark."""
        return self._settled(self._layout)

    def _layout(self) -> int | None:
        reader = self._reader()
        try:
            return layout_of(reader)
        finally:
            self._finish_reading(reader)

    def create_tables(self, tables: Sequence[Table], layout: int) -> None:
        """Declare tables; make what is missing of them in one transaction."""
        if not self._options.read_only and not self._is_made(tables, layout):
            self._make(tables, layout)
        self._statements |= {table.name: Statements(table) for table in tables}

    def begin(self, write: bool, single: bool = False) -> SqliteTransaction:
        """Start a transaction. A single read needs no BEGIN: a statement is its own snapshot."""
        if write:
            writer = self._begin_writing()
            return SqliteTransaction(writer, self._statements, self._finish_writing)
        reader = self._reader()
        if not single:
            reader.execute("BEGIN")
        return SqliteTransaction(reader, self._statements, self._finish_reading)

    def kind(self, error: BaseException) -> ErrorKind | None:
        """What an error means."""
        return kind(error)

    def holder(self) -> int | None:
        """The process that holds the writers' lock, if another one does."""
        pid = self._lock.holder()
        return None if pid == os.getpid() else pid

    def check(self) -> Iterator[str]:
        """The lines of `PRAGMA integrity_check` that are not `ok`."""
        reader = self._reader()
        try:
            for (line,) in reader.execute("PRAGMA integrity_check").fetchall():
                if line != "ok":
                    yield line
        except sqlite3.DatabaseError as error:
            if kind(error) is not ErrorKind.CORRUPT:
                raise
            yield str(error)
        finally:
            self._finish_reading(reader)

    def describe(self) -> dict[str, str | int]:
        """Pragmas by their names, and sizes in bytes."""
        names = ["page_size", "page_count", "freelist_count", "encoding"]
        reader = self._reader()
        try:
            described: dict[str, str | int] = {"sqlite_version": sqlite3.sqlite_version}
            if reader.stamp is None:  # a file that is read as immutable is never said to have a log
                names.append("journal_mode")
            described |= {name: reader.one(f"PRAGMA {name}") for name in names}
            described["application_id"] = f"{reader.one('PRAGMA application_id'):#x}"
            described["user_version"] = reader.one("PRAGMA user_version")
        finally:
            self._finish_reading(reader)
        described["synchronous"] = connections.SYNCHRONOUS[self._options.durability]
        described["cache_size"] = -self._cache
        described["file_size"] = self._path.stat().st_size
        log = self._path.with_name(self._path.name + "-wal")
        described["wal_size"] = log.stat().st_size if log.exists() else 0
        return described

    def hold_version(self) -> DataVersion:
        """What a reader of its own is told of changes by."""
        return DataVersion(self._path, self._reader(), self._finish_reading)

    def usage(self) -> Usage:
        """What is used and free of the file, and the log."""
        reader = self._reader()
        try:
            return reclaiming.usage(self._path, reader)
        finally:
            self._finish_reading(reader)

    def reclaim(self, breathe: Callable[[], None]) -> Reclaimed:
        """Move pages into free ones, in steps, and cut the file and the log short."""
        if self._options.read_only:
            raise self._read_only()
        before = self.usage().size
        reader = self._reader()
        try:
            skipped = reclaiming.reclaim(self._path, reader, self._alone, breathe)
        finally:
            self._finish_reading(reader)
        return Reclaimed(before, self.usage().size, skipped)

    def add_listener(self, heard: Callable[[], object]) -> None:
        """Have this called when something was committed, by whichever process."""
        self._ears.add(heard)

    def remove_listener(self, heard: Callable[[], object]) -> None:
        """Call it no more."""
        self._ears.remove(heard)

    def close(self) -> None:
        """Close every connection, the writer last: it folds the write-ahead log in."""
        self._ears.close()
        self._unusable = f"{self._path}: the database is closed"
        while self._idle:
            self._idle.pop().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._lock.close()

    # --- writing ---

    def _begin_writing(self) -> Connection:
        self._check_usable()
        if self._options.read_only:
            raise self._read_only()
        timeout = self._options.lock_timeout
        deadline = time.monotonic() + timeout
        self._lock.acquire(timeout)
        try:
            if self._writer is not None and self._writer.sqlite.in_transaction:
                # An exception out of a signal handler kept its beginner from learning of it.
                self._end(self._writer)
            if self._writer is None:
                self._writer = self._open_writer()
            self._begin_immediate(self._writer, deadline)
        except BaseException:
            self._lock.release()
            raise
        return self._writer

    def _open_writer(self) -> Connection:
        return connections.open_writer(self._path, self._options.durability, self._cache)

    def _begin_immediate(self, writer: Connection, deadline: float) -> None:
        while True:
            try:
                writer.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() > deadline:
                    raise DriverError(
                        ErrorKind.LOCKED,
                        f"{self._path}: another program holds SQLite's lock; waited"
                        f" {self._options.lock_timeout:g} s, try again later",
                    ) from error
            time.sleep(random.uniform(0, _LONGEST_SLEEP))

    def _finish_writing(self, writer: Connection, statement: str) -> None:
        try:
            if statement == "COMMIT":
                writer.execute(statement)
        finally:
            self._end(writer)
            self._lock.release()
        if statement == "COMMIT":
            ring(self._bell)

    def _end(self, writer: Connection) -> None:
        """Roll back what is still open; where even that fails, SQLite does so at the next open."""
        try:
            writer.sqlite.rollback()
        except sqlite3.Error:
            writer.close()
            self._writer = None

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """No transaction, but other writers kept out: for what SQLite does in none."""
        writer = self._begin_writing()
        try:
            writer.execute("ROLLBACK")
            yield writer
        finally:
            self._finish_writing(writer, "ROLLBACK")

    # --- creating ---

    def _is_made(self, tables: Sequence[Table], layout: int) -> bool:
        reader = self._reader()
        try:
            in_wal_mode = reader.one("PRAGMA journal_mode") == "wal"
            return in_wal_mode and not missing(reader, tables, layout)
        finally:
            self._finish_reading(reader)

    def _make(self, tables: Sequence[Table], layout: int) -> None:
        writer = self._begin_writing()
        try:
            # Until the file is in WAL mode, readers are in a writer's way.
            writer.execute(f"PRAGMA busy_timeout = {int(self._options.lock_timeout * 1000)}")
            for statement in missing(writer, tables, layout):
                writer.execute(statement)
            writer.execute("COMMIT")
            # Only now: the mark is in the file itself, not in a log beside it, from the first.
            writer.execute("PRAGMA journal_mode = WAL").fetchall()
        finally:
            writer.execute("PRAGMA busy_timeout = 0")
            self._end(writer)
            self._lock.release()

    # --- reading ---

    def _reader(self) -> Connection:
        self._check_usable()
        if self._options.read_only:
            return self._guest()
        try:
            return self._idle.pop()
        except IndexError:
            return connections.open_reader(self._path, self._options.lock_timeout)

    def _guest(self) -> Connection:
        return self._settled(self._guest_now)

    def _guest_now(self) -> Connection:
        stamp = connections.stamp_of(self._path)
        while self._idle:
            try:
                guest = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if guest.stamp == stamp:
                return guest
            guest.close()
        return connections.open_guest(self._path, self._options.lock_timeout, stamp)

    def _settled(self, attempt: Callable[[], _T]) -> _T:
        """Try again what came as a writer was coming or going."""
        deadline = time.monotonic() + min(self._options.lock_timeout, _LONGEST_SETTLING)
        while True:
            try:
                return attempt()
            except connections.UnsettledError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_SETTLING_STEP)

    def _finish_reading(self, reader: Connection, statement: str = "ROLLBACK") -> None:
        try:
            reader.sqlite.rollback()
        except sqlite3.Error:
            reader.close()
            return
        if self._unusable is None and len(self._idle) < _MOST_IDLE:
            self._idle.append(reader)
        else:
            reader.close()

    # --- state ---

    def _read_only(self) -> DriverError:
        return DriverError(ErrorKind.READ_ONLY, f"{self._path}: opened read-only")

    def _check_usable(self) -> None:
        if self._unusable is not None:
            raise DriverError(ErrorKind.CLOSED, self._unusable)

    def _leave_to_parent(self) -> None:
        """In a forked child: closing the parent's connections here would undo its transaction in
        the memory that both share.
        """
        self._unusable = f"{self._path}: opened before a fork; open it again in the child"
        _parents.extend(self._idle)
        self._idle.clear()
        if self._writer is not None:
            _parents.append(self._writer)
            self._writer = None


_drivers: weakref.WeakSet[SqliteDriver] = weakref.WeakSet()
_parents: list[Connection] = []


def _leave_all_to_parent() -> None:
    for driver in list(_drivers):
        driver._leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)
