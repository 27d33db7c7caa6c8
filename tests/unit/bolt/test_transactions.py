"""Snapshots, threads, failing disks, batches and copies."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from storebridge_bolt.pybolt import DB, CorruptError, DatabaseFailedError, Tx, TxError
from storebridge_bolt.pybolt.check import check
from storebridge_bolt.pybolt.compact import compact
from storebridge_bolt.pybolt.datafile import DataFile


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DB]:
    with DB(tmp_path / "t.db", durability="off", page_size=1024) as db:
        yield db


def write(db: DB, number: int, count: int = 200) -> None:
    """Make all values of a bucket this number."""
    with db.update() as tx:
        bucket = tx.create_bucket_if_missing(b"b")
        for key in range(count):
            bucket.put(b"%04d" % key, b"%08d" % number)


def read(tx: Tx) -> set[bytes]:
    return {value for _, value in tx.bucket(b"b").items()}


def test_a_reader_sees_its_snapshot(db: DB) -> None:
    """Whatever is committed meanwhile, growth of the file included."""
    write(db, 0)
    readers = []
    for number in range(1, 40):
        readers.append((number - 1, db.view()))
        write(db, number, count=200 + number * 10)
    for number, tx in readers:
        assert read(tx) == {b"%08d" % number}
        assert tx.id == number + 2
        tx.rollback()
    with db.view() as tx:
        assert len(tx.bucket(b"b").items()) == 590


def test_a_reader_loses_its_snapshot_without_the_safeguard(
    db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were pages handed out while somebody reads them, the test above would notice."""
    monkeypatch.setattr(DB, "_last_unneeded", lambda self, readers: self._state.meta.txid)
    write(db, 0)
    tx = db.view()
    for number in range(1, 10):
        write(db, number)
    try:
        found = read(tx)
    except CorruptError:
        found = set()
    assert found != {b"%08d" % 0}
    tx.rollback()


def test_pages_are_used_again_once_readers_are_gone(db: DB) -> None:
    write(db, 0)
    for number in range(50):
        write(db, number)
    assert os.path.getsize(db.path) <= 64 << 10


def test_readers_and_a_writer_in_threads(db: DB) -> None:
    """Every reader sees one commit's work, whole."""
    write(db, 0)
    done = threading.Event()
    problems: list[object] = []

    def look() -> None:
        while not done.is_set():
            with db.view() as tx:
                seen = read(tx)
                if len(seen) != 1 or len(tx.bucket(b"b").items()) != 200:
                    problems.append(seen)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(60):
            write(db, number)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not problems
    assert list(check(db)) == []


