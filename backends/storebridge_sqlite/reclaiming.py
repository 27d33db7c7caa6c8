"""Giving free pages back to the system.

New files are made with `auto_vacuum = INCREMENTAL`: pages from the file's end can be moved into
free ones, a few at a time, and the file cut short, while others read and write. It costs one or two
percent of the writing. VACUUM, which rewrites everything and keeps writers out meanwhile, is left
for files that were made without; it makes them such files.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from storebridge.driver import Usage
from storebridge.driver.space import require_room
from storebridge_sqlite.connection import Connection
from storebridge_sqlite.errors import primary_code

STEP = 256
"""Pages that one transaction frees: some milliseconds, and a log of about 3 MiB."""
_LOG_OF_STEP = 4 * STEP
"""Pages that the log may have after a step: each page freed can change a few others."""
_LONGEST_LOG = 16 * STEP
"""Pages of the log that readers may keep from being folded in, before it is left at that."""
_ORDINARY_LOG = 1000
"""Pages from which on SQLite folds the log in at a commit, by default."""
_WORTH_REWRITING = 4
"""VACUUM where one page in so many is free."""
_PATIENCE = 1.0
"""Seconds to wait for readers of the log."""
_POLL = 0.005

Alone = Callable[[], AbstractContextManager[Connection]]
"""The writer's connection outside of a transaction, with other writers kept out."""


def usage(path: Path, reader: Connection) -> Usage:
    """The bytes of the file and of those at its side. Free are the free pages, and what the log has
    beyond its ordinary size, to which it would soon grow again. What they are a share of is counted
    without the log up to that size: it would make a small database look full, the more so in the
    more transactions its records were removed.
    """
    data, log, index = (_size(path.with_name(path.name + end)) for end in ("", "-wal", "-shm"))
    page_size = reader.one("PRAGMA page_size")
    pages, free = (reader.one(f"PRAGMA {name}") for name in ("page_count", "freelist_count"))
    excess = max(0, log - _ORDINARY_LOG * page_size)
    return Usage(data + log + index, free * page_size + excess, pages * page_size + excess)


def reclaim(
    path: Path, reader: Connection, alone: Alone, breathe: Callable[[], None]
) -> str | None:
    """Give free pages and the log back, as far as it goes; why not everything, if so."""
    free = reader.one("PRAGMA freelist_count")
    if not free:
        return _fold(alone, breathe)
    page_size = reader.one("PRAGMA page_size")
    if reader.one("PRAGMA auto_vacuum"):
        require_room(path.parent, _LOG_OF_STEP * page_size)
        _vacuum_by_steps(free, alone, breathe)
        return _fold(alone, breathe)
    pages = reader.one("PRAGMA page_count")
    if free * _WORTH_REWRITING < pages:
        share = f"{free} of {pages} pages are free"
        return f"{share}, too few to rewrite a file made without auto_vacuum"
    # A copy in the folder for temporary files, and once more in the log.
    require_room(path.parent, 2 * (pages - free) * page_size)
    return _rewrite(alone) or _fold(alone, breathe)


def _vacuum_by_steps(free: int, alone: Alone, breathe: Callable[[], None]) -> None:
    """Free as many pages as there were, and no more, whatever others free meanwhile; fewer where a
    reader lets the log grow.
    """
    for _ in range(-(-free // STEP)):
        with alone() as writer:
            # A transaction of its own. As a script: `execute` takes one step of what returns no
            # columns, and each step frees one page.
            writer.sqlite.executescript(f"PRAGMA incremental_vacuum({STEP})")
            left = writer.one("PRAGMA freelist_count")
            ((_, log, folded),) = writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        breathe()
        if not left or log - folded > _LONGEST_LOG:
            break


def _rewrite(alone: Alone) -> str | None:
    with alone() as writer:
        try:
            writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
            writer.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            return "another program has it locked"
    return None


def _fold(alone: Alone, breathe: Callable[[], None]) -> str | None:
    """Fold the log into the file and empty it, which takes that no reader needs it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        with alone() as writer:
            ((busy, _, _),) = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if not busy:
            return None
        if time.monotonic() > deadline:
            return "a read transaction needs the write-ahead log, which is emptied after its end"
        breathe()
        time.sleep(_POLL)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
