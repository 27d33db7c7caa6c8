"""pybolt and Go's bbolt on files of the same content, in turns in one run; ratios printed.

Run with `pytest benchmarks/test_bolt.py -s`. Go's side is `boltoracle bench` (see `make oracle`).
A figure is the median of several turns, so that a busy machine slows both sides alike.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from storebridge_bolt.pybolt import DB

from benchmarks.record import FULL
from benchmarks.targets import judge

ORACLE = Path(__file__).resolve().parents[1] / ".oracle" / "boltoracle"
COUNT = 100_000
VALUE = bytes(100)
BUCKET = b"bench"

pytestmark = pytest.mark.skipif(
    not ORACLE.exists(), reason="the Go oracle is not built: run `make oracle` (needs Go)"
)

Side = Callable[[], float]  # seconds for one operation


def keys(count: int, *, shuffled: bool) -> list[bytes]:
    names = [b"%016d" % number for number in range(count)]
    if shuffled:
        random.Random(1).shuffle(names)
    return names


def go(name: str, path: Path, count: int) -> Side:
    def run() -> float:
        command = [str(ORACLE), "bench", "-name", name, "-count", str(count), str(path)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout) / 1e9

    return run


def rounds(benchmark: BenchmarkFixture, turn: Callable[[], None], count: int) -> list[float]:
    """Run and record `count` turns; their seconds."""
    times = []

    def timed() -> None:
        start = time.perf_counter()
        turn()
        times.append(time.perf_counter() - start)

    benchmark.pedantic(timed, rounds=count, iterations=1)  # type: ignore[no-untyped-call]
    return times


def compare(
    benchmark: BenchmarkFixture, name: str, ours: Side, theirs: Side, *, target: str, turns: int
) -> None:
    """Take turns; print and record both medians and their ratio."""
    mine, go_s = [], []

    def turn() -> None:
        mine.append(ours())
        go_s.append(theirs())

    rounds(benchmark, turn, turns)
    one, other = statistics.median(mine), statistics.median(go_s)
    ratio = one / other
    benchmark.extra_info.update(pybolt_us=one * 1e6, bbolt_us=other * 1e6, ratio=ratio)
    print(
        f"\n{name}: pybolt {one * 1e6:.2f} us, bbolt {other * 1e6:.2f} us,"
        f" {ratio:.2f}x (best {min(mine) * 1e6:.2f}/{min(go_s) * 1e6:.2f})"
    )
    judge(target, one * 1e6 if target == "bolt.scan" else ratio)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 keys with values of 100 bytes, put by Go."""
    path = tmp_path_factory.mktemp("bolt") / "filled.db"
    go("put-sequential", path, COUNT)()
    return path


def test_random_get(benchmark: BenchmarkFixture, filled: Path) -> None:
    names = keys(COUNT, shuffled=True)

    def ours() -> float:
        with DB(filled, read_only=True) as db, db.view() as tx:
            get = tx.bucket(BUCKET).get
            for name in names:  # as warm as Go's mapped pages
                get(name)
            for name in names:
                get(name)
            start = time.perf_counter()
            for name in names:
                get(name)
            return (time.perf_counter() - start) / COUNT

    compare(benchmark, "random get", ours, go("get", filled, COUNT), target="bolt.get", turns=7)


def test_scan(benchmark: BenchmarkFixture, filled: Path) -> None:
    def ours() -> float:
        with DB(filled, read_only=True) as db, db.view() as tx:
            start = time.perf_counter()
            total = sum(1 for _ in tx.bucket(BUCKET).scan())
            assert total == COUNT
            return (time.perf_counter() - start) / COUNT

    # The promise is 0.8 us a record, whatever Go, which copies nothing, takes.
    compare(benchmark, "cold scan", ours, go("scan", filled, COUNT), target="bolt.scan", turns=7)


@pytest.mark.parametrize("order", ["sequential", "random"])
def test_puts_in_one_transaction(benchmark: BenchmarkFixture, tmp_path: Path, order: str) -> None:
    names = keys(COUNT, shuffled=order == "random")
    mine, theirs = tmp_path / "mine.db", tmp_path / "theirs.db"

    def ours() -> float:
        mine.unlink(missing_ok=True)
        with DB(mine, durability="off") as db:
            start = time.perf_counter()
            with db.update() as tx:
                put = tx.create_bucket(BUCKET).put
                for name in names:
                    put(name, VALUE)
            return (time.perf_counter() - start) / COUNT

    def bbolt() -> float:
        theirs.unlink(missing_ok=True)
        return go(f"put-{order}", theirs, COUNT)()

    turns = 7 if order == "sequential" else 3 if FULL else 1  # a minute, of Go's
    compare(benchmark, f"{order} put", ours, bbolt, target=f"bolt.put.{order}", turns=turns)


