"""Making a file shorter where it is: what the file holds, who reads meanwhile, and power cuts."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import DB, Durability
from storebridge_bolt.pybolt.check import check
from storebridge_bolt.pybolt.shrink import shrink
from storebridge_bolt.pybolt.stats import space

from tests.formats.bolt_support import (
    Model,
    Scribbler,
    base_seed,
    dump,
    go_check,
    go_dump,
    go_write,
    needs_oracle,
    quick_folder,
)
from tests.formats.simulated_disk import Crashes, RecordedDB, RecordingFile, Tape
from tests.formats.test_bolt_power_cuts import Loss, examine


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with quick_folder(tmp_path) as folder:
        yield folder


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DB]:
    with DB(tmp_path / "t.db", durability="off", page_size=1024) as db:
        yield db


def fill(db: DB, count: int = 2000) -> None:
    with db.update() as tx:
        bucket = tx.create_bucket_if_missing(b"b")
        for number in range(count):
            bucket.put(b"%06d" % number, b"x" * (number % 300))


def thin_out(db: DB, kept: int = 10, count: int = 2000) -> None:
    with db.update() as tx:
        for number in range(count):
            if number % kept:
                tx.bucket(b"b").delete(b"%06d" % number)


def live(path: Path, seed: int) -> Model:
    """Write, remove and shrink at random, sometimes between the steps; what the file then holds."""
    chance = random.Random(seed)
    path.unlink(missing_ok=True)
    size = chance.choice([1024, 4096])
    scribbler, model = Scribbler(seed, keys=3000, key_size=chance.choice([8, 200])), Model()
    with DB(path, page_size=size, durability="off", keep_freelist=seed % 3 != 0) as db:

        def between() -> None:
            if chance.random() < 0.3:
                with db.update() as tx:
                    scribbler.transaction(tx, model, 5)

        for _ in range(25):
            with db.update() as tx:
                scribbler.transaction(tx, model, chance.choice([10, 200, 800]))
            if chance.random() < 0.3:
                assert shrink(db, between)
                assert list(check(db)) == []
                assert dump(db) == list(model.lines())
    return model


@needs_oracle
def test_go_reads_and_writes_what_was_shortened(folder: Path) -> None:
    """Whatever was written and removed, of whatever size, and by others between the steps: content
    is as before, both checks pass, and Go writes on in its strictest mode.
    """
    seed = base_seed()
    path = folder / "t.db"
    for number in range(seed, seed + 8):
        model = live(path, number)
        go_check(path)
        assert go_dump(path) == list(model.lines())
        go_write(path, number)
        go_check(path)


def test_the_file_is_cut_to_its_last_page(db: DB, tmp_path: Path) -> None:
    """Nearly all free space is given back, and either meta page, should the other be damaged, names
    a state that is in the file.
    """
    fill(db)
    thin_out(db)
    before, inode = space(db), os.stat(tmp_path / "t.db").st_ino
    assert shrink(db)
    after = space(db)
    assert os.stat(tmp_path / "t.db").st_ino == inode, "a Go process may be waiting for this one"
    assert after.size < before.size - before.free * 0.8
    assert os.path.getsize(tmp_path / "t.db") == after.size
    content = dump(db)
    with db.view() as tx:
        newest = tx.id % 2
    db.close()
    with (tmp_path / "t.db").open("r+b") as file:
        file.seek(newest * 1024)
        file.write(bytes(1024))
    with DB(tmp_path / "t.db", durability="off") as older:
        assert dump(older) == content


def test_nothing_to_gain_is_no_commit(db: DB) -> None:
    fill(db)
    thin_out(db)
    shrink(db)
    with db.view() as tx:
        number = tx.id
    assert shrink(db)
    with db.view() as tx:
        assert tx.id == number


def test_the_file_is_not_cut_under_a_reader(db: DB, tmp_path: Path) -> None:
    """A reader of an older state, which may copy every page of it, keeps the file as long as that;
    after its end the rest is given back.
    """
    fill(db)
    thin_out(db)
    with db.update() as tx:  # the pages that were freed may now be used
        tx.bucket(b"b").put(b"last", b"")
    with db.view() as tx:
        before = dump(db)
        assert not shrink(db)
        assert os.path.getsize(tmp_path / "t.db") >= tx.size
        copy = io.BytesIO()
        tx.write_to(copy)
    (tmp_path / "copy.db").write_bytes(copy.getvalue())
    with DB(tmp_path / "copy.db") as copied:
        assert dump(copied) == before
    assert shrink(db)
    assert os.path.getsize(tmp_path / "t.db") == space(db).size < tx.size // 2
    assert dump(db) == before


CUT_UNDER_A_READER = """
import io, sys
from storebridge_bolt.pybolt import DB
from storebridge_bolt.pybolt.shrink import shrink
from tests.unit.bolt.test_shrink import fill, thin_out
sure = DB._cut_short
def cut(self, meta):
    readers, self._readers = self._readers, {}
    sure(self, meta)
    self._readers = readers
