"""Processes that want the same keys and locks:
`python -m storebridge.testing.stores.keyvalues_workers`."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storebridge import KeyValueStore, StoreLockedError
from storebridge.owner import start_time
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.workers import StoreWorker, open_asked
from storebridge.testing.workers import say, wait

NAME = "races"
COUNTED = 10
"""Of so many rounds one counts up, too."""


class Racer(StoreWorker):
    """A process that runs one of the tasks below."""

    module = "storebridge.testing.stores.keyvalues_workers"


@contextmanager
def racer(harness: BackendHarness, task: str, **arguments: Any) -> Iterator[Racer]:
    started = Racer(harness, task, **arguments)
    try:
        yield started
    finally:
        started.dispose()


def race(asked: dict[str, Any]) -> None:
    """Count up, and want each of many keys and each of many locks, at once with others; say which
    were had.
    """
    store = KeyValueStore(open_asked(asked), NAME)
    say("ready")
    wait()
    rounds = range(asked["rounds"])
    for _ in rounds[::COUNTED]:
        store.increment("count")
    say([n for n in rounds if store.set_if_absent(("key", n), os.getpid())])
    wait()
    say([n for n in rounds if _had(store, n)])
    wait()  # alive until all have been asked: a lock of one that has ended is free


def _had(store: KeyValueStore, number: int) -> bool:
    try:
        store.lock(("lock", number), timeout=0).acquire()
    except StoreLockedError:
        return False
    return True


def hold(asked: dict[str, Any]) -> None:
    """Have a lock until told to go on or killed."""
    store = KeyValueStore(open_asked(asked), NAME)
    with store.lock("only") as lock:
        say([os.getpid(), lock.token])
        wait()
    store.database.close()


def enter(asked: dict[str, Any]) -> None:
    """Enter again and again where one may be at a time, and say so each time; until killed."""
    store = KeyValueStore(open_asked(asked), NAME)
    inside = Path(asked["file"])
    chance = random.Random(asked["seed"])
    token = 0
    while True:
        with store.lock("only", timeout=60) as lock:
            assert (lock.token or 0) > token
            token = lock.token or 0
            _check_alone(inside)
            inside.write_text(str(os.getpid()))
            total = store.get("total", 0)
            for _ in range(chance.randrange(200)):
                assert inside.read_text() == str(os.getpid()), "two are inside"
            store["total"] = total + 1
            inside.write_text("")
        say(total + 1)


def _check_alone(inside: Path) -> None:
    """Whoever left his name was killed inside."""
    name = inside.read_text()
    if name and start_time(int(name)) is not None:
        raise AssertionError(f"process {name} is inside, and lives")


TASKS = {"race": race, "hold": hold, "enter": enter}

if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    TASKS[told["task"]](told)
