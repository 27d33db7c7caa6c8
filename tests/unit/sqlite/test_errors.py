"""What SQLite's errors mean, provoked rather than made up."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from storebridge_sqlite import backend

from storebridge.driver import Driver, ErrorKind, Options
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import LAYOUT, LOG, TABLES

FULL = """
import resource, signal, sqlite3, sys
from storebridge.driver import Options, Range
from storebridge.testing.samples import LAYOUT, LOG, TABLES
from storebridge_sqlite import backend

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
driver = backend.open(sys.argv[1], Options())
driver.create_tables(TABLES, LAYOUT)
body = b"x" * 5000

def write(first, entries):
    transaction = driver.begin(write=True)
    try:
        for number in range(first, first + entries):
            assert transaction.insert(LOG.name, (number,), ("w",), body)
        transaction.tally({"n": entries})
        transaction.commit()
    except sqlite3.Error as error:
        transaction.rollback()
        return driver.kind(error).value
    return "written"

def count():
    transaction = driver.begin(write=False)
    found = transaction.count(LOG.name, Range()), transaction.totals("n")["n"]
    transaction.commit()
    return found

assert write(0, 20) == "written"
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (200_000, 300_000, 500_000, 1_000_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    answers, first, acknowledged = [], 10_000_000, count()[0]
    while "full" not in answers:
        answers.append(write(first, 20))
        first += 20
        assert len(answers) < 1000
    assert set(answers) <= {"written", "full"}, answers
    expected = acknowledged + 20 * answers.count("written")
    assert count() == (expected, expected), (count(), expected)
    assert list(driver.check()) == []
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert write(first, 20) == "written"
    transaction = driver.begin(write=True)
    for number in range(10_000_000, first + 20):
        transaction.remove(LOG.name, (number,), ("w",))
    transaction.tally({"n": 20 - count()[1]})
    transaction.commit()
    assert count() == (20, 20)
driver.close()
print("usable")
"""


def test_a_full_disk_loses_nothing(path: Path) -> None:
    """Where no more can be written the transaction is FULL and gone whole, what was committed is
    there, and the driver goes on as soon as there is room.
    """
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "usable\n", done.stderr


def test_no_room_to_make_the_database(path: Path) -> None:
    """Nothing is left behind that could not be opened later."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    driver = backend.open(str(path), Options())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(sqlite3.Error) as caught:
            driver.create_tables(TABLES, LAYOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert driver.kind(caught.value) is ErrorKind.FULL
    driver.create_tables(TABLES, LAYOUT)
    with writing(driver) as transaction:
        assert transaction.insert(LOG.name, (1,), ("w",), b"{}")
    driver.close()


def test_writing_in_a_read_transaction(driver: Driver) -> None:
    with reading(driver) as transaction, pytest.raises(sqlite3.Error) as caught:
        transaction.insert(LOG.name, (1,), ("w",), b"{}")
    assert driver.kind(caught.value) is ErrorKind.READ_ONLY


def test_a_file_that_was_taken_away(driver: Driver, path: Path) -> None:
    """What is not there any more cannot be opened; it is not made anew either."""
    driver.close()
    fresh = backend.open(str(path), Options())
    fresh.close()
    opened = backend.open(str(path), Options())
    held = opened.begin(write=False)
    os.unlink(path)
    with pytest.raises(sqlite3.Error) as caught:
        opened.begin(write=False)
    assert opened.kind(caught.value) is ErrorKind.CONFIGURATION
    assert not path.exists()
    held.rollback()
    opened.close()


def test_an_ended_transaction(driver: Driver) -> None:
    """It refuses, rather than writing into someone else's."""
    transaction = driver.begin(write=True)
    transaction.commit()
    with writing(driver), pytest.raises(sqlite3.ProgrammingError):
        transaction.insert(LOG.name, (1,), ("w",), b"{}")


def test_a_failed_statement_leaves_the_transaction(driver: Driver) -> None:
    """A value that SQLite cannot hold is an error of its call alone."""
    with writing(driver) as transaction:
        assert transaction.insert(LOG.name, (1,), ("w",), b"{}")
        with pytest.raises(OverflowError):
            transaction.insert(LOG.name, (2**63,), ("w",), b"{}")
        with pytest.raises(OverflowError):
            transaction.tally({"n": 2**63})
        assert transaction.insert(LOG.name, (2,), ("w",), b"{}")
    with reading(driver) as transaction:
        assert transaction.get(LOG.name, (2,)) == b"{}"
