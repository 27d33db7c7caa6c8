"""What can lie at a location, and what cannot be opened: named, and left as it was."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from storebridge_sqlite import backend

from storebridge.driver import Driver, DriverError, ErrorKind, Options, Range
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import ENTRY, LAYOUT, LOG, TABLES, entry


def refusal(path: Path, **options: Any) -> DriverError:
    """The error of opening, after which everything in the folder must be as before."""
    before = content(path.parent)
    with pytest.raises(DriverError) as caught:
        backend.open(str(path), Options(**options))
    assert content(path.parent) == before
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() if p.is_file() else b"" for p in folder.iterdir()}


def make(path: Path, entries: int = 200) -> bytes:
    """A closed database; its bytes."""
    driver = backend.open(str(path), Options(durability="off"))
    driver.create_tables(TABLES, LAYOUT)
    with writing(driver) as transaction:
        for number in range(entries):
            transaction.insert(ENTRY.name, (f"k{number:03}",), entry("s", number), b"x" * 800)
    driver.close()
    return path.read_bytes()


@pytest.mark.parametrize("read_only", [False, True])
def test_someone_elses_database_that_is_in_use(path: Path, read_only: bool) -> None:
    """Not even SQLite's own side files are touched."""
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("PRAGMA journal_mode = wal")
        theirs.execute("CREATE TABLE suite_entry (id TEXT)")
        assert refusal(path, read_only=read_only).kind is ErrorKind.FOREIGN
        theirs.execute("INSERT INTO suite_entry VALUES ('a')")


def test_a_database_that_lost_our_mark_is_foreign(path: Path) -> None:
    """Tables of our names prove nothing."""
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 1")
    assert refusal(path).kind is ErrorKind.FOREIGN


def test_a_program_that_fills_the_empty_file_first(path: Path) -> None:
    """Between opening an empty file and making tables someone else may fill it: refused."""
    driver = backend.open(str(path), Options())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id TEXT)")
    with pytest.raises(DriverError) as caught:
        driver.create_tables(TABLES, LAYOUT)
    assert caught.value.kind is ErrorKind.FOREIGN
    driver.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
        assert connection.execute("PRAGMA application_id").fetchone() == (0,)


@pytest.mark.parametrize("kept", [1, 15, 16, 60, 99])
def test_a_file_cut_off_in_its_header(path: Path, kept: int) -> None:
    path.write_bytes(make(path)[:kept])
    assert refusal(path).kind is ErrorKind.CORRUPT


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_cut_off_later(path: Path, read_only: bool) -> None:
    """Found out at opening, at every length."""
    whole = make(path)
    for kept in (100, 4095, 4096, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        error = refusal(path, read_only=read_only)
        assert error.kind is ErrorKind.CORRUPT
        assert "cut off" in str(error)


def test_damage_in_the_middle(path: Path) -> None:
    """An unreadable page is CORRUPT where it is met, `check` names it, the rest is readable, and
    nobody is told that an entry is absent.
    """
    damaged = bytearray(make(path))
    page = damaged.index(b"x" * 800) // 4096 * 4096
    damaged[page : page + 100] = b"\xa5" * 100
    path.write_bytes(damaged)
    driver = backend.open(str(path), Options())
    driver.create_tables(TABLES, LAYOUT)
    assert list(driver.check()) != []
    found, errors = 0, []
    for number in range(200):
        with reading(driver) as transaction:
            try:
                assert transaction.get(ENTRY.name, (f"k{number:03}",)) == b"x" * 800
                found += 1
            except sqlite3.Error as error:
                errors.append(error)
    assert found > 150
    assert {driver.kind(error) for error in errors} == {ErrorKind.CORRUPT}
    driver.close()


def test_a_damaged_first_page(path: Path) -> None:
    """Behind a sound header: found out when the tables are declared, and left as it is."""
    damaged = bytearray(make(path))
    damaged[100:4096] = b"\xa5" * 3996
    path.write_bytes(damaged)
    driver = backend.open(str(path), Options())
    with pytest.raises(sqlite3.DatabaseError) as caught:
        driver.create_tables(TABLES, LAYOUT)
    assert driver.kind(caught.value) is ErrorKind.CORRUPT
    driver.close()
    assert path.read_bytes() == damaged


def test_a_damaged_key_is_corrupt_not_absent(driver: Driver, path: Path) -> None:
    """A key that is no UTF-8 cannot be told; the entries beside it can."""
    with writing(driver) as transaction:
        for name in ("a", "b", "c"):
            transaction.insert(ENTRY.name, (name,), entry(), b"{}")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE suite_entry SET id = CAST(x'62ff' AS TEXT) WHERE id = 'b'")
    with reading(driver) as transaction:
        assert transaction.get(ENTRY.name, ("c",)) == b"{}"
    with reading(driver) as transaction, pytest.raises(sqlite3.Error) as caught:
        transaction.scan(ENTRY.name, Range())
    assert driver.kind(caught.value) is ErrorKind.CORRUPT


def test_an_empty_file_is_a_new_database(path: Path) -> None:
    """Its permissions stay what they were, and side files have the same."""
    path.touch()
    path.chmod(0o640)
    driver = backend.open(str(path), Options())
    assert driver.layout() is None
    driver.create_tables(TABLES, LAYOUT)
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in path.parent.iterdir()}
    assert set(modes.values()) == {"0o640"}, modes
    driver.close()