def test_durable_puts(benchmark: BenchmarkFixture, filled: Path) -> None:
    """One put in each transaction, synced; both sides write to the same file in turns."""
    count = 60
    names = keys(count, shuffled=True)

    def ours() -> float:
        with DB(filled) as db:
            start = time.perf_counter()
            for name in names:
                with db.update() as tx:
                    tx.bucket(BUCKET).put(name, VALUE)
            return (time.perf_counter() - start) / count

    theirs = go("put-durable", filled, count)
    compare(benchmark, "durable put", ours, theirs, target="bolt.put.durable", turns=25)


def grown(path: Path, size: int) -> None:
    """A database of at least this many bytes, most of them values of 64 KiB."""
    with DB(path, durability="off") as db:
        number = 0
        while path.stat().st_size < size:
            with db.update() as tx:
                bucket = tx.create_bucket_if_missing(BUCKET)
                for _ in range(500):
                    bucket.put(b"%016d" % number, bytes(1 << 16))
                    number += 1


def grown_small(path: Path, records: int) -> None:
    with DB(path, durability="off") as db:
        for start in range(0, records, 100_000):
            with db.update() as tx:
                bucket = tx.create_bucket_if_missing(BUCKET)
                bucket.fill_percent = 1.0
                for number in range(start, min(start + 100_000, records)):
                    bucket.put(b"%016d" % number, VALUE)


def test_opening_a_large_file(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """1 GiB opens in under 50 ms, and without being read."""
    path = tmp_path / "large.db"
    grown(path, 1 << 30)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)

    def opened() -> None:
        with DB(path) as db, db.view() as tx:
            assert tx.bucket(BUCKET).get(b"%016d" % 5) == bytes(1 << 16)

    times = rounds(benchmark, opened, 5)
    judge("pybolt.open", max(times) * 1e3)


def test_a_sparse_update_does_not_grow_with_the_file(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    """Processor time of a commit of one put, and the bytes it writes, in files of 3 sizes."""
    rows = []

    def sweep() -> None:
        for records in (10_000, 100_000, 1_000_000):
            path = tmp_path / f"{records}.db"
            grown_small(path, records)
            rows.append((path.stat().st_size >> 20, *_sparse(path, records)))

    rounds(benchmark, sweep, 1)
    for size, seconds, written in rows:
        print(f"\n{size} MiB: {seconds * 1e6:.0f} us and {written:.0f} bytes a commit", end="")
    judge("bolt.sparse", rows[-1][1] / rows[0][1])


def _sparse(path: Path, records: int) -> tuple[float, float]:
    names = [b"%016d" % random.Random(2).randrange(records) for _ in range(300)]
    written = 0
    with DB(path, durability="off") as db:
        real = db._file.write

        def write(data: bytes, offset: int) -> None:
            nonlocal written
            written += len(data)
            real(data, offset)

        db._file.write = write  # type: ignore[method-assign]
        start = time.process_time()
        for name in names:
            with db.update() as tx:
                tx.bucket(BUCKET).put(name, VALUE)
        return (time.process_time() - start) / len(names), written / len(names)


MEMORY = """
import resource, sys
from storebridge_bolt.pybolt import DB
with DB(sys.argv[1], read_only=True, cache_bytes=4 << 20) as db, db.view() as tx:
    bucket = tx.bucket(b"bench")
    peak = []
    for number, _ in enumerate(bucket.scan()):
        if number in (1000, 900_000):
            with open("/proc/self/status") as status:
                peak.append(next(int(l.split()[1]) for l in status if l.startswith("RssAnon")))
    print(*peak)
"""


def test_memory_while_scanning(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Flat: all that a process gains, mapped file apart, is its cache."""
    path = tmp_path / "t.db"
    grown_small(path, 1_000_000)

    def measure() -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", MEMORY, str(path)]
        output = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
        early, late = output.decode().split()
        judge("bolt.scan.memory", (int(late) - int(early)) / 1024)

    rounds(benchmark, measure, 1)
