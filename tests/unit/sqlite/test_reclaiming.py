"""Free pages given back: how files are made for it, and what is in the way."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from storebridge_sqlite import backend, reclaiming
from storebridge_sqlite.driver import SqliteDriver

from storebridge.driver import Driver, DriverError, ErrorKind, Options, Range
from storebridge.testing.contract.reclaiming import content_of, fill, thin_out
from storebridge.testing.harness import writing
from storebridge.testing.samples import ENTRY, LAYOUT, LOG, TABLES

INCREMENTAL = 2


def pragma(path: Path, name: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value


def opened(path: Path, **given: object) -> SqliteDriver:
    options = Options(**{"durability": "off", "lock_timeout": 0.2, **given})  # type: ignore[arg-type]
    driver = backend.open(str(path), options)
    driver.create_tables(TABLES, LAYOUT)
    assert isinstance(driver, SqliteDriver)
    return driver


def made_without(path: Path) -> None:
    """A database of ours as SQLite's shell writes one from a dump."""
    opened(path).close()
    copy = path.with_name("copy")
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(copy)) as other:
        other.executescript("\n".join(connection.iterdump()))
        for name in ("application_id", "user_version"):
            other.execute(f"PRAGMA {name} = {pragma(path, name)}")
    shutil.move(copy, path)
    assert pragma(path, "auto_vacuum") == 0


def test_new_files_can_be_shortened_by_steps(path: Path) -> None:
    """And the first page on the disk bears our mark, as before."""
    opened(path).close()
    assert pragma(path, "auto_vacuum") == INCREMENTAL


def test_steps_are_short(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frees as many pages as it may, and not more; the log is folded in after each."""
    monkeypatch.setattr(reclaiming, "STEP", 16)
    assert isinstance(driver, SqliteDriver)
    thin_out(driver, fill(driver))
    free, seen = driver.describe()["freelist_count"], []
    driver.reclaim(lambda: seen.append(driver.describe()["freelist_count"]))
    assert isinstance(free, int)
    assert seen == [*range(free - 16, 0, -16), 0]


def test_a_file_made_without_is_rewritten_once(path: Path) -> None:
    """If a quarter of it is free; from then on it is one of those that can be shortened."""
    made_without(path)
    driver = opened(path)
    everything = fill(driver)
    content = thin_out(driver, dict(list(everything.items())[:200]), kept=0)
    content = dict(list(everything.items())[200:])
    done = driver.reclaim(lambda: None)
    assert done.skipped is not None
    assert "too few to rewrite a file made without auto_vacuum" in done.skipped
    assert content_of(driver) == content
    content = thin_out(driver, content)
    done = driver.reclaim(lambda: None)
    assert (done.skipped, done.after < done.before // 2) == (None, True)
    assert content_of(driver) == content
    assert pragma(path, "auto_vacuum") == INCREMENTAL
    content |= fill(driver, "again-")
    content = thin_out(driver, content)
    steps: list[int] = []
    assert driver.reclaim(lambda: steps.append(1)).skipped is None
    assert steps
    assert content_of(driver) == content
    driver.close()


def test_another_program_in_the_way_of_a_rewrite(path: Path) -> None:
    """It is not waited for longer than a writer would."""
    made_without(path)
    driver = opened(path)
    content = thin_out(driver, fill(driver))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DriverError) as caught:
            driver.reclaim(lambda: None)
        assert caught.value.kind is ErrorKind.LOCKED
    assert content_of(driver) == content
    assert driver.reclaim(lambda: None).skipped is None
    driver.close()


@pytest.mark.parametrize("longest", [20, 10_000])
def test_a_reader_keeps_the_log(path: Path, monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    """Pages are freed all the same, as long as the log does not grow much by it; that it is still
    there, and why, is told.
    """
    monkeypatch.setattr(reclaiming, "STEP", 16)
    monkeypatch.setattr(reclaiming, "_LONGEST_LOG", longest)
    driver = opened(path)
    everything = fill(driver)
    reader = driver.begin(write=False)
    assert reader.get(ENTRY.name, ("k1",)) == everything["k1",]
    content = thin_out(driver, everything)
    done = driver.reclaim(lambda: None)
    assert done.skipped is not None
    assert "a read transaction needs the write-ahead log" in done.skipped
    assert (driver.usage().free == 0) == (longest > 20)
    assert reader.get(ENTRY.name, ("k1",)) == everything["k1",]
    reader.rollback()
    done = driver.reclaim(lambda: None)
    assert done.skipped is None
    assert os.path.getsize(f"{path}-wal") == 0
    assert driver.usage().free == 0
    assert content_of(driver) == content
    driver.close()


def test_a_frozen_read_of_a_file_that_was_shortened(path: Path) -> None:
    """Who reads a closed file without a lock while a writer comes and makes it smaller is told that
    it changed, not that it is damaged.
    """
    driver = opened(path)
    with writing(driver) as transaction:
        for number in range(400):
            transaction.insert(LOG.name, (number,), ("w",), b'"%s"' % (b"x" * 3000))
    driver.close()
    guest = opened(path, read_only=True)
    reader = guest.begin(write=False)
    assert reader.get(LOG.name, (399,)) is not None
    driver = opened(path)
    with writing(driver) as transaction:
        for number in range(390):
            transaction.remove(LOG.name, (number,), ("w",))
    assert driver.reclaim(lambda: None).skipped is None
    driver.close()
    with pytest.raises(DriverError) as caught:
        reader.scan(LOG.name, Range(limit=400))
    assert caught.value.kind is ErrorKind.CONFLICT
    reader.rollback()
    assert guest.begin(write=False, single=True).get(LOG.name, (399,)) is not None
    guest.close()


def test_the_log_counts_beyond_its_ordinary_size(path: Path) -> None:
    """It grows to about four megabytes again and again, and is nothing to reclaim until then."""
    driver = opened(path)
    fill(driver)
    assert os.path.getsize(f"{path}-wal") > 500_000
    assert driver.usage().free < 100_000
    driver.close()


def test_the_free_share_is_the_same_whatever_the_log_holds(path: Path) -> None:
    """In many small transactions the log grows beyond what the database takes."""
    driver = opened(path)
    thin_out(driver, fill(driver))
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    share = driver.usage().share
    assert 0.5 < share < 1
    for number in range(400):
        with writing(driver) as transaction:
            transaction.tally({"small": number})
    assert os.path.getsize(f"{path}-wal") > os.path.getsize(path)
    assert driver.usage().share == pytest.approx(share, abs=0.05)
    driver.close()
