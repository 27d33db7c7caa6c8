"""Several processes, killed processes, forked processes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from storebridge_sqlite import backend

from storebridge.driver import Driver, DriverError, ErrorKind, Options, Range
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import LAYOUT, LOG, TABLES


def open_driver(path: Path, **options: Any) -> Driver:
    driver = backend.open(str(path), Options(**options))
    driver.create_tables(TABLES, LAYOUT)
    return driver


def count(driver: Driver) -> int:
    with reading(driver) as transaction:
        return transaction.count(LOG.name, Range())


def test_a_killed_holder_frees_the_lock(path: Path, start: Callable[..., Any]) -> None:
    """The next writer has it at once, and nothing of the killed transaction is there."""
    driver = open_driver(path, lock_timeout=0.0)
    holder = start(path)
    assert [holder.do(word) for word in ("open", "write", "hold")] == ["opened", 1, "held"]
    assert driver.holder() == holder.pid
    with pytest.raises(DriverError) as caught:
        driver.begin(write=True)
    assert caught.value.kind is ErrorKind.LOCKED
    assert caught.value.holder == holder.pid
    holder.kill()
    assert driver.holder() is None
    with writing(driver) as transaction:
        assert transaction.tally({"n": 1}) == {"n": 2}
    driver.close()


@pytest.mark.parametrize("durability", ["full", "off"])
def test_eight_processes_write_in_fair_turns(
    path: Path, start: Callable[..., Any], durability: str
) -> None:
    """Nobody is told that the database is locked, nobody has less than half of the average, and
    every acknowledged entry is there. Which process runs is the system's choice, too, and whatever
    else it runs counts: so one fair run of three is enough, of which an unfair lock has none.
    """
    writers = [start(path, durability=durability) for _ in range(8)]
    assert [writer.do("open") for writer in writers] == ["opened"] * 8
    runs: list[list[int]] = []
    while not runs or (min(runs[-1]) <= sum(runs[-1]) / 8 / 2 and len(runs) < 3):
        for writer in writers:
            writer.begin("load")
        runs.append([writer.answer() for writer in writers])
    assert min(runs[-1]) > sum(runs[-1]) / 8 / 2, runs
    driver = open_driver(path)
    assert count(driver) == sum(map(sum, runs))
    assert list(driver.check()) == []
    driver.close()


def test_another_programs_lock(path: Path, driver: Driver) -> None:
    """SQLite's lock, held by a program that knows nothing of ours, is waited for, and then LOCKED;
    in total no longer than lock_timeout.
    """
    ours = open_driver(path, lock_timeout=1.5)
    with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(DriverError) as caught:
            ours.begin(write=True)
        assert 1.5 <= time.monotonic() - begun < 2 * 1.5
        assert caught.value.kind is ErrorKind.LOCKED
        assert count(ours) == 0
        theirs.execute("ROLLBACK")
        ours.begin(write=True).rollback()
    ours.close()


def test_killed_while_making_the_database(path: Path, start: Callable[..., Any]) -> None:
    """At whatever moment: the next opener makes what is missing."""
    chance = random.Random(7)
    for turn in range(12):
        target = path.with_name(f"{turn}.db")
        maker = start(target)
        maker.begin("files")  # answers when everything is imported
        maker.answer()
        maker.begin("open")
        time.sleep(chance.random() * 0.03)
        maker.kill()
        driver = open_driver(target)
        assert driver.layout() == LAYOUT
        with writing(driver) as transaction:
            assert transaction.insert(LOG.name, (1,), ("w",), b"{}")
        assert list(driver.check()) == []
        driver.close()


def test_killed_inside_the_commit_that_makes_the_database(path: Path) -> None:
    """The pages are written and the rollback journal is still there: SQLite empties the file
    again, which is then new. The same without our lock file is someone else's.
    """
    _leave_half_made(path)
    halves = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises(DriverError) as caught:
        backend.open(str(path), Options())
    assert caught.value.kind is ErrorKind.FOREIGN
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == halves
    path.with_name(path.name + "-lock").touch()
    driver = backend.open(str(path), Options())
    assert driver.layout() is None
    driver.create_tables(TABLES, LAYOUT)
    assert count(driver) == 0
    driver.close()


def _leave_half_made(path: Path) -> None:
    """What SQLite leaves when it is killed between writing the first pages and the end of the
    commit; the mark is not yet where it will be.
    """
    child = os.fork()
    if child == 0:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA cache_size = 2")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE suite_log (number INTEGER PRIMARY KEY, body TEXT)")
        for number in range(300):
            connection.execute("INSERT INTO suite_log VALUES (?, ?)", (number, "x" * 900))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.stat().st_size > 0
    assert path.with_name(path.name + "-journal").stat().st_size > 0


def test_a_forked_child_cannot_disturb_its_parent(path: Path) -> None:
    """The child is told to open anew and can; whatever it does with the parent's driver, and when
    it ends, the parent's open transaction goes on.
    """
    driver = open_driver(path, lock_timeout=0.2)
    count(driver)
    transaction = driver.begin(write=True)
    assert transaction.insert(LOG.name, (1,), ("w",), b"{}")
    child = os.fork()
    if child == 0:
        os._exit(_misuse(driver, path))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert driver.holder() is None
    assert transaction.insert(LOG.name, (2,), ("w",), b"{}")
    transaction.commit()
    assert count(driver) == 2
    assert list(driver.check()) == []
    driver.close()


def _misuse(driver: Driver, path: Path) -> int:
    for write in (False, True):
        try:
            driver.begin(write=write)
        except DriverError as error:
            if error.kind is not ErrorKind.CLOSED or "fork" not in str(error):
                return 1
    driver.close()
    fresh = open_driver(path, lock_timeout=0.2)
    if count(fresh) != 0 or fresh.holder() != os.getppid():
        return 2
    try:
        fresh.begin(write=True)
    except DriverError as error:
        return 0 if error.kind is ErrorKind.LOCKED else 3
    return 4
