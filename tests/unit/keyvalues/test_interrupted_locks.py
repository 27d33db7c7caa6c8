"""A signal handler that raises, in the middle of taking or giving back a lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import random, signal, sys
from storebridge import KeyValueStore, open_database

class Stop(BaseException):
    pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGALRM, stop)
chance = random.Random(int(sys.argv[2]))
with open_database(sys.argv[1]) as database:
    store = KeyValueStore(database, "gpio")
    taken = 0
    for number in range(200):
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.002))
            # Not without end: Python drops an exception that strikes in a `__del__`.
            for _ in range(500):
                with store.lock("pin", timeout=0):
                    taken += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Stop:
            pass
        left = list(store.locks())
        assert left == [], (number, left)
        with store.lock("pin", timeout=0):
            pass
    assert taken > 10, taken
    print(taken)
"""


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_an_interruption_leaves_no_lock(backend: str, tmp_path: Path) -> None:
    """Wherever an exception out of a signal handler strikes, a lock that `with` took is given back:
    it is never left held by a process that lives on and knows nothing of it.
    """
    location = "memory:" if backend == "memory" else f"{backend}://{tmp_path}/x?durability=off"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, location, "7"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
