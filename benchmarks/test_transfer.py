"""Migrating SQLite to LMDB, beside a loop written by hand that reads the one and writes the other,
table by table and index by index, with the same commits and without checking anything; and how much
memory it takes, however much there is to move.

STOREBRIDGE_BENCH_FULL=1 moves a million entries.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from itertools import islice
from pathlib import Path

import lmdb
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.contenders.base import SPEC
from benchmarks.race import race
from benchmarks.record import FULL
from benchmarks.targets import judge
from storebridge import Execution, ExecutionStore, open_database

EXECUTIONS = 25_000
COMMIT = 10_000
_OFFSET = 2**63
_FILTERS = ("job_id", "state", "node_id", "namespace")


def make(path: Path, executions: int) -> int:
    """A SQLite file of executions with three events each; how many entries it has."""
    with open_database(f"sqlite://{path}?durability=off") as database:
        store = ExecutionStore(database)
        for start in range(0, executions, 1000):
            with database.transaction():
                for number in range(start, min(start + 1000, executions)):
                    made = store.create(
                        Execution(
                            job_id=f"j-{number % 4000:032x}",
                            node_id=f"node-{number % 20}",
                            desired_state="Running",
                            spec=SPEC,
                        )
                    )
                    store.set_state(made.id, "BidAccepted")
                    store.set_state(made.id, "Running")
    return 4 * executions


def by_hand(source: Path, target: Path) -> None:
    """What an expert would write to move just these two tables and their indexes."""
    reader = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    writer = lmdb.open(str(target), map_size=2**34, max_dbs=32)
    space = {
        name: writer.open_db(name.encode())
        for name in ("execution", "history", "created", "modified", "sequence", *_FILTERS)
    }
    rows = reader.execute(
        "SELECT id, created_at, modified_at, job_id, state, node_id, namespace,"
        " CAST(body AS BLOB) FROM execution ORDER BY id"
    )
    while batch := list(islice(rows, COMMIT)):
        with writer.begin(write=True) as transaction:
            put = transaction.put
            for name, created, modified, job, state, node, namespace, body in batch:
                key = name.encode()
                at = f"{created + _OFFSET:x} {name}"
                put(key, body, db=space["execution"])
                put(at.encode(), key, db=space["created"])
                put(f"{modified + _OFFSET:x} {name}".encode(), key, db=space["modified"])
                put(f"{job} {at}".encode(), key, db=space["job_id"])
                put(f"{state} {at}".encode(), key, db=space["state"])
                put(f"{node} {at}".encode(), key, db=space["node_id"])
                put(f"{namespace} {at}".encode(), key, db=space["namespace"])
    rows = reader.execute(
        "SELECT record_id, sequence, CAST(body AS BLOB) FROM execution_history"
        " ORDER BY record_id, sequence"
    )
    while batch := list(islice(rows, COMMIT)):
        with writer.begin(write=True) as transaction:
            put = transaction.put
            for name, sequence, body in batch:
                number = f"{sequence + _OFFSET:x}"
                key = f"{name} {number}".encode()
                put(key, body, db=space["history"])
                put(number.encode(), key, db=space["sequence"])
    reader.close()
    writer.close()


def test_sqlite_to_lmdb(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The whole migration: check of the source, copy, and both sides read again."""
    source = tmp_path / "source.db"
    entries = make(source, EXECUTIONS)
    ours, hand = tmp_path / "ours", tmp_path / "hand"

    def prepare() -> None:
        for folder in (ours, hand):
            shutil.rmtree(folder, ignore_errors=True)

    def migrate() -> None:
        with open_database(source, read_only=True) as database:
            report = database.migrate_to(f"lmdb://{ours}")
        assert report.digest.entries == entries + 1

    race(
        benchmark,
        ours=migrate,
        theirs=lambda: by_hand(source, hand),
        operations=entries,
        rounds=5,
        target="migrate.ratio",
        prepare=prepare,
    )
    assert benchmark.stats is not None
    judge("migrate.rate", entries / float(benchmark.stats.stats.median))


@pytest.mark.parametrize("backend", ["lmdb", "bolt", "sqlite"])
def test_memory(backend: str, tmp_path: Path) -> None:
    """Ten times as much to move takes as much memory."""
    peaks = []
    for executions in (25_000, 250_000) if FULL else (2_500, 25_000):
        source, target = tmp_path / f"{executions}.db", f"{backend}://{tmp_path}/{executions}"
        entries = make(source, executions)
        done = subprocess.run(
            [sys.executable, "-c", _MIGRATE, str(source), target],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, peak, mapped = map(float, done.stdout.split())
        peaks.append(peak)
        print(
            f"\nsqlite to {backend}, {entries:,} entries: {entries / seconds:,.0f} entries/s,"
            f" {peak:.0f} MB at most, and {mapped:.0f} MB of mapped files"
        )
    if FULL:  # with fewer, batches have not grown to what they may be
        judge(f"migrate.memory.{backend}", peaks[1] / peaks[0])


# Two peaks: of the memory that belongs to the process alone, which is what has to stay flat; and of
# what it maps of files (programs, and the data of LMDB and bolt), which the system counts as the
# process's as well, but keeps for everybody, and takes back whenever it needs room.
_MIGRATE = """
import sys, threading, time
from storebridge import open_database
source, target = sys.argv[1:]
peaks = {"RssAnon": 0, "RssFile": 0}
ended = threading.Event()
def watch():
    while not ended.wait(0.005):
        with open("/proc/self/status") as status:
            for line in status:
                name, _, size = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(size.split()[0]))
watcher = threading.Thread(target=watch)
watcher.start()
began = time.perf_counter()
with open_database(source, read_only=True) as database:
    database.migrate_to(target)
seconds = time.perf_counter() - began
ended.set()
watcher.join()
print(seconds, *(size / 1024 for size in peaks.values()))
"""
