"""A device's life with a fast clock, in a process of its own:
`python -m storebridge.testing.stores.agers`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from storebridge import Archiver, Database, Execution, ExecutionStore, Retention, open_database
from storebridge.driver import Options
from storebridge.location import Location
from storebridge.testing.harness import BackendHarness, load_backend
from storebridge.testing.stores.base import START, Ticks
from storebridge.testing.workers import Worker, say, wait

DAY = timedelta(days=1)
KEPT_DAYS = 7
RULE = Retention(keep=KEPT_DAYS * DAY, events_count=3)
ENDS = ("Completed", "Failed", "Cancelled")


class AgingWorker(Worker):
    """A process that runs one of the tasks below."""

    module = "storebridge.testing.stores.agers"


@contextmanager
def aging_worker(harness: BackendHarness, task: str, **arguments: Any) -> Iterator[AgingWorker]:
    started = AgingWorker(harness, task, **arguments)
    try:
        yield started
    finally:
        started.dispose()


def morning(day: int) -> datetime:
    return START + day * DAY


def is_live(number: int) -> bool:
    """One of fifty never comes to an end."""
    return number % 50 == 49


def name_of(day: int, number: int) -> str:
    return f"{day:04}-{number:04}"


def live_a_day(executions: ExecutionStore, day: int, count: int) -> None:
    """Create executions and bring them to their end, some of them unfinished."""
    for number in range(count):
        execution = executions.create(
            Execution(id=name_of(day, number), job_id=f"job-{number % 7}", message="x" * 200)
        )
        executions.set_state(execution.id, "BidAccepted")
        executions.set_state(execution.id, "Running")
        if not is_live(number):
            executions.set_state(execution.id, ENDS[number % len(ENDS)])


def kept(day: int, count: int) -> set[str]:
    """The executions that are there on the evening of a day at least, if all days were lived."""
    return {
        name_of(past, number)
        for past in range(day + 1)
        for number in range(count)
        if is_live(number) or past > day - KEPT_DAYS
    }


def open_aging(asked: dict[str, Any], clock: Ticks) -> Database:
    options = Options(durability=asked.get("durability", "off"), lock_timeout=30.0)
    backend = load_backend(asked["backend"])
    location = Location(backend, asked["target"], options, asked["backend"])
    return open_database(location, clock=clock)


def age(asked: dict[str, Any]) -> None:
    """Live day by day, compact each evening with an archive, and now and then recount; tell each
    day that is over, until killed."""
    day, count = asked["day"], asked["count"]
    clock = Ticks(start=morning(day))
    database = open_aging(asked, clock)
    database.on_compact(archive=Archiver(Path(asked["archive"])))
    executions = ExecutionStore(database)
    say("ready")
    while True:
        clock.time = morning(day)
        with database.transaction():
            live_a_day(executions, day, count)
        say(day)
        database.compact(RULE, above=0.05)
        if day % 3 == 0:
            database.recount(deep=True, repair=True)
        day += 1


def write_on(asked: dict[str, Any]) -> None:
    """Write and acknowledge, until told to stop, while another process compacts."""
    clock = Ticks(start=morning(asked["day"]))
    database = open_aging(asked, clock)
    executions = ExecutionStore(database)
    say("ready")
    wait()
    name = asked["name"]
    for number in range(asked["turns"]):
        made = executions.create(Execution(id=f"{name}-{number}", job_id="j"))
        executions.set_state(made.id, "Running")
        if number % 10 == 9:
            # Comes again, as a process does that is started for a while.
            database.close()
            database = open_aging(asked, clock)
            executions = ExecutionStore(database)
    say("done")
    wait()
    database.close()


TASKS = {"age": age, "write_on": write_on}

if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    TASKS[told["task"]](told)
