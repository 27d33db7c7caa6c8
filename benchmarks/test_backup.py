"""What a backup costs those who write meanwhile: 50 durable changes a second, without a backup and
beside one, in turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import quantiles
from time import perf_counter, sleep

import pytest

from storebridge import Execution, ExecutionStore, open_database

RECORDS, CHANGES, RATE = 20_000, 250, 50
_ENDLESS = """
import sys
from storebridge import open_database
from storebridge.transfer.backups import back_up
database = open_database(sys.argv[1])
while True:
    print(back_up(database, [sys.argv[2]], keep=1).held, flush=True)
"""


@pytest.mark.parametrize("backend", ["sqlite", "lmdb"])
def test_writers_beside_a_backup(backend: str, tmp_path: Path) -> None:
    """Prints the writers' p50 and p99 without a backup and beside one in another process."""
    location, folder = f"{backend}://{tmp_path}/node.x", tmp_path / "usb"
    folder.mkdir()
    alone, beside, made = [], [], 0
    with open_database(location) as database:
        executions = ExecutionStore(database)
        with database.transaction():
            ids = [executions.create(Execution(job_id="j")).id for _ in range(RECORDS)]
        for round_ in range(2):
            part = ids[round_ * 2 * CHANGES :]
            alone += _changes(executions, part[:CHANGES])
            command = [sys.executable, "-c", _ENDLESS, location, str(folder)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                process.stdout.readline()
                beside += _changes(executions, part[CHANGES : 2 * CHANGES])
                process.kill()
                made += process.stdout.read().count("1")
    for name, times in (("without", alone), ("beside", beside)):
        cuts = quantiles(times, n=100)
        print(f"\n{backend}, {name} a backup: p50 {cuts[49] * 1e3:.1f} p99 {cuts[98] * 1e3:.1f} ms")
    ratio = quantiles(beside, n=100)[98] / quantiles(alone, n=100)[98]
    print(f"{backend}: p99 beside / without {ratio:.2f}; {made} backups made")


def _changes(executions: ExecutionStore, ids: list[str]) -> list[float]:
    times, due = [], perf_counter()
    for execution_id in ids:
        due += 1 / RATE
        sleep(max(0.0, due - perf_counter()))
        started = perf_counter()
        executions.set_state(execution_id, "Running")
        times.append(perf_counter() - started)
    return times
