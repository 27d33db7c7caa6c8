"""Go's bbolt and pybolt write to one file in turns; each must read and accept the other's work.

`bbolt check` does not see all that Go's own writes rely on, so the judge is Go writing on in strict
mode, over all page sizes, both freelists and none, nested and inline buckets, deletes that merge.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import DB
from storebridge_bolt.pybolt.check import check

from tests.formats.bolt_support import (
    ATTACK,
    Model,
    Scribbler,
    base_seed,
    dump,
    go_check,
    go_dump,
    go_write,
    needs_oracle,
)

pytestmark = needs_oracle

PAGE_SIZES = [1024, 2048, 4096, 8192, 16384, 32768, 65536]


def take_turns(path: Path, seed: int, page_size: int, rounds: int) -> None:
    """Rounds of random transactions on both sides, compared with a model after each."""
    rnd = random.Random(seed)
    scribbler = Scribbler(seed)
    model = Model()
    for turn in range(rounds):
        keep = rnd.random() < 0.7
        with DB(path, page_size=page_size, durability="off", keep_freelist=keep) as db:
            for _ in range(rnd.randint(1, 6)):
                with db.update() as tx:
                    scribbler.transaction(tx, model, rnd.choice([3, 30, 600]))
            assert dump(db) == list(model.lines()), f"seed {seed}, turn {turn}"
        go_check(path)
        assert go_dump(path) == list(model.lines()), f"seed {seed}, turn {turn}"
        options = ["-no-freelist"] if rnd.random() < 0.3 else ["-map"] if turn % 2 else []
        go_write(path, rnd.getrandbits(40), *options)
        lines = go_dump(path)
        with DB(path, durability="off") as db:
            assert db.page_size == page_size
            assert dump(db) == lines, f"seed {seed}, turn {turn}"
        model = Model.parse(lines)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_turns(tmp_path: Path, page_size: int) -> None:
    """A few rounds at every page size."""
    take_turns(tmp_path / "t.db", base_seed(), page_size, rounds=8)


def tall_trees(path: Path, seed: int, rounds: int) -> None:
    """Trees of six levels and more, where deletes merge branches, and branches of branches."""
    rnd = random.Random(seed)
    scribbler, model = Scribbler(seed, keys=900, key_size=rnd.choice([200, 300])), Model()
    with DB(path, page_size=1024, durability="off") as db:
        with db.update() as tx:
            bucket, inside = tx.create_bucket(b"bucket-0"), model.bucket(b"bucket-0")
            for number in range(900):
                key = number.to_bytes(8, "big").ljust(scribbler.key_size, b"\0")
                bucket[key] = inside.entries[key] = b"v" * rnd.choice([5, 5, 900])
        for turn in range(rounds):
            with db.update() as tx:
                bucket = tx.bucket(b"bucket-0")
                for _ in range(rnd.randint(1, 4)):
                    for key, _ in bucket.items(scribbler.key(), limit=rnd.choice([3, 40, 300])):
                        del bucket[key], inside.entries[key]
                for _ in range(rnd.choice([0, 5, 150])):
                    key = scribbler.key()
                    bucket[key] = inside.entries[key] = b"v" * rnd.choice([5, 5, 900])
            assert dump(db) == list(model.lines()), f"seed {seed}, turn {turn}"
            assert list(check(db)) == [], f"seed {seed}, turn {turn}"


def test_tall_trees(tmp_path: Path) -> None:
    seed = base_seed()
    for number in range(8):
        path = tmp_path / f"{number}.db"
        tall_trees(path, seed + number, rounds=12)
        go_check(path)
        go_write(path, seed + number)


@pytest.mark.attack
@pytest.mark.timeout(1200)
def test_many_tall_trees(tmp_path: Path) -> None:
    seed = base_seed()
    for number in range(300):
        path = tmp_path / "t.db"
        path.unlink(missing_ok=True)
        tall_trees(path, seed + number, rounds=20)
        go_check(path)
        go_write(path, seed + number)


@pytest.mark.attack
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_many_turns(tmp_path: Path, page_size: int) -> None:
    """Thousands of transactions on both sides."""
    take_turns(tmp_path / "t.db", base_seed(), page_size, rounds=250 if ATTACK else 60)


@pytest.mark.parametrize("keep_freelist", [True, False])
def test_a_freelist_too_long_for_its_counter(tmp_path: Path, keep_freelist: bool) -> None:
    """70,000 free pages: the count moves into the first entry, and Go reads that and writes on."""
    path = tmp_path / "t.db"
    model = Model()
    with DB(path, page_size=1024, durability="off", keep_freelist=keep_freelist) as db:
        with db.update() as tx:
            bucket, inside = tx.create_bucket(b"bucket-0"), model.bucket(b"bucket-0")
            for number in range(70_100):
                bucket.put(b"k%06d" % number, b"v" * 900)
        with db.update() as tx:
            bucket = tx.bucket(b"bucket-0")
            for number in range(100, 70_100):
                bucket.delete(b"k%06d" % number)
        inside.entries.update((b"k%06d" % number, b"v" * 900) for number in range(100))
        scribbler = Scribbler(base_seed())
        for _ in range(4):
            with db.update() as tx:
                scribbler.transaction(tx, model, 50)
        assert db._freelist is not None
        assert len(db._freelist) > 68_000
    go_check(path)
    assert go_dump(path) == list(model.lines())
    go_write(path, 7, "-rounds", 2)
    lines = go_dump(path)
    with DB(path, durability="off") as db:
        assert dump(db) == lines
        model = Model.parse(lines)
        with db.update() as tx:
            scribbler.transaction(tx, model, 300)
    go_check(path)
    assert go_dump(path) == list(model.lines())