DB._cut_short = cut
with DB(sys.argv[1], durability="off", page_size=1024) as db:
    fill(db), thin_out(db)
    with db.update() as tx:
        tx.bucket(b"b").put(b"last", b"")
    with db.view() as tx:
        shrink(db)
        tx.write_to(io.BytesIO())
"""


def test_a_reader_dies_without_the_safeguard(tmp_path: Path) -> None:
    """Were the file cut under it, the system would end the process."""
    done = subprocess.run(
        [sys.executable, "-c", CUT_UNDER_A_READER, str(tmp_path / "t.db")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
    )
    assert done.returncode < 0, done.stderr


def cut_power(folder: Path, seed: int) -> int:
    """Shrink a recorded database, cut the power everywhere, and look; how often. Raises Loss."""
    path = folder / "live.db"
    path.unlink(missing_ok=True)
    with DB(path, durability="off", page_size=1024) as db:
        fill(db, 400)
    durability: Durability = "relaxed" if seed % 2 else "full"
    RecordingFile.tape = tape = Tape(path.read_bytes())
    with RecordedDB(path, durability=durability, keep_freelist=seed % 4 > 1) as db:
        states = [dump(db)]
        thin_out(db, 2 + seed % 9, 400)
        states.append(dump(db))
        thinned = len(tape.ops)
        shrink(db)
        shrunk = len(tape.ops)
        with db.update() as tx:
            tx.bucket(b"b").put(b"after", b"z" * 900)
        states.append(dump(db))
    tried = 0
    for done, image in Crashes(tape, seed).images(4):
        if durability == "relaxed":  # the last commit that was acknowledged may be gone
            allowed = states[:2] if done < shrunk else states[1:]
        elif done < thinned:
            allowed = states[:2]
        else:
            allowed = states[1:2] if done <= shrunk else states[1:]
        examine(folder / "crashed.db", image, allowed, f"seed {seed} op {done}")
        tried += 1
    return tried


def test_power_cuts(folder: Path) -> None:
    """Whatever a disk had by then of the moved pages, the meta pages and the shorter length, the
    content is there, and what was acknowledged before.
    """
    seed = base_seed()
    assert sum(cut_power(folder, number) for number in range(seed, seed + 8)) > 500


def finds_loss(folder: Path) -> bool:
    for seed in range(40):
        with suppress(Loss):
            cut_power(folder, seed)
            continue
        return True
    return False


def test_power_cuts_find_a_file_cut_too_soon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the state that needs no more is on the disk, the file must keep its length."""

    class Hasty(RecordedDB):
        def _cut_short(self, meta: object) -> None:
            self._durable_txid, known = sys.maxsize, self._durable_txid
            super()._cut_short(meta)  # type: ignore[arg-type]
            self._durable_txid = known

    monkeypatch.setattr("tests.unit.bolt.test_shrink.RecordedDB", Hasty)
    assert finds_loss(folder)
