"""How a location is recognised and opened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from storebridge.driver import Driver, DriverError, ErrorKind, Options
from storebridge_sqlite.driver import SqliteDriver
from storebridge_sqlite.files import MAGIC, prepare

_DEFAULT_CACHE = 16 * 1024
"""KiB. With SQLite's own default of 2 MB, updates in random order cost twice as much."""
_LEAST_CACHE, _LARGEST_CACHE = 64, 16 * 2**20


class SqliteBackend:
    """SQLite through the standard library's `sqlite3`."""

    name = "sqlite"
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".db", ".sqlite", ".sqlite3")
    extra_options: tuple[str, ...] = ("cache",)

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the file is a SQLite database, of whomever: `open` tells whose."""
        return head.startswith(MAGIC)

    def open(self, target: str, options: Options) -> Driver:
        """Open the file at a path, or make it."""
        # SQLite names its side files by what a link leads to; our lock file stands beside them.
        path = Path(os.path.realpath(target))
        cache = _cache(options.extra)
        prepare(path, options)
        driver = SqliteDriver(path, options, cache)
        try:
            driver.layout()
        except BaseException as error:
            driver.close()
            if isinstance(error, sqlite3.Error | OSError):
                kind = driver.kind(error) or ErrorKind.OTHER
                raise DriverError(kind, f"{path}: {error}") from error
            raise
        return driver

    def files(self, target: str) -> list[Path]:
        """The file, and those that SQLite and our lock put beside it."""
        ends = ("", "-wal", "-shm", "-journal", "-lock", "-lock-wait")
        return [Path(target + end) for end in ends]

    def shell(self, target: str) -> list[str] | None:
        """The `sqlite3` command."""
        return ["sqlite3", "-readonly", target]


def _cache(extra: Mapping[str, str]) -> int:
    text = extra.get("cache", str(_DEFAULT_CACHE))
    # Python refuses to make an integer of thousands of digits.
    whole = text.isascii() and text.isdecimal() and len(text) < 20
    if whole and _LEAST_CACHE <= int(text) <= _LARGEST_CACHE:
        return int(text)
    raise DriverError(
        ErrorKind.CONFIGURATION,
        f"option cache={text!r}: expected KiB of page cache, a whole number from {_LEAST_CACHE} to"
        f" {_LARGEST_CACHE}",
    )


backend = SqliteBackend()
