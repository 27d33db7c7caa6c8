"""Files and folders that are not ours: refused, and left as they are."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from storebridge.driver import ErrorKind, Options
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import BackendHarness, refused, tree
from storebridge.testing.samples import LAYOUT, TABLES

NOT_OURS = (ErrorKind.FOREIGN, ErrorKind.CORRUPT, ErrorKind.CONFIGURATION)


def _random_bytes(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(20_000))


def _text(path: Path) -> None:
    path.write_text("Dear diary,\ntoday I was nearly overwritten.\n")


def _json(path: Path) -> None:
    path.write_text('{"name": "somebody else\'s", "version": 1}\n')


def _sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table accounts (id text primary key, balance real)")
        connection.execute("insert into accounts values ('a', 1.5)")
        connection.commit()


def _sqlite_wal(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode = wal")
    _sqlite(path)


def _sqlite_of_our_names(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for table in TABLES:
            name = table.name.replace("-", "_")
            connection.execute(f"create table {name} (id text primary key, body text)")
        connection.commit()


def _folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine\n")


def _empty_folder(path: Path) -> None:
    path.mkdir()


SOMEONE_ELSES: tuple[Callable[[Path], None], ...] = (
    _random_bytes,
    _text,
    _json,
    _sqlite,
    _sqlite_wal,
    _sqlite_of_our_names,
    _folder_with_a_file,
    _empty_folder,
)


class ForeignTests(DriverTests):
    """What a backend makes of what others made."""

    @pytest.mark.parametrize("make", SOMEONE_ELSES, ids=lambda make: make.__name__.strip("_"))
    def test_what_is_not_ours(self, harness: BackendHarness, make: Callable[[Path], None]) -> None:
        """A file or folder that is not of this backend is refused, however it is opened, and is
        byte-identical afterwards, with nothing new beside it.
        """
        harness.require_files()
        if make is _empty_folder and _keeps_folders(harness):
            pytest.skip("an empty folder is a new database of this backend")
        path = Path(harness.target)
        make(path)
        before = tree(harness)
        for options in (Options(), Options(create=False), Options(read_only=True)):
            with refused(*NOT_OURS):
                harness.open(options=options)
            assert tree(harness) == before

    def test_recognises_its_own(self, harness: BackendHarness) -> None:
        """A backend recognises what it made, and neither noise nor text."""
        harness.require_files()
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        driver.close()
        path = Path(harness.target)
        assert harness.backend.recognises(path, _head(path)) is True
        for number, make in enumerate((_random_bytes, _text)):
            other = path.with_name(f"other{number}")
            make(other)
            assert harness.backend.recognises(other, _head(other)) is False


def _head(path: Path) -> bytes:
    return b"" if path.is_dir() else path.read_bytes()[:4096]


def _keeps_folders(harness: BackendHarness) -> bool:
    """Whether a database of this backend is a folder, found out by making one."""
    target = Path(harness.fresh())
    harness.open(str(target)).close()
    return target.is_dir()
