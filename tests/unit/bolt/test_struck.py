"""Wherever an exception out of a signal handler strikes, the next one can write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import DB

from tests.unit.strikes import Striking, strikes

FILES = ("pybolt/db.py", "pybolt/tx.py", "pybolt/batch.py")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DB]:
    with DB(tmp_path / "t.db", durability="off") as db:
        yield db


def write(db: DB, number: int) -> None:
    """In another thread, as one that has what a thread needs of its own."""

    def put() -> None:
        with db.update() as tx:
            tx.create_bucket_if_missing(b"b").put(b"%d" % number, b"")

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*unfinished")
def test_beginning_to_write(db: DB) -> None:
    """A transaction that nobody was given holds nobody up."""
    done = 0

    def act(striking: Striking) -> None:
        nonlocal done
        tx = None
        with striking():
            tx = db.begin(writable=True)
        if tx is not None:
            tx.rollback()
        done += 1
        write(db, done)

    assert strikes(FILES, act) > 10
    with db.view() as reader:
        bucket = reader.bucket(b"b")
        assert len(list(bucket.items())) == done
