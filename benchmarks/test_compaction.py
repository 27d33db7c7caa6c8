"""Restarts and space: recount beside the engine's own count, opening beside the engine's own
opening, and for how long a writer waits while a database is compacted. 100,000 executions; with
STOREBRIDGE_BENCH_FULL=1 a million."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import lmdb
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from storebridge_bolt.pybolt import DB

from benchmarks.contenders.base import SPEC
from benchmarks.race import race
from benchmarks.record import FULL
from benchmarks.targets import judge
from storebridge import (
    EXECUTION_STATES,
    Execution,
    ExecutionStore,
    Retention,
    open_database,
    open_execution_store,
)

RECORDS = 1_000_000 if FULL else 100_000
BACKENDS = ("sqlite", "lmdb", "bolt")
_BATCH = 10_000
_PAST = datetime(2026, 1, 1, tzinfo=UTC)

Alone = Callable[[Path], object]
"""What an expert does with the engine alone."""


@pytest.fixture(scope="module", params=BACKENDS)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cleanly closed store with many executions; its name is its backend's."""
    path = tmp_path_factory.mktemp("filled") / str(request.param)
    _fill(path, RECORDS)
    return path


def _fill(path: Path, count: int, states: Sequence[str] = EXECUTION_STATES.states) -> None:
    with open_execution_store(_location(path), clock=lambda: _PAST) as executions:
        for first in range(0, count, _BATCH):
            executions.create_many(
                Execution(
                    id=f"e-{number:08}",
                    job_id=f"j-{number % 4000}",
                    node_id=f"node-{number % 20}",
                    state=states[number % len(states)],
                    spec=SPEC,
                    message="accepted by the scheduler",
                )
                for number in range(first, first + _BATCH)
            )


def _location(path: Path, **options: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in ({"durability": "off"} | options).items())
    return f"{path.name}://{path}?{query}"


# --- what the engines do alone ---


# The engine is open in the process already, and some can be only once: the counts use that handle.


def _sqlite_counts(path: Path, _: Any) -> object:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT state, count(*) FROM execution GROUP BY state")
        return dict(rows.fetchall())
    finally:
        connection.close()


def _lmdb_counts(_: Path, driver: Any) -> object:
    environment: lmdb.Environment = driver._environment.native
    index = environment.open_db(b"execution-index.state", create=False)
    counts: dict[bytes, int] = {}
    with environment.begin(index) as transaction, transaction.cursor() as cursor:
        for key in cursor.iternext(values=False):
            state = key.partition(b" ")[0]
            counts[state] = counts.get(state, 0) + 1
    return counts


def _bolt_counts(_: Path, driver: Any) -> object:
    db: DB = driver._db
    counts: dict[bytes, int] = {}
    with db.view() as tx:
        for key, _value in tx.bucket(b"execution-index", b"state").scan():
            state = key.partition(b" ")[0]
            counts[state] = counts.get(state, 0) + 1
    return counts


def _environment(path: Path) -> lmdb.Environment:
    return lmdb.open(str(path), max_dbs=64, readonly=True, lock=False)


def _sqlite_open(path: Path) -> object:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT body FROM execution LIMIT 1").fetchall()
    finally:
        connection.close()


def _lmdb_open(path: Path) -> object:
    with _environment(path) as environment:
        table = environment.open_db(b"execution", create=False)
        with environment.begin(table) as transaction, transaction.cursor() as cursor:
            return cursor.first()


def _bolt_open(path: Path) -> object:
    with DB(path, read_only=True) as db, db.view() as tx:
        return tx.bucket(b"execution").items(limit=1)


COUNTS: dict[str, Callable[[Path, Any], object]] = {
    "sqlite": _sqlite_counts,
    "lmdb": _lmdb_counts,
    "bolt": _bolt_counts,
}
OPENINGS: dict[str, Alone] = {"sqlite": _sqlite_open, "lmdb": _lmdb_open, "bolt": _bolt_open}


# --- beside them ---