def test_writers_take_turns(db: DB) -> None:
    with db.update() as tx:
        tx.create_bucket(b"b").put(b"n", b"0")

    def add() -> None:
        for _ in range(50):
            with db.update() as tx:
                bucket = tx.bucket(b"b")
                bucket.put(b"n", b"%d" % (int(bucket[b"n"]) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.view() as tx:
        assert tx.bucket(b"b")[b"n"] == b"200"


def test_a_commit_without_changes_writes_nothing(db: DB) -> None:
    write(db, 0)
    before = Path(db.path).read_bytes()
    with db.update() as tx:
        tx.bucket(b"b").items()
    assert Path(db.path).read_bytes() == before


def change_and_fail(tx: Tx) -> None:
    tx.bucket(b"b").put(b"x", b"v")
    raise KeyError


def test_rollback_and_exceptions_keep_nothing(db: DB) -> None:
    write(db, 0)
    tx = db.update()
    tx.bucket(b"b").put(b"x", b"v")
    tx.delete_bucket(b"b")
    tx.rollback()
    with pytest.raises(KeyError), db.update() as tx:
        change_and_fail(tx)
    with db.view() as tx:
        assert read(tx) == {b"%08d" % 0}
        with pytest.raises(TxError):
            tx.commit()


# Failing disks


class FailingFile(DataFile):
    """A data file whose n-th change fails."""

    countdown: ClassVar[int] = -1
    broken: ClassVar[bool] = False

    def _tick(self) -> None:
        cls = type(self)
        cls.countdown -= 1
        if cls.countdown == 0 or (cls.broken and cls.countdown < 0):
            raise OSError(errno.ENOSPC, "no space left on device")

    def write(self, data: bytes, offset: int) -> None:
        if self.countdown == 1:
            super().write(data[: len(data) // 2], offset)  # a part arrives
        self._tick()
        super().write(data, offset)

    def truncate(self, size: int) -> None:
        self._tick()
        super().truncate(size)

    def sync_data(self) -> None:
        self._tick()

    def sync(self) -> None:
        self._tick()


class FailingDB(DB):
    file_class = FailingFile


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_failed_commit_keeps_nothing_and_the_database_goes_on(
    tmp_path: Path, durability: str
) -> None:
    """Whichever write, truncate or sync fails."""
    failures = 0
    for step in range(1, 12):
        path = tmp_path / f"{step}.db"
        FailingFile.countdown, FailingFile.broken = -1, False
        with FailingDB(path, page_size=1024, durability=durability) as db:  # type: ignore[arg-type]
            write(db, 1)
            size = path.stat().st_size
            FailingFile.countdown = step
            with suppress(OSError):
                write(db, 2, count=900)
                FailingFile.countdown = -1
                continue  # a commit has fewer steps
            failures += 1
            assert path.stat().st_size == size
            with db.view() as tx:
                assert read(tx) == {b"%08d" % 1}
            FailingFile.countdown = -1
            write(db, 3, count=900)
            assert list(check(db)) == []
        with DB(path) as db, db.view() as tx:
            assert read(tx) == {b"%08d" % 3}
    assert failures >= 5


class InterruptedFile(DataFile):
    """A data file at whose n-th sync the user presses Ctrl-C."""

    countdown: ClassVar[int] = -1

    def sync_data(self) -> None:
        super().sync_data()
        cls = type(self)
        cls.countdown -= 1
        if cls.countdown == 0:
            raise KeyboardInterrupt


class InterruptedDB(DB):
    file_class = InterruptedFile


@pytest.mark.parametrize("sync", [1, 2])
def test_an_interrupted_commit_keeps_nothing(tmp_path: Path, sync: int) -> None:
    path = tmp_path / "t.db"
    with InterruptedDB(path, page_size=1024) as db:
        write(db, 1)
        InterruptedFile.countdown = sync
        with pytest.raises(KeyboardInterrupt):
            write(db, 2)
        (tmp_path / "copy.db").write_bytes(path.read_bytes())
        for number in (3, 4):
            write(db, number)
        assert list(check(db)) == []
    with DB(tmp_path / "copy.db") as db, db.view() as tx:
        assert read(tx) == {b"%08d" % 1}


def test_a_commit_that_cannot_be_undone(tmp_path: Path) -> None:
    """Where not even the old meta page can be put back, writing is refused until the next open."""
    path = tmp_path / "t.db"
    FailingFile.countdown, FailingFile.broken = -1, False
    with FailingDB(path, page_size=1024) as db:
        write(db, 1)
        write(db, 2)
        FailingFile.countdown, FailingFile.broken = 4, True  # past pages and sync: at the meta
        for _ in range(20):
            try:
                write(db, 3)
            except DatabaseFailedError:
                break
            except OSError:
                FailingFile.countdown += 1
        else:
            pytest.fail("never reached the meta page")
        FailingFile.countdown, FailingFile.broken = -1, False
        with pytest.raises(DatabaseFailedError):
            db.update()
        with db.view() as tx:
            assert read(tx) == {b"%08d" % 2}
    with DB(path) as db:
        assert list(check(db)) == []
        write(db, 4)


# Batches


def test_a_batch_shares_commits(db: DB) -> None:
    with db.update() as tx:
        tx.create_bucket(b"b")
    start = threading.Barrier(20)
    results: list[int] = []

    def add(number: int) -> None:
        def put(tx: Tx) -> int:
            tx.bucket(b"b").put(b"%d" % number, b"v")
            return number

        start.wait()
        results.append(db.batch(put))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(20))
    with db.view() as tx:
        assert len(tx.bucket(b"b").items()) == 20
        assert tx.id <= 22


def test_a_failing_function_in_a_batch_hurts_itself_only(db: DB) -> None:
    with db.update() as tx:
        tx.create_bucket(b"b")
    start = threading.Barrier(8)
    failed: list[str] = []

    def run(number: int) -> None:
        def put(tx: Tx) -> None:
            tx.bucket(b"b").put(b"%d" % number, b"v")
            if number % 2:
                raise RuntimeError(str(number))

        start.wait()
        try:
            db.batch(put)
        except RuntimeError as problem:
            failed.append(str(problem))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failed) == ["1", "3", "5", "7"]
    with db.view() as tx:
        assert list(tx.bucket(b"b")) == [b"0", b"2", b"4", b"6"]


# Copies


def test_a_copy_of_a_live_file(db: DB, tmp_path: Path) -> None:
    """It holds the transaction's state, whatever is committed while it is made."""
    write(db, 1)
    with db.view() as tx:
        write(db, 2)
        tx.copy_to(tmp_path / "copy.db")
        with pytest.raises(FileExistsError):
            tx.copy_to(tmp_path / "copy.db")
        stream = io.BytesIO()
        assert tx.write_to(stream) == len(stream.getvalue()) == tx.size
    assert (tmp_path / "copy.db").read_bytes() == stream.getvalue()
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    with DB(tmp_path / "copy.db", durability="off") as copy:
        assert list(check(copy)) == []
        with copy.view() as tx:
            assert read(tx) == {b"%08d" % 1}
        write(copy, 3)
        assert list(check(copy)) == []


def test_compact(db: DB, tmp_path: Path) -> None:
    for number in range(5):
        write(db, number, count=2000)
    with db.update() as tx:
        bucket = tx.bucket(b"b")
        bucket.sequence = 7
        for key in list(bucket)[100:]:
            bucket.delete(key)
        tx.create_bucket(b"c").create_bucket(b"d").sequence = 8
    size = compact(db, tmp_path / "small.db", tx_max_size=1000)
    assert size == (tmp_path / "small.db").stat().st_size < os.path.getsize(db.path) / 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.db", "t.db"]
    with DB(tmp_path / "small.db") as small, small.view() as tx, db.view() as old:
        assert tx.bucket(b"b").items() == old.bucket(b"b").items()
        assert tx.bucket(b"b").sequence == 7
        assert tx.bucket(b"c", b"d").sequence == 8
        assert list(check(small)) == []
    with pytest.raises(FileExistsError):
        compact(db, tmp_path / "small.db")
