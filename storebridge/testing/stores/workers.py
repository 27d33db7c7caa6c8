"""What the store level does in other processes: `python -m storebridge.testing.stores.workers`."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from storebridge import (
    ConflictError,
    Database,
    Expect,
    Job,
    JobStore,
    NewerRecordError,
    RecordStore,
)
from storebridge.driver import Options
from storebridge.location import Location
from storebridge.opening import open_database
from storebridge.testing.harness import BackendHarness, load_backend
from storebridge.testing.stores.script import Script, perform
from storebridge.testing.stores.versions import NEW, OLD
from storebridge.testing.workers import Worker, say, wait


class StoreWorker(Worker):
    """A process that runs one of the tasks below."""

    module = "storebridge.testing.stores.workers"


@contextmanager
def store_worker(harness: BackendHarness, task: str, **arguments: Any) -> Iterator[StoreWorker]:
    started = StoreWorker(harness, task, **arguments)
    try:
        yield started
    finally:
        started.dispose()


def open_asked(asked: dict[str, Any]) -> Database:
    options = Options(
        durability=asked.get("durability", "off"), lock_timeout=asked.get("lock_timeout", 30.0)
    )
    backend = load_backend(asked["backend"])
    return open_database(Location(backend, asked["target"], options, asked["backend"]))


def tell(asked: dict[str, Any]) -> None:
    """Do what a script says, and acknowledge each transaction once its call has returned."""
    script = Script(asked["seed"])
    script.skip(asked["told"])
    jobs = JobStore(open_asked(asked))
    while True:
        perform(jobs, script.go_on())
        say(script.told)


def count_up(asked: dict[str, Any]) -> None:
    """Count up jobs that others count up, too, each time on top of the revision just read."""
    jobs = JobStore(open_asked(asked))
    say("ready")
    wait()
    for turn in range(asked["turns"]):
        job_id = f"shared-{turn % asked['jobs']}"
        while True:
            job = jobs.get(job_id)
            try:
                jobs.update(job_id, priority=job.priority + 1, expect=Expect(revision=job.revision))
                break
            except ConflictError:
                continue
    jobs.close()


def write_and_wait(asked: dict[str, Any]) -> None:
    """Create a job, say so, and stay open until told to go on or killed."""
    jobs = JobStore(open_asked(asked))
    jobs.create(Job(id=asked["job"]))
    say(os.getpid())
    wait()
    jobs.close()


def call(asked: dict[str, Any]) -> None:
    """Have tasks and threads make jobs and change them, and say of each change when it is told."""
    # Only here: the other tasks would take half as long again to start.
    import asyncio

    from storebridge import aio

    async def work() -> None:
        jobs = aio.JobStore(await aio.open_database(sync.database.location), sync)
        await asyncio.gather(*(task(jobs, number) for number in range(32)))

    async def task(jobs: aio.JobStore, number: int) -> None:
        for step in itertools.count():
            name = f"{asked['round']}-task{number}-{step}"
            tell(await jobs.create(Job(id=name)))
            tell(await jobs.update(name, priority=step))

    def thread(number: int) -> None:
        for step in itertools.count():
            name = f"{asked['round']}-thread{number}-{step}"
            tell(sync.create(Job(id=name)))
            tell(sync.update(name, priority=step))

    def tell(job: Job) -> None:
        with said:
            say([job.id, job.revision])

    sync, said = JobStore(open_asked(asked)), threading.Lock()
    for number in range(8):
        threading.Thread(target=thread, args=(number,), daemon=True).start()
    asyncio.run(work())


def hold_the_lock(asked: dict[str, Any]) -> None:
    """Be inside a transaction until told to go on or killed."""
    jobs = JobStore(open_asked(asked))
    with jobs.database.transaction():
        jobs.create(Job(id="held"))
        say(os.getpid())
        wait()
    jobs.close()


def change_old(asked: dict[str, Any]) -> None:
    """Be a service of the old version: change what it may, count what it must leave alone."""
    things = RecordStore(open_asked(asked), OLD)
    say("ready")
    wait()
    refused = 0
    for turn in range(asked["turns"]):
        try:
            things.update(str(turn % asked["things"]), kilobytes=turn)
        except NewerRecordError:
            refused += 1
        time.sleep(0.001)
    say(refused)
    things.close()


def change_new(asked: dict[str, Any]) -> None:
    """Be a service of the new version, which writes what the old one does not know."""
    things = RecordStore(open_asked(asked), NEW)
    say("ready")
    wait()
    for number in range(asked["things"]):
        things.update(str(number), note=f"note {number}")
        time.sleep(0.005)
    say("done")
    things.close()


def migrate(asked: dict[str, Any]) -> None:
    """Migrate a SQLite file here, and say of each step that it is done."""
    backend = load_backend(asked["backend"])
    target = Location(backend, asked["target"], Options(durability="off"), asked["backend"])
    with open_database(f"sqlite://{asked['source']}", read_only=True) as source:
        source.migrate_to(target, watch=lambda progress: say(progress.done))
    say("done")


TASKS = {
    "tell": tell,
    "count_up": count_up,
    "call": call,
    "write_and_wait": write_and_wait,
    "hold_the_lock": hold_the_lock,
    "change_old": change_old,
    "change_new": change_new,
    "migrate": migrate,
}

if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    TASKS[told["task"]](told)