def test_an_empty_file_read_only(path: Path) -> None:
    """It reads as empty and stays so."""
    path.touch()
    driver = backend.open(str(path), Options(read_only=True))
    driver.create_tables(TABLES, LAYOUT)
    assert driver.layout() is None
    with reading(driver) as transaction:
        assert transaction.get(LOG.name, (1,)) is None
        assert transaction.totals("") == {}
    driver.close()
    assert content(path.parent) == {path.name: b""}


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "folder" in str(refusal(folder))


def test_a_pipe_in_the_place_of_the_file(path: Path) -> None:
    """Said at once, rather than waited for."""
    os.mkfifo(path)
    with pytest.raises(DriverError) as caught:
        backend.open(str(path), Options())
    assert caught.value.kind is ErrorKind.CONFIGURATION


def test_a_file_in_the_place_of_the_folder(path: Path) -> None:
    path.write_text("x")
    with pytest.raises(DriverError) as caught:
        backend.open(str(path / "node.db"), Options())
    assert caught.value.kind is ErrorKind.CONFIGURATION


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "what?.db", "a#b.db", "é😀.db", "file:x"])
def test_awkward_file_names(tmp_path: Path, name: str) -> None:
    """Whatever a URI would make of them."""
    make(tmp_path / name, 1)
    driver = backend.open(str(tmp_path / name), Options(read_only=True))
    assert driver.layout() == LAYOUT
    driver.close()
    assert sorted(os.listdir(tmp_path)) == sorted([name, name + "-lock"])


def test_a_link_leads_to_one_lock(path: Path, tmp_path: Path) -> None:
    """Who opens a file through a link waits for who opened it by its name."""
    make(path, 1)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    one = backend.open(str(path), Options())
    other = backend.open(str(link), Options(lock_timeout=0.05))
    for driver in (one, other):
        driver.create_tables(TABLES, LAYOUT)
    transaction = one.begin(write=True)
    with pytest.raises(DriverError) as caught:
        other.begin(write=True)
    assert caught.value.kind is ErrorKind.LOCKED
    assert caught.value.holder == os.getpid()
    transaction.rollback()
    one.close()
    other.close()


@pytest.mark.parametrize("value", ["", "-1", "63", "1.5", "16M", "²", "99999999999", "9" * 5000])
def test_a_bad_cache_option(path: Path, value: str) -> None:
    """Named with its value and with what is accepted, before anything is made."""
    with pytest.raises(DriverError) as caught:
        backend.open(str(path), Options(extra={"cache": value}))
    assert caught.value.kind is ErrorKind.CONFIGURATION
    assert f"cache={value!r}" in str(caught.value)
    assert "64" in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("relaxed", 1), ("off", 0)])
def test_durability_and_cache_reach_sqlite(path: Path, durability: Any, synchronous: int) -> None:
    options = Options(durability=durability, extra={"cache": "1024"})
    driver = backend.open(str(path), options)
    driver.create_tables(TABLES, LAYOUT)
    with writing(driver) as transaction:
        execute: Callable[..., Any] = transaction._execute  # type: ignore[attr-defined]
        assert execute("PRAGMA synchronous").fetchall() == [(synchronous,)]
        assert execute("PRAGMA cache_size").fetchall() == [(-1024,)]
    driver.close()


def test_describes_the_file(driver: Driver, path: Path) -> None:
    described = driver.describe()
    assert described["file_size"] == path.stat().st_size
    assert described["wal_size"] == path.with_name("node.db-wal").stat().st_size
    assert described["user_version"] == LAYOUT
    assert described["application_id"] == "0x53544252"
    assert described["synchronous"] == "OFF"
    assert described["journal_mode"] == "wal"


def test_describes_a_file_that_nobody_has_open(path: Path) -> None:
    """SQLite takes one that cannot change for one without a log: that is not told as a fact."""
    make(path, 1)
    driver = backend.open(str(path), Options(read_only=True, create=False))
    driver.create_tables(TABLES, LAYOUT)
    assert driver.describe().get("journal_mode", "wal") == "wal"
    driver.close()


def test_closing_folds_the_log_in(driver: Driver, path: Path) -> None:
    """After a clean close the one file is the whole database, whatever readers were open."""
    with writing(driver) as transaction:
        transaction.insert(LOG.name, (1,), ("w",), b"{}")
    with reading(driver) as transaction:
        transaction.get(LOG.name, (1,))
    driver.close()
    assert sorted(p.name for p in path.parent.iterdir()) == ["node.db", "node.db-lock"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM suite_log").fetchone() == (1,)


def test_a_file_out_of_wal_mode_is_put_back(path: Path) -> None:
    """By hand, or by a kill between making the tables and changing the mode."""
    make(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = delete")
    assert path.read_bytes()[18] == 1
    make(path, 0)
    assert path.read_bytes()[18] == 2
