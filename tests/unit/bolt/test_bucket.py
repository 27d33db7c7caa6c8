"""Buckets: a sorted dictionary of bytes, the same before and after commit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storebridge_bolt.pybolt import (
    DB,
    BucketExistsError,
    BucketNotFoundError,
    IncompatibleValueError,
    InvalidKeyError,
    ReadOnlyError,
    TxError,
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DB]:
    with DB(tmp_path / "t.db", durability="off", page_size=1024) as db:
        yield db


def test_it_is_a_dictionary(db: DB) -> None:
    with db.update() as tx:
        bucket = tx.create_bucket(b"b")
        bucket[b"k"] = b"v"
        assert bucket[b"k"] == b"v"
        assert b"k" in bucket
        assert b"x" not in bucket
        with pytest.raises(KeyError):
            bucket[b"x"]
        with pytest.raises(KeyError):
            del bucket[b"x"]
        bucket[b"a"] = b""
        assert list(bucket) == [b"a", b"k"]
        del bucket[b"k"]
        assert bucket.get(b"k") is None
    with db.view() as tx:
        assert tx.bucket(b"b").items() == [(b"a", b"")]


def test_put_new_and_delete_tell_what_was_there(db: DB) -> None:
    with db.update() as tx:
        bucket = tx.create_bucket(b"b")
        assert bucket.put_new(b"k", b"1")
        assert not bucket.put_new(b"k", b"2")
        assert bucket[b"k"] == b"1"
        assert bucket.delete(b"k")
        assert not bucket.delete(b"k")
        assert bucket.put_new(b"k", b"3")
    with db.update() as tx:
        bucket = tx.bucket(b"b")
        assert not bucket.put_new(b"k", b"4")
        assert bucket.delete(b"k")
        assert bucket.put_new(b"k", b"5")


def test_keys_and_values_are_bytes(db: DB) -> None:
    with db.update() as tx:
        bucket = tx.create_bucket(b"b")
        for key, value in [("k", b"v"), (b"k", "v"), (b"k", None), (1, b"v")]:
            with pytest.raises(TypeError):
                bucket.put(key, value)  # type: ignore[arg-type]
        value = bytearray(b"v")
        bucket.put(memoryview(b"k"), value)  # type: ignore[arg-type]
        value[0] = 0
        assert bucket.items() == [(b"k", b"v")]
        assert type(bucket.items()[0][0]) is bytes


def test_bad_keys(db: DB) -> None:
    with db.update() as tx:
        bucket = tx.create_bucket(b"b")
        with pytest.raises(InvalidKeyError):
            bucket.put(b"", b"v")
        with pytest.raises(InvalidKeyError):
            bucket.put(b"k" * 32_769, b"v")
        with pytest.raises(InvalidKeyError):
            tx.create_bucket(b"")
        with pytest.raises(InvalidKeyError):
            tx.create_bucket(b"n" * 32_769)
        bucket.put(b"k" * 32_768, b"v")
    with db.view() as tx:
        assert tx.bucket(b"b")[b"k" * 32_768] == b"v"


@pytest.mark.parametrize("committed", [False, True])
def test_buckets_and_values_do_not_mix(db: DB, committed: bool) -> None:
    tx = db.update()
    bucket = tx.create_bucket(b"b")
    bucket.create_bucket(b"nested")
    bucket.put(b"value", b"v")
    if committed:
        tx.commit()
        tx = db.update()
        bucket = tx.bucket(b"b")
    assert bucket.get(b"nested") is None
    assert b"nested" not in bucket
    for call in (
        lambda: bucket.put(b"nested", b"v"),
        lambda: bucket.delete(b"nested"),
        lambda: bucket.create_bucket(b"value"),
    ):
        with pytest.raises(IncompatibleValueError):
            call()
    with pytest.raises(BucketExistsError):
        bucket.create_bucket(b"nested")
    for name in (b"value", b"none"):
        with pytest.raises(BucketNotFoundError):
            bucket.bucket(name)
        with pytest.raises(BucketNotFoundError):
            bucket.delete_bucket(name)
    assert not bucket.put_new(b"nested", b"v")
    assert bucket.items() == [(b"value", b"v")]
    assert list(bucket.buckets()) == [b"nested"]
    tx.rollback()


def test_nested_buckets(db: DB) -> None:
    with db.update() as tx:
        tx.create_bucket(b"a").create_bucket(b"b").create_bucket(b"c").put(b"k", b"v")
    with db.update() as tx:
        assert tx.bucket(b"a", b"b", b"c")[b"k"] == b"v"
        tx.bucket(b"a", b"b").delete_bucket(b"c")
        assert not tx.bucket(b"a", b"b").has_bucket(b"c")
        again = tx.bucket(b"a", b"b").create_bucket(b"c")
        assert again.items() == []
        again.put(b"new", b"v")
    with db.update() as tx:
        assert tx.bucket(b"a", b"b", b"c").items() == [(b"new", b"v")]
        tx.bucket(b"a").delete_bucket(b"b")
        tx.delete_bucket(b"a")
    with db.view() as tx:
        assert list(tx) == []


def test_a_deleted_bucket_refuses(db: DB) -> None:
    with db.update() as tx:
        bucket = tx.create_bucket(b"b")
        inner = bucket.create_bucket(b"inner")
        cursor = inner.cursor()
        tx.delete_bucket(b"b")
        for call in (bucket.items, inner.items, cursor.first, lambda: inner.put(b"k", b"v")):
            with pytest.raises(TxError):
                call()


def test_deep_nesting(db: DB) -> None:
    names = [b"n%d" % number for number in range(200)]
    with db.update() as tx:
        bucket = tx.create_bucket(names[0])
        for name in names[1:]:
            bucket = bucket.create_bucket(name)
        bucket.put(b"k", b"v")
    with db.view() as tx:
        assert tx.bucket(*names).get(b"k") == b"v"


def test_sequence(db: DB) -> None:
    with db.update() as tx:
        bucket = tx.create_bucket(b"b")
        assert bucket.sequence == 0
        assert [bucket.next_sequence(), bucket.next_sequence()] == [1, 2]
    with db.update() as tx:
        bucket = tx.bucket(b"b")
        assert bucket.sequence == 2
        bucket.sequence = 2**64 - 1
        with pytest.raises(ValueError):
            bucket.next_sequence()
    with db.view() as tx:
        assert tx.bucket(b"b").sequence == 2**64 - 1
        with pytest.raises(ReadOnlyError):
            tx.bucket(b"b").next_sequence()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1008, 1024, 5000, 1 << 20])
def test_values_of_all_sizes(db: DB, size: int) -> None:
    for number in range(3):
        with db.update() as tx:
            tx.create_bucket_if_missing(b"b").put(b"%d" % number, b"x" * size)
    with db.view() as tx:
        assert tx.bucket(b"b").items() == [(b"%d" % n, b"x" * size) for n in range(3)]


def test_a_read_transaction_refuses_to_write(db: DB) -> None:
    with db.update() as tx:
        tx.create_bucket(b"b").put(b"k", b"v")
    with db.view() as tx:
        bucket = tx.bucket(b"b")
        cursor = bucket.cursor()
        cursor.first()
        for call in (
            lambda: bucket.put(b"k", b"w"),
            lambda: bucket.put_new(b"x", b"w"),
            lambda: bucket.delete(b"k"),
            lambda: bucket.create_bucket(b"n"),
            lambda: tx.create_bucket(b"n"),
            lambda: tx.delete_bucket(b"b"),
            cursor.delete,
        ):
            with pytest.raises(ReadOnlyError):
                call()


def test_everything_refuses_once_the_transaction_is_over(db: DB) -> None:
    with db.update() as tx:
        bucket = tx.create_bucket(b"b")
        bucket.put(b"k", b"v")
        cursor = bucket.cursor()
        entry = cursor.first()
        scan = bucket.scan()
    assert entry == (b"k", b"v")
    for call in (
        lambda: bucket.get(b"k"),
        lambda: bucket.put(b"k", b"v"),
        lambda: bucket.delete(b"k"),
        bucket.items,
        bucket.cursor,
        cursor.next,
        cursor.first,
        lambda: next(scan),
        lambda: tx.bucket(b"b"),
        lambda: list(tx.buckets()),
        tx.commit,
    ):
        with pytest.raises(TxError):
            call()
    tx.rollback()


KEYS = st.binary(min_size=1, max_size=3)
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=300)),
        st.tuples(st.just("delete"), KEYS, st.just(b"")),
        st.tuples(st.just("commit"), st.just(b""), st.just(b"")),
        st.tuples(st.just("rollback"), st.just(b""), st.just(b"")),
    ),
    max_size=60,
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(ops=OPS, start=st.none() | KEYS, stop=st.none() | KEYS, limit=st.none() | st.integers(0, 9))
def test_ranges_agree_with_a_dictionary(
    tmp_path: Path,
    ops: list[tuple[str, bytes, bytes]],
    start: bytes | None,
    stop: bytes | None,
    limit: int | None,
) -> None:
    """In any state between commits `items`, `scan` and cursors tell the same as a dictionary."""
    path = tmp_path / "h.db"
    path.unlink(missing_ok=True)
    with DB(path, durability="off", page_size=1024) as db:
        model: dict[bytes, bytes] = {}
        safe: dict[bytes, bytes] = {}
        tx = db.update()
        bucket = tx.create_bucket(b"b")
        tx.commit()
        tx = db.update()
        bucket = tx.bucket(b"b")
        for op, key, value in ops:
            if op == "put":
                bucket.put(key, value)
                model[key] = value
            elif op == "delete":
                assert bucket.delete(key) is (model.pop(key, None) is not None)
            else:
                tx.commit() if op == "commit" else tx.rollback()
                safe, model = (dict(model), model) if op == "commit" else (safe, dict(safe))
                tx = db.update()
                bucket = tx.bucket(b"b")
        want = [
            (key, value)
            for key, value in sorted(model.items())
            if (start is None or key >= start) and (stop is None or key < stop)
        ]
        assert bucket.items(start, stop, limit=limit) == want[:limit]
        assert bucket.items(start, stop, limit=limit, reverse=True) == want[::-1][:limit]
        assert list(bucket.scan(start, stop)) == want
        assert list(bucket.scan(start, stop, reverse=True)) == want[::-1]
        assert list(bucket.cursor()) == sorted(model.items())
        tx.rollback()


def test_reading_in_pages_keeps_no_leaf(db: DB) -> None:
    """Each page ends in a leaf in which the next one begins: that alone is no reason to keep it.
    Whoever comes to one again finds it kept."""
    with db.update() as tx:
        bucket = tx.create_bucket(b"b")
        for number in range(3000):
            bucket[b"%06d" % number] = b"v" * 20

    def kept() -> int:
        return sum(len(keys) > 1 for keys, _, _ in db._cache.leaves.values())

    with db.view() as tx:
        start, found = b"", 0
        while page := tx.bucket(b"b").items(start, limit=100):
            start = page[-1][0] + b"\0"
            found += len(page)
        assert found == 3000
        assert kept() == 0
        for _ in range(2):
            tx.bucket(b"b").items(b"000500", limit=1)
            tx.bucket(b"b").items(b"002500", limit=1)
        assert kept() == 2
        for _ in range(3):
            tx.bucket(b"b").items(b"001500", limit=1)
        assert kept() == 3
