"""Whether anything was committed since: SQLite tells each connection of all changes but its own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from storebridge.driver import DriverError
from storebridge_sqlite.connection import Connection, log_size, stamp_of


class DataVersion:
    """`HeldVersion` by a reader's `PRAGMA data_version`. The file's inode, size and time count as
    well: they tell of programs that write into it, or over it, without SQLite. A guest that reads
    without locks is told nothing by SQLite, and has the stamp that it was opened for. One that
    found the index of an unused log is told of changes at every look; but while the log is empty,
    whatever was committed is in the file.
    """

    def __init__(
        self, path: Path, reader: Connection, give_back: Callable[[Connection], None]
    ) -> None:
        self._path = path
        self._reader = reader
        self._give_back = give_back
        try:
            self._then = self._now()
        except BaseException:
            give_back(reader)
            raise

    def _now(self) -> tuple[object, ...]:
        file = os.stat(self._path)
        guest = None if self._reader.stamp is None else stamp_of(self._path)
        log = log_size(self._path)
        number = None if guest and not log else self._reader.one("PRAGMA data_version")
        return file.st_ino, file.st_size, file.st_mtime_ns, guest, log if guest else 0, number

    def stands(self) -> bool:
        """See `HeldVersion.stands`."""
        try:
            return self._now() == self._then
        except (sqlite3.Error, DriverError, OSError):
            return False

    def close(self) -> None:
        """See `HeldVersion.close`."""
        self._give_back(self._reader)
