"""What a backup costs those who write meanwhile: 50 durable changes a second, without a backup and
beside one, in turns. The backup is made by another process where several may have the database
open, and by a thread of the service itself on every backend.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread
from time import perf_counter, sleep

import pytest

from benchmarks.record import FULL
from storebridge import Database, Execution, ExecutionStore, open_database
from storebridge.transfer.backups import back_up

RECORDS, CHANGES, RATE = 20_000, 250 if FULL else 100, 50
_ENDLESS = """
import sys
from storebridge import open_database
from storebridge.transfer.backups import back_up
database = open_database(sys.argv[1])
while True:
    print(back_up(database, [sys.argv[2]], keep=1).held, flush=True)
"""


@contextmanager
def another_process(database: Database, folder: Path, made: list[int]) -> Iterator[None]:
    command = [sys.executable, "-c", _ENDLESS, database.location.text, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()
        made.append(process.stdout.read().count("1"))


@contextmanager
def this_process(database: Database, folder: Path, made: list[int]) -> Iterator[None]:
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            made.append(back_up(database, [folder], keep=1).held)

    thread = Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


BESIDE = [
    *((backend, another_process) for backend in ("sqlite", "lmdb")),
    *((backend, this_process) for backend in ("sqlite", "lmdb", "bolt", "tinydb")),
]


@pytest.mark.parametrize(
    ("backend", "beside"), BESIDE, ids=[f"{name}-{how.__name__}" for name, how in BESIDE]
)
def test_writers_beside_a_backup(backend: str, beside: object, tmp_path: Path) -> None:
    """Prints the writers' p50 and p99 without a backup and beside one."""
    location, folder = f"{backend}://{tmp_path}/node.x", tmp_path / "usb"
    folder.mkdir()
    alone, along = [], []
    made: list[int] = []
    with open_database(location) as database:
        executions = ExecutionStore(database)
        with database.transaction():
            ids = [executions.create(Execution(job_id="j")).id for _ in range(RECORDS)]
        for round_ in range(2):
            part = ids[round_ * 2 * CHANGES :]
            alone += _changes(executions, part[:CHANGES])
            with beside(database, folder, made):  # type: ignore[operator]
                along += _changes(executions, part[CHANGES : 2 * CHANGES])
    where = f"{backend}, {beside.__name__}"  # type: ignore[attr-defined]
    for name, times in (("without", alone), ("beside", along)):
        cuts = quantiles(times, n=100)
        print(f"\n{where}, {name} a backup: p50 {cuts[49] * 1e3:.1f} p99 {cuts[98] * 1e3:.1f} ms")
    ratio = quantiles(along, n=100)[98] / quantiles(alone, n=100)[98]
    print(f"{where}: p99 beside / without {ratio:.2f}; {sum(made)} backups made")


def _changes(executions: ExecutionStore, ids: list[str]) -> list[float]:
    times, due = [], perf_counter()
    for execution_id in ids:
        due += 1 / RATE
        sleep(max(0.0, due - perf_counter()))
        started = perf_counter()
        executions.set_state(execution_id, "Running")
        times.append(perf_counter() - started)
    return times
