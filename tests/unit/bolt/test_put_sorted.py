"""Keys that come in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storebridge_bolt.pybolt import (
    DB,
    Bucket,
    IncompatibleValueError,
    InvalidKeyError,
    ReadOnlyError,
)
from storebridge_bolt.pybolt.check import check


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DB]:
    with DB(tmp_path / "t.db", durability="off", page_size=1024) as db:
        with db.update() as tx:
            tx.create_bucket(b"b")
        yield db


KEY = st.integers(0, 60).map(lambda number: b"%04d" % number)
PAIRS = st.dictionaries(KEY, st.binary(max_size=40), max_size=40).map(lambda d: sorted(d.items()))
STEP = st.one_of(
    st.tuples(st.just("sorted"), PAIRS),
    st.tuples(st.just("put"), st.tuples(KEY, st.binary(max_size=200))),
    st.tuples(st.just("delete"), KEY),
    st.tuples(st.just("commit"), st.none()),
)


def _lists(pairs: Any) -> tuple[list[bytes], list[bytes]]:
    return [key for key, _ in pairs], [value for _, value in pairs]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=30))
def test_as_put_for_each(db: DB, steps: list[tuple[str, object]]) -> None:
    """Whatever is there, and whatever else the transaction does."""
    with db.update() as tx:
        tx.delete_bucket(b"b")
        tx.create_bucket(b"b")
    expected: dict[bytes, bytes] = {}
    tx = db.begin(True)
    for name, given_ in steps:
        bucket: Bucket = tx.bucket(b"b")
        if name == "sorted":
            behind = not expected or not given_ or given_[0][0] > max(expected)  # type: ignore[index]
            assert bucket.put_sorted(*_lists(given_)) <= behind
            expected.update(given_)  # type: ignore[call-overload]
        elif name == "put":
            bucket.put(*given_)  # type: ignore[misc]
            expected.update([given_])  # type: ignore[list-item]
        elif name == "delete":
            bucket.delete(given_)  # type: ignore[arg-type]
            expected.pop(given_, None)  # type: ignore[call-overload]
        else:
            tx.commit()
            tx = db.begin(True)
        assert tx.bucket(b"b").items() == sorted(expected.items())
    tx.commit()
    with db.view() as view:
        assert view.bucket(b"b").items() == sorted(expected.items())
    assert list(check(db)) == []


def test_many_commits(db: DB) -> None:
    """What comes behind all that is there is taken as it is, and pages become full."""
    for start in range(0, 20_000, 1000):
        pairs = [(b"%08d" % number, b"v" * 20) for number in range(start, start + 1000)]
        with db.update() as tx:
            bucket = tx.bucket(b"b")
            assert bucket.put_sorted(*_lists(pairs[:500]))
            assert bucket.put_sorted(*_lists(pairs[500:]))
            bucket.fill_percent = 0.9
    assert list(check(db)) == []
    with db.view() as tx:
        assert [key for key, _ in tx.bucket(b"b").scan()] == [b"%08d" % n for n in range(20_000)]
        assert tx.size < 1.4 * 20_000 * (16 + 8 + 20)


def test_what_is_refused(db: DB) -> None:
    """The same as of `put`, and what came before it stays."""
    with db.update() as tx:
        bucket = tx.bucket(b"b")
        bucket.create_bucket(b"m")
        with pytest.raises(IncompatibleValueError):
            bucket.put_sorted(*_lists([(b"a", b"1"), (b"m", b"2")]))
        with pytest.raises(InvalidKeyError):
            bucket.put_sorted(*_lists([(b"", b"1")]))
        with pytest.raises(InvalidKeyError):
            bucket.put_sorted(*_lists([(b"n", b""), (b"x" * 40_000, b"1")]))
        with pytest.raises(TypeError):
            bucket.put_sorted(*_lists([(b"o", "text")]))
        assert not bucket.put_sorted(*_lists([]))
        assert not bucket.put_sorted(*_lists([(b"z", b"1"), (b"y", b"2")]))
        assert not bucket.put_sorted(*_lists([(bytearray(b"zz"), b"3")]))
    with db.view() as tx:
        bucket = tx.bucket(b"b")
        expected = [(b"a", b"1"), (b"n", b""), (b"y", b"2"), (b"z", b"1"), (b"zz", b"3")]
        assert bucket.items() == expected
        with pytest.raises(ReadOnlyError):
            bucket.put_sorted(*_lists([(b"zzz", b"")]))


def test_branches_that_are_passed_through(db: DB) -> None:
    """Whoever fills or reads a large file from end to end does not keep all of its branches in
    memory; who looks for single keys does."""
    count = 60_000
    for start in range(0, count, 5000):
        with db.update() as tx:
            bucket = tx.bucket(b"b")
            bucket.put_sorted(*_lists([(b"%050d" % n, b"") for n in range(start, start + 5000)]))
            bucket.fill_percent = 0.9
    kept = db._cache.branches
    assert len(kept) < 300
    with db.view() as tx:
        bucket = tx.bucket(b"b")
        assert sum(1 for _ in bucket.scan()) == count
        assert len(kept) < 300
        for number in range(0, count, 10):
            assert bucket.get(b"%050d" % number) == b""
        assert len(kept) > 300
        before = len(kept)
        assert sum(1 for _ in bucket.scan()) == count
        assert len(kept) == before