def test_recount(benchmark: BenchmarkFixture, filled: Path) -> None:
    """Counting all records by state, from the index."""
    with open_execution_store(_location(filled)) as executions:
        alone = COUNTS[filled.name]
        race(
            benchmark,
            ours=executions.recount,
            theirs=lambda: alone(filled, executions.database.driver),
            operations=RECORDS,
            rounds=7,
            target=f"{filled.name}.recount",
            than="the engine's own count",
        )


def test_deep_recount(benchmark: BenchmarkFixture, filled: Path) -> None:
    """Looking at every body, index entry and event, beside reading every record and event once."""
    with open_execution_store(_location(filled)) as executions:

        def bare() -> int:
            tables = ("execution", "execution-history")
            return sum(len(body) for table in tables for _, body in executions.database.rows(table))

        race(
            benchmark,
            ours=lambda: executions.recount(deep=True),
            theirs=bare,
            operations=RECORDS,
            rounds=3,
            target=f"{filled.name}.recount.deep",
            than="a bare scan",
        )


def test_opening(benchmark: BenchmarkFixture, filled: Path) -> None:
    """Opening a cleanly closed store and reading one record, beside the engine's own opening."""
    alone = OPENINGS[filled.name]

    def ours() -> None:
        with open_execution_store(_location(filled)) as executions:
            executions.find(limit=1)

    times: list[float] = []

    def before() -> None:
        started = perf_counter()
        alone(filled)
        times.append(perf_counter() - started)

    benchmark.pedantic(ours, setup=before, rounds=15, iterations=1)  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    more = float(benchmark.stats.stats.median) - sorted(times)[len(times) // 2]
    judge(f"{filled.name}.open", more * 1e3)


@pytest.mark.parametrize("deep", [False, True], ids=["counting", "deep"])
def test_memory(benchmark: BenchmarkFixture, filled: Path, deep: bool) -> None:
    """How much more memory of its own a process takes at the most while it recounts."""
    command = [sys.executable, "-c", _MEASURED, _location(filled), json.dumps(deep)]

    def measure() -> int:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    taken = benchmark.pedantic(measure, rounds=1, iterations=1)  # type: ignore[no-untyped-call]
    judge(f"{filled.name}.recount{'.deep' if deep else ''}.memory", taken / 2**20)


_MEASURED = """
import json, sys, threading, time
from storebridge import open_execution_store

def own():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

executions = open_execution_store(sys.argv[1])
executions.find(limit=1)
before = most = own()
done = threading.Event()

def watch():
    global most
    while not done.wait(0.01):
        most = max(most, own())

watcher = threading.Thread(target=watch)
watcher.start()
executions.recount(deep=json.loads(sys.argv[2]))
done.set()
watcher.join()
executions.close()
print(max(most, own()) - before)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_writers_longest_wait(benchmark: BenchmarkFixture, backend: str, tmp_path: Path) -> None:
    """A service that writes durably all the time, while nine of ten records are removed (of fewer,
    LMDB joins no pages, and there is nothing to give back) and the space is given back."""
    path = tmp_path / backend
    _fill(path, 20_000, ("Completed",) * 9 + ("Running",))
    with open_database(_location(path, durability="full", lock_timeout="60")) as database:
        executions = ExecutionStore(database)
        done, waits = threading.Event(), [0.0]

        def write() -> None:
            executions.create(Execution(id="busy", job_id="j"))
            while not done.is_set():
                started = perf_counter()
                executions.update("busy", message=f"{started}")
                waits.append(perf_counter() - started)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            report = benchmark.pedantic(  # type: ignore[no-untyped-call]
                lambda: database.compact(Retention(keep=timedelta(days=1))), rounds=1, iterations=1
            )
        finally:
            done.set()
            writer.join()
    removed = sum(pruned.records for pruned in report.pruned.values())
    print(
        f"\n{benchmark.name}: {removed:,} records, {report.before:,} to {report.after:,} bytes,"
        f" in {report.seconds:.1f} s; held for {report.longest_pause * 1000:.0f} ms at the most, a"
        f" writer waited {max(waits) * 1000:.0f} ms at the most, in {len(waits):,} changes"
        f"{'; ' + report.skipped if report.skipped else ''}"
    )
