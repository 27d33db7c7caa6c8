"""Recounts that are killed while they mend: `python -m storebridge.testing.stores.recounts`."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

from storebridge import Database, Job, JobStore
from storebridge.testing.harness import BackendHarness, attack
from storebridge.testing.stores.base import StoreTests, all_rows, open_at
from storebridge.testing.stores.mending import edit_values
from storebridge.testing.stores.workers import StoreWorker, open_asked
from storebridge.testing.workers import say

COUNT, SICK = 120, 12
"""Jobs, and how many of them are given faults at a time."""


class Mender(StoreWorker):
    """A process that runs the task below."""

    module = "storebridge.testing.stores.recounts"


def mend_on(asked: dict[str, Any]) -> None:
    """Put faults in and mend them, again and again, until killed."""
    jobs = JobStore(open_asked(asked))
    turn = asked["turn"]
    while True:
        sow(jobs, turn)
        say(turn)
        jobs.database.recount(deep=turn % 3 != 0, repair=True)
        turn += 1


def sow(jobs: JobStore, turn: int) -> None:
    """Drift of the counters, index entries that are wrong, and events that are missing."""
    database = jobs.database
    with database.transaction():
        for number in range(SICK):
            name = f"{(turn * SICK + number) % COUNT:03}"
            edit_values(jobs, name, lambda v: tuple("Failed" if x == "Queued" else x for x in v))
            events = jobs.history(name)
            if len(events) > 1:
                key = (name, events[0].sequence)
                database.write(lambda unit, key=key: unit.engine.remove("job-history", key, ()))
    # Numbers are added once in a transaction, by its commit.
    database.write(lambda unit: unit.engine.tally({"job Queued": turn + 1, "job Running": 3}))


def kill_recounts(harness: BackendHarness, rounds: int) -> int:
    """Kill recounts at random moments, and have the next one finish. Returns how many were killed
    with something left to mend."""
    seed = os.environ.get("STOREBRIDGE_SEED", "1")
    print(f"again with STOREBRIDGE_SEED={seed}")  # noqa: T201 - shown with a failure
    chance = random.Random(f"recount {seed}")
    with open_at(harness) as database:
        jobs = JobStore(database)
        with database.transaction():
            for number in range(COUNT):
                jobs.create(Job(id=f"{number:03}", labels={"n": str(number)}))
                jobs.set_state(f"{number:03}", "Queued")
        bodies = all_rows(database, "job")
    turn = unfinished = 0
    for _ in range(rounds):
        durability = chance.choice(("off", "relaxed", "full"))
        worker = Mender(harness, "mend_on", turn=turn, durability=durability)
        try:
            turns = [worker.hear() for _ in range(chance.randint(1, 3))]
            time.sleep(chance.random() * 0.03)
            turns += worker.kill()
        finally:
            worker.dispose()
        turn = turns[-1] + 1
        with open_at(harness, lock_timeout=30.0) as database:
            unfinished += _finish(database, bodies)
    return unfinished


def _finish(database: Database, bodies: list[Any]) -> bool:
    """Whether there was anything left to mend; afterwards there is nothing, and no body differs."""
    jobs = JobStore(database)
    assert all_rows(database, "job") == bodies
    # Opening has set the counters by the index, be that right or wrong.
    assert database.stopped_uncleanly
    assert jobs.recount().drift == {}
    found = jobs.recount(deep=True).faults
    report = jobs.recount(deep=True, repair=True)
    assert (report.faults, report.mended) == ((), len(found))
    assert jobs.recount(deep=True).ok
    assert {state: n for state, n in jobs.counts().items() if n} == {"Queued": COUNT}
    assert all_rows(database, "job") == bodies
    assert all(jobs.history(job.id)[-1].revision == job.revision for job in jobs.each())
    return bool(found)


class KilledRecountTests(StoreTests):
    """kill -9 within a recount."""

    def test_recounts_killed_at_random(self, harness: BackendHarness) -> None:
        """A recount that is killed while it mends has changed no body, and left what the next one
        mends.
        """
        harness.require_persistent()
        kill_recounts(harness, 2 * attack())


if __name__ == "__main__":
    mend_on(json.loads(sys.argv[1]))
