"""Changes of a SQLite file that others make, by SQLite and without it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from storebridge import Job, JobStore, open_database
from storebridge.database import Database
from storebridge.driver import Versioned

_UPDATE = "UPDATE job SET body = body || ' ' WHERE id = 'j1'"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with open_database(path) as database:
        for number in range(3):
            JobStore(database).create(Job(id=f"j{number}"))
    return path


def by_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(_UPDATE)
        connection.commit()


def by_another_process(path: Path) -> None:
    code = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute({_UPDATE!r}); c.commit()"
    subprocess.run([sys.executable, "-c", code + "; import os; os._exit(0)"], check=True)


def with_a_journal(path: Path) -> None:
    """A commit that uses no write-ahead log."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        connection.execute(_UPDATE)
        connection.commit()


def in_place(path: Path) -> None:
    """One bit of a body, as no SQLite does."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(data.rindex(b"j1"))
        file.write(b"J")


def by_another_file(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    os.replace(copy, path)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("change", [by_sqlite, by_another_process, in_place, by_another_file])
def test_changes(path: Path, change: Callable[[Path], None], read_only: bool) -> None:
    """Whoever makes them, and however the file was opened."""
    with open_database(path, read_only=read_only) as database, version_of(database) as version:
        assert version.stands()
        JobStore(database).get("j0")
        assert version.stands()
        change(path)
        assert not version.stands()


def test_a_journal(path: Path) -> None:
    """Whoever has the file open keeps others from leaving the write-ahead log, but for who only
    reads what nobody else has open."""
    test_changes(path, with_a_journal, True)


def test_a_log_that_grows(path: Path) -> None:
    """Also where the file itself stays as it was, and is folded in by nobody."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute(_UPDATE)
        other.commit()
        with open_database(path, read_only=True) as database, version_of(database) as version:
            before = path.stat()
            other.execute(_UPDATE)
            assert version.stands()
            other.commit()
            assert not version.stands()
            after = path.stat()
            assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


@pytest.mark.parametrize("change", [by_another_process, in_place])
def test_an_unused_log(path: Path, change: Callable[[Path], None]) -> None:
    """What a reader leaves that may not remove what it has made: it is no change."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        reader.execute("SELECT count(*) FROM job").fetchall()
    assert path.with_name("store.db-shm").exists()
    with open_database(path, read_only=True) as database, version_of(database) as version:
        for _ in range(3):
            JobStore(database).get("j0")
            assert version.stands()
        change(path)
        assert not version.stands()


def version_of(database: Database) -> closing:  # type: ignore[type-arg]
    assert isinstance(database.driver, Versioned)
    return closing(database.driver.hold_version())
