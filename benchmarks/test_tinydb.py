"""One durable change of a TinyDB file of 10,000 documents, by the tinydb backend and by TinyDB
itself, in turns in one run; times, bytes written, and their ratios printed.

Ours is a whole `set_state`: the record, its event, index entries and counters. TinyDB's is an
`update` of the same record by its document id, which spares it the search, in a file that has the
records and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tinydb import TinyDB

from benchmarks.targets import judge
from storebridge import Job, JobStore, open_job_store, to_json

DOCUMENTS = 10_000
ROUNDS = 15
CHANGES = 20
"""Of ours in a round; of TinyDB's there is one."""
SPEC = to_json({"image": "debian", "command": ["sh", "-c", "exit 0"]})


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobStore]:
    path = tmp_path_factory.mktemp("ours") / "jobs.json"
    with open_job_store(f"tinydb://{path}") as jobs:
        with jobs.database.transaction():
            for number in range(DOCUMENTS):
                jobs.create(Job(id=f"job-{number:05}", spec=SPEC))
        jobs.database.driver.reclaim(lambda: None)  # type: ignore[attr-defined]
        yield jobs


@pytest.fixture(scope="module")
def theirs(ours: JobStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyDB]:
    """The same records, each a document."""
    path = ours.database.location.path
    assert path is not None
    with TinyDB(path, access_mode="r") as source:
        records = [document["body"] for document in source.table("job")]
    assert len(records) == DOCUMENTS
    with TinyDB(tmp_path_factory.mktemp("theirs") / "jobs.json") as db:
        db.insert_multiple(records)
        yield db


class Side:
    """Seconds and bytes of each change; so many of them in a turn."""

    def __init__(self, change: Callable[[], object], changes: int) -> None:
        self.change = change
        self.changes = changes
        self.seconds: list[float] = []
        self.bytes: list[int] = []

    def turn(self) -> None:
        for _ in range(self.changes):
            written, started = bytes_written(), perf_counter()
            self.change()
            self.seconds.append(perf_counter() - started)
            self.bytes.append(bytes_written() - written)


def bytes_written() -> int:
    """What this process has given the system to write, to whatever file."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["wchar"])


def test_one_durable_change(benchmark: BenchmarkFixture, ours: JobStore, theirs: TinyDB) -> None:
    """The journal of these rounds stays far from outgrowing the file: a fold is timed by itself."""
    numbers = iter(range(0, DOCUMENTS, 7))

    def our_change() -> None:
        ours.set_state(f"job-{next(numbers):05}", "Queued")

    def their_change() -> None:
        theirs.update({"state": "Queued"}, doc_ids=[next(numbers) + 1])

    mine, tiny = Side(our_change, CHANGES), Side(their_change, 1)

    def turn() -> None:
        tiny.turn()
        mine.turn()

    benchmark.pedantic(turn, rounds=ROUNDS, iterations=1)  # type: ignore[no-untyped-call]
    faster = median(tiny.seconds) / median(mine.seconds)
    fewer = median(tiny.bytes) / median(mine.bytes)
    benchmark.extra_info.update(faster=round(faster), fewer_bytes=round(fewer))
    print(
        f"\none durable change at {DOCUMENTS:,} documents:"
        f" storebridge {median(mine.seconds) * 1e6:,.0f} us, {median(mine.bytes):,.0f} bytes;"
        f" TinyDB {median(tiny.seconds) * 1e6:,.0f} us, {median(tiny.bytes):,.0f} bytes"
    )
    judge("tinydb.faster", faster)
    judge("tinydb.bytes", fewer)
    path = ours.database.location.path
    assert path is not None
    changes = path.stat().st_size / median(mine.bytes)
    fold = Side(lambda: ours.database.driver.reclaim(lambda: None), 1)  # type: ignore[attr-defined]
    fold.turn()
    print(
        f"a fold, which comes after {changes:,.0f} of them: {fold.seconds[0] * 1e3:,.0f} ms,"
        f" {fold.bytes[0]:,.0f} bytes"
    )
