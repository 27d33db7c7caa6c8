"""Cursors: both ways, at the edges, and while the bucket changes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import DB, Bucket, Cursor, IncompatibleValueError, TxError


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    """A bucket of several pages whose keys are even numbers, a third of them not committed."""
    with DB(tmp_path / "t.db", durability="off", page_size=1024) as db:
        with db.update() as tx:
            bucket = tx.create_bucket(b"b")
            for number in range(0, 600, 2):
                if number % 3:
                    bucket.put(b"%03d" % number, b"v" * 50)
        with db.update() as tx:
            bucket = tx.bucket(b"b")
            for number in range(0, 600, 6):
                bucket.put(b"%03d" % number, b"w")
            yield bucket


def backwards(cursor: Cursor) -> list[bytes]:
    keys = []
    entry = cursor.last()
    while entry is not None:
        keys.append(entry[0])
        entry = cursor.prev()
    return keys


def test_both_ways(bucket: Bucket) -> None:
    keys = [b"%03d" % number for number in range(0, 600, 2)]
    assert [key for key, _ in bucket.cursor()] == keys
    assert backwards(bucket.cursor()) == keys[::-1]


def test_seek(bucket: Bucket) -> None:
    cursor = bucket.cursor()
    for target, found in [(b"", b"000"), (b"100", b"100"), (b"101", b"102"), (b"5", b"500")]:
        entry = cursor.seek(target)
        assert entry is not None
        assert entry[0] == found
    assert cursor.seek(b"599") is None
    assert cursor.prev() == bucket.cursor().last()


def test_edges(bucket: Bucket) -> None:
    """Beyond an end a cursor stays there, and turns back onto the entry at that end."""
    cursor = bucket.cursor()
    assert cursor.prev() is None
    first, last = bucket.cursor().first(), bucket.cursor().last()
    assert cursor.next() == first
    assert cursor.prev() is None
    assert cursor.prev() is None
    assert cursor.next() == first
    assert cursor.last() == last
    assert cursor.next() is None
    assert cursor.next() is None
    assert cursor.prev() == last


def test_turning_anywhere(bucket: Bucket) -> None:
    keys = [b"%03d" % number for number in range(0, 600, 2)]
    rnd = random.Random(1)
    cursor = bucket.cursor()
    at = 150
    cursor.seek(keys[at])
    for _ in range(2000):
        step = rnd.choice([1, -1])
        if not 0 <= at + step < len(keys):
            continue
        at += step
        entry = cursor.next() if step == 1 else cursor.prev()
        assert entry is not None
        assert entry[0] == keys[at]


def test_deleting_on_the_way(bucket: Bucket) -> None:
    """The entry after a deleted one is the next."""
    cursor = bucket.cursor()
    for index, (_, _) in enumerate(cursor):
        if index % 2:
            cursor.delete()
    assert len(bucket.items()) == 150
    cursor.first()
    while cursor.next() is not None:
        cursor.delete()
    assert [key for key, _ in bucket.items()] == [b"000"]


def test_inserting_on_the_way(bucket: Bucket) -> None:
    """What is put behind the cursor is not met, what is put before it is."""
    cursor = bucket.cursor()
    cursor.seek(b"300")
    bucket.put(b"299", b"new")
    bucket.put(b"301", b"new")
    assert cursor.next() == (b"301", b"new")
    assert cursor.next() == (b"302", b"v" * 50)
    cursor.prev()
    cursor.prev()
    assert cursor.prev() == (b"299", b"new")


def test_buckets_have_no_value(bucket: Bucket) -> None:
    bucket.create_bucket(b"0000")
    cursor = bucket.cursor()
    cursor.first()
    assert cursor.next() == (b"0000", None)
    with pytest.raises(IncompatibleValueError):
        cursor.delete()


def test_an_empty_bucket(bucket: Bucket) -> None:
    cursor = bucket.create_bucket(b"empty").cursor()
    assert [cursor.first(), cursor.last(), cursor.next(), cursor.prev()] == [None] * 4
    assert cursor.seek(b"x") is None
    with pytest.raises(TxError):
        cursor.delete()
