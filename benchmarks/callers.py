"""One side of `test_callers`, as a program, so that `strace` can make its disk slow: changes the
state of as many executions as it is told, in random order, and prints the seconds that took and the
99th percentile of what a caller waited."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from time import perf_counter

from benchmarks.by_hand import SqliteByHand
from storebridge import EXECUTION_STATES, Execution, aio, open_execution_store

CALLERS = 64
ALLOWED = frozenset(s for s, then in EXECUTION_STATES.transitions.items() if "Running" in then)


def shuffled(count: int) -> list[str]:
    """The same ids in the same order for everybody."""
    ids = [f"e-{number:06}" for number in range(count)]
    random.Random(5).shuffle(ids)
    return ids


def together(backend: str, folder: Path, count: int) -> tuple[float, list[float]]:
    """64 asyncio callers of ours."""
    return asyncio.run(_together(backend, folder, count))


async def _together(backend: str, folder: Path, count: int) -> tuple[float, list[float]]:
    location = f"{backend}://{folder}/node"
    fill(location, count)
    waits: list[float] = []
    ids = shuffled(count)
    async with await aio.open_execution_store(location) as executions:

        async def caller(mine: list[str]) -> None:
            for execution_id in mine:
                asked = perf_counter()
                await executions.set_state(execution_id, "Running")
                waits.append(perf_counter() - asked)

        started = perf_counter()
        await asyncio.gather(*(caller(ids[n::CALLERS]) for n in range(CALLERS)))
        return perf_counter() - started, waits


def one_by_one(backend: str, folder: Path, count: int) -> tuple[float, list[float]]:
    """Ours, one caller and one commit for each."""
    location = f"{backend}://{folder}/node"
    fill(location, count)
    with open_execution_store(location) as executions:
        return timed(lambda each: executions.set_state(each, "Running"), shuffled(count))


def by_hand(batch: int, folder: Path, count: int) -> tuple[float, list[float]]:
    """Hand-written sqlite3 that commits every `batch` changes."""
    store = SqliteByHand(folder / "hand.db", "FULL")
    executions = {each: Execution(job_id="j", node_id="n") for each in shuffled(count)}
    store.begin()
    for each in sorted(executions):
        store.create(executions[each])
    store.commit()
    ids, started = [execution.id for execution in executions.values()], perf_counter()
    for start in range(0, count, batch):
        store.begin()
        for each in ids[start : start + batch]:
            store.set_state(each, "Running", ALLOWED)
        store.commit()
    took = perf_counter() - started
    store.close()
    return took, [took / count]


def apscheduler(folder: Path, count: int) -> tuple[float, list[float]]:
    """`update_job` of APScheduler's SQLAlchemyJobStore, each a commit. As it comes: SQLite's own
    defaults, a rollback journal that is synced in full, are as durable."""
    from apscheduler.job import Job
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    store = SQLAlchemyJobStore(url=f"sqlite:///{folder}/aps.db")
    scheduler = BackgroundScheduler(jobstores={"default": store})
    scheduler.start(paused=True)
    ids = shuffled(count)
    for each in ids:
        scheduler.add_job(os.getpid, "interval", hours=1, id=each)
    jobs: dict[str, Job] = {job.id: job for job in scheduler.get_jobs()}

    def update(each: str) -> None:
        jobs[each]._modify(name="Running")
        store.update_job(jobs[each])

    result = timed(update, ids)
    scheduler.shutdown()
    return result


def timed(change: Callable[[str], object], ids: list[str]) -> tuple[float, list[float]]:
    """Change each; how long all took, and each."""
    waits, started = [], perf_counter()
    for each in ids:
        asked = perf_counter()
        change(each)
        waits.append(perf_counter() - asked)
    return perf_counter() - started, waits


def fill(location: str, count: int) -> None:
    with open_execution_store(location) as executions, executions.database.transaction():
        for number in range(count):
            executions.create(Execution(id=f"e-{number:06}", job_id="j", node_id="n"))


def main() -> None:
    side, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    name, _, rest = side.partition(":")
    sides: dict[str, Callable[[], tuple[float, list[float]]]] = {
        "together": lambda: together(rest, folder, count),
        "one-by-one": lambda: one_by_one(rest, folder, count),
        "by-hand": lambda: by_hand(int(rest), folder, count),
        "apscheduler": lambda: apscheduler(folder, count),
    }
    seconds, waits = sides[name]()
    p99 = quantiles(waits, n=100)[98] if len(waits) > 1 else waits[0]
    print(seconds, p99)


if __name__ == "__main__":
    main()
