"""A service that is told to stop has a signal handler that raises, in the middle of anything; its
last words must still reach the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import random, signal, sys
from storebridge import Job, JobStore, open_database
from storebridge.check import check

class Stop(BaseException):
    pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGALRM, stop)
seed = int(sys.argv[2])
print("seed", seed)
chance = random.Random(seed)
database = open_database(sys.argv[1])
jobs = JobStore(database)
acknowledged = 0
for number in range(150):
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0003, 0.003))
        while True:
            jobs.create(Job())
            acknowledged += 1
    except Stop:
        pass
    assert not database.in_transaction
    jobs.create(Job(name=f"after {number}"))
    acknowledged += 1
count = jobs.count()
# A change may be committed when the handler strikes before the call has returned.
assert acknowledged <= count <= acknowledged + 150, (acknowledged, count)
assert list(check(database)) == []
database.close()
"""


@pytest.mark.parametrize("backend", ["memory", "sqlite", "lmdb", "tinydb"])
def test_writing_goes_on_after_an_interruption(backend: str, tmp_path: Path) -> None:
    """Wherever an exception out of a signal handler strikes, the next write works, nothing
    acknowledged is lost, and nothing is half done."""
    location = "memory:" if backend == "memory" else f"{backend}://{tmp_path}/x?durability=off"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, location, "11"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
