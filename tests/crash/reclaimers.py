"""Processes that write, remove and reclaim until they are killed, and others beside them:
`python -m tests.crash.reclaimers JSON`.

What a process does is told by the number of what it did: so its test knows, from the last number
that it acknowledged, what must be there.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storebridge.driver import (
    Compactor,
    Driver,
    DriverError,
    ErrorKind,
    Options,
    Range,
    Transaction,
)
from storebridge.testing.contract.reclaiming import content_of, fill, thin_out
from storebridge.testing.harness import BackendHarness, load_backend, reading, writing
from storebridge.testing.samples import ENTRY, LAYOUT, TABLES, body_of, entry, values_of
from storebridge.testing.workers import Worker, open_driver, say

WRITTEN, REMOVED = 24, 7
"""Groups that a cycle writes, and how often it then removes three of them."""
CYCLE = WRITTEN + REMOVED
PLACES = 6
SIZE = 900


class Reclaimer(Worker):
    """A process that runs one of the tasks below."""

    module = "tests.crash.reclaimers"


@contextmanager
def reclaimer(harness: BackendHarness, task: str, **arguments: Any) -> Iterator[Reclaimer]:
    started = Reclaimer(harness, task, **arguments)
    try:
        yield started
    finally:
        started.dispose()


def groups(name: str, steps: int) -> set[str]:
    """The groups of entries that are there after so many steps of a process of this name."""
    there = set()
    for cycle in range(steps // CYCLE + 1):
        done = min(steps - cycle * CYCLE, CYCLE)
        first_kept = 3 * max(0, done - WRITTEN)
        there |= {f"{name}.{cycle}.{number}" for number in range(first_kept, min(done, WRITTEN))}
    return there


def entries(group: str) -> Iterator[tuple[Any, Any, bytes]]:
    """The entries of a group: key, values, body."""
    number = sum(map(ord, group))
    for place in range(PLACES):
        key = (f"{group}.{place}",)
        values = entry(f"s{place}", number, "n", place, "d", key[0])
        yield key, values, body_of(key, values, "x" * (number * (place + 1) % SIZE))


def step(driver: Driver, name: str, number: int) -> None:
    """The step of this number, in one transaction, which counts it."""
    cycle, place = divmod(number, CYCLE)
    with writing(driver) as transaction:
        if place < WRITTEN:
            for key, values, body in entries(f"{name}.{cycle}.{place}"):
                assert transaction.insert(ENTRY.name, key, values, body)
        else:
            first = 3 * (place - WRITTEN)
            for group in range(first, first + 3):
                _remove(transaction, f"{name}.{cycle}.{group}")
        transaction.tally({f"steps/{name}": 1})


def _remove(transaction: Transaction, group: str) -> None:
    for key, values, _ in entries(group):
        transaction.remove(ENTRY.name, key, values)


def live(asked: dict[str, Any]) -> None:
    """Take steps and acknowledge each by its number, until killed. With `reclaims`, reclaim after
    each cycle, and go on with the next one in its breaths; this is told by words before and after.
    `pause`: seconds after each step, in which others find nothing changed.
    """
    sabotage(asked.get("sabotage", ""))
    driver, name, number = open_driver(asked), asked["name"], asked["first"]

    def take_step() -> None:
        nonlocal number
        step(driver, name, number)
        say(number)
        number += 1

    while True:
        take_step()
        time.sleep(asked.get("pause", 0))
        if asked.get("reclaims") and number % CYCLE == 0:
            assert isinstance(driver, Compactor)
            say("reclaiming")
            say(driver.reclaim(take_step).skipped or "reclaimed")


def come_and_go(asked: dict[str, Any]) -> None:
    """Open, look at everything, hold it open for a moment and close, for writing and for reading in
    turns, until told to stop.
    """
    turns = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            _look_in(asked, read_only=turns % 2 == 1)
        except DriverError as error:
            if error.kind is not ErrorKind.CONFLICT:  # a reader without locks may have to try again
                raise
        turns += 1
        if turns == 1:
            say("came")


def _look_in(asked: dict[str, Any], read_only: bool) -> None:
    options = Options(read_only=read_only, durability="off", lock_timeout=30.0)
    driver = load_backend(asked["backend"]).open(asked["target"], options)
    try:
        driver.create_tables(TABLES, LAYOUT)
        with reading(driver) as transaction:
            for name, number in transaction.totals("steps/").items():
                for group in groups(name.removeprefix("steps/"), number):
                    for key, values, body in entries(group):
                        assert transaction.get(ENTRY.name, key) == body, key
                        assert values_of(key, body) == values
    finally:
        driver.close()


def on_a_full_disk(asked: dict[str, Any]) -> None:
    """Reclaim while the disk below, a small one, is full to the last byte, and when it no longer
    is; say what came of both, and whether anything had been touched where it was refused.
    """
    driver = open_driver(asked)
    assert isinstance(driver, Compactor)
    content = thin_out(driver, fill(driver))
    folder = Path(asked["target"]).parent
    before = driver.usage().size
    ballast = folder.parent / "ballast"
    _fill_up(ballast)
    untouched = _files(folder)
    try:
        driver.reclaim(lambda: None)
        said = "reclaimed"
    except DriverError as error:
        said = error.kind.value
        assert _files(folder) == untouched
    with reading(driver) as transaction:
        assert dict(transaction.scan(ENTRY.name, Range(limit=10**6))[0]) == content
    ballast.unlink()
    assert driver.reclaim(lambda: None).skipped is None
    assert driver.usage().size < before // 2
    assert content_of(driver) == content
    driver.close()
    say(said)


def _fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def found(driver: Driver, name: str) -> int:
    """How many steps of a process of this name were done; exactly what they made must be there."""
    content = content_of(driver)
    with reading(driver) as transaction:
        done = transaction.totals("steps/").get(f"steps/{name}", 0)
    expected = {key: body for group in groups(name, done) for key, _, body in entries(group)}
    ours = {key: body for key, body in content.items() if str(key[0]).startswith(f"{name}.")}
    if ours != expected:
        raise Loss(f"after {done} steps of {name}: {len(ours)} entries, not {len(expected)}")
    return done


class Loss(AssertionError):
    """Something that was acknowledged is not there, or something else is."""


def sabotage(what: str) -> None:
    """Take safeguards away, to show that the attack would notice."""
    if what == "lmdb: nobody is looked for":
        from storebridge_lmdb import environment
        from storebridge_lmdb.presence import Presence

        Presence.is_alone = lambda self: True  # type: ignore[method-assign]
        environment._lock_alone = lambda lock: True
    elif what == "lmdb: nothing is synced":
        os.fsync = lambda fd: None
    elif what == "sqlite: a copy is put in the file's place":
        from storebridge_sqlite import reclaiming

        reclaiming._vacuum_by_steps = _replace_file


def _replace_file(free: int, alone: Any, breathe: Any) -> None:
    with alone() as writer:
        path = Path(writer.execute("PRAGMA database_list").fetchall()[0][2])
        copy = path.with_name("copy")
        writer.execute(f"VACUUM INTO '{copy}'")
        os.replace(copy, path)


TASKS = {"live": live, "come_and_go": come_and_go, "on_a_full_disk": on_a_full_disk}


def main() -> None:
    asked = json.loads(sys.argv[1])
    TASKS[asked["task"]](asked)


if __name__ == "__main__":
    main()
