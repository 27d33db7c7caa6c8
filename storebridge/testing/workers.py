"""What the suite does in other processes: `python -m storebridge.testing.workers JSON`, and the
handle by which a test starts such a process, talks with it and kills it.

A worker and its test exchange lines of JSON. Nothing of the test's process is inherited but the
import path, so that a backend that lives beside the tests is found there too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from storebridge.driver import Driver, Options
from storebridge.testing.harness import (
    BackendHarness,
    kind_of,
    load_backend,
    patience,
    writing,
)
from storebridge.testing.samples import ENTRY, LAYOUT, LOG, TABLES, body_of, entry

PATIENCE = patience(60.0)
"""Seconds after which a worker that does not end is killed, so that its test fails."""
BATCH = 5


class Worker:
    """A process that runs one of the tasks below."""

    module = "storebridge.testing.workers"

    def __init__(self, harness: BackendHarness, task: str, **arguments: Any) -> None:
        asked = {"task": task, "backend": harness.path, "target": harness.target, **arguments}
        command = [sys.executable, "-m", self.module, json.dumps(asked)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._watch = threading.Timer(PATIENCE, self.process.kill)
        self._watch.daemon = True
        self._watch.start()

    def hear(self) -> Any:
        """The worker's next message."""
        message = self._hear()
        assert message is not None, "a worker ended early: its error is in the output"
        return message

    def _hear(self) -> Any:
        """The next message; None where it has ended, be it in the middle of a line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> list[Any]:
        """Kill it, as a power switch would, and return what it still had said."""
        self.process.kill()
        return list(iter(self._hear, None))

    def finish(self) -> None:
        assert self.process.wait() == 0, "a worker failed: its error is in the output"

    def dispose(self) -> None:
        self._watch.cancel()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def worker(harness: BackendHarness, task: str, **arguments: Any) -> Iterator[Worker]:
    started = Worker(harness, task, **arguments)
    try:
        yield started
    finally:
        started.dispose()


def say(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def wait() -> None:
    sys.stdin.readline()


def open_driver(asked: dict[str, Any]) -> Driver:
    options = Options(
        durability=asked.get("durability", "off"), lock_timeout=asked.get("lock_timeout", 30.0)
    )
    driver = load_backend(asked["backend"]).open(asked["target"], options)
    driver.create_tables(TABLES, LAYOUT)
    return driver


def number(asked: dict[str, Any]) -> None:
    """Insert entries numbered by a tally, a transaction each, at once with others."""
    name = asked["name"]
    say("ready")
    wait()
    driver = open_driver(asked)
    for _ in range(asked["turns"]):
        with writing(driver) as transaction:
            drawn = transaction.tally({"sequence": 1, f"worker/{name}": 1})["sequence"]
            assert transaction.insert(LOG.name, (drawn,), (name,), b"{}"), drawn
    driver.close()


def hold(asked: dict[str, Any]) -> None:
    """Hold the writer's lock, with a change made, until told to go on or killed."""
    driver = open_driver(asked)
    transaction = driver.begin(write=True)
    write_batch(transaction, 0)
    say(os.getpid())
    wait()
    transaction.rollback()
    driver.close()


def keep_open(asked: dict[str, Any]) -> None:
    """Have the database open until told to go on."""
    driver = open_driver(asked)
    say(os.getpid())
    wait()
    driver.close()


def try_open(asked: dict[str, Any]) -> None:
    """Open while another process has it open, and say what came of it."""
    begun = time.monotonic()
    try:
        open_driver(asked).close()
    except Exception as error:
        kind = kind_of(error)
        said = {
            "kind": None if kind is None else kind.value,
            "holder": getattr(error, "holder", None),
            "message": str(error),
        }
    else:
        said = {"kind": "opened"}
    say({**said, "seconds": time.monotonic() - begun})


def batches(asked: dict[str, Any]) -> None:
    """Commit batches and acknowledge each, until killed."""
    driver = open_driver(asked)
    turn = asked["first"]
    while True:
        with writing(driver) as transaction:
            write_batch(transaction, turn)
        say(turn)
        turn += 1


def come_and_go(asked: dict[str, Any]) -> None:
    """Open, commit a batch, close and acknowledge, again and again, until killed."""
    turn = asked["first"]
    while True:
        driver = open_driver(asked)
        with writing(driver) as transaction:
            write_batch(transaction, turn)
        driver.close()
        say(turn)
        turn += 1


def write_batch(transaction: Any, turn: int) -> None:
    """Entries, index entries and a number that belong together."""
    for place in range(BATCH):
        key, values = (
            (f"{turn}-{place}",),
            entry(f"s{place}", turn, "n", place, "d", f"{turn}-{place}"),
        )
        assert transaction.insert(ENTRY.name, key, values, body_of(key, values, "x" * 500))
    transaction.tally({"entries": BATCH, "batches": 1})


TASKS = {
    "number": number,
    "hold": hold,
    "keep_open": keep_open,
    "try_open": try_open,
    "batches": batches,
    "come_and_go": come_and_go,
}


def main() -> None:
    asked = json.loads(sys.argv[1])
    TASKS[asked["task"]](asked)


if __name__ == "__main__":
    main()
