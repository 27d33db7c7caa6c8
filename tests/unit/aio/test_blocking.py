"""With 10,000 records in the store, no call keeps the event loop from its other tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pytest

from storebridge import Job, JobStore, StateChange, aio, open_database, this_process
from storebridge.check import check

RECORDS = 10_000
LONGEST = 0.02
TRIES = 8
"""Python's own search for garbage stops everything now and then, too, but not in each of so many
tries."""
BACKENDS = ("memory", "sqlite", "lmdb", "bolt", "tinydb", "postgresql")


@pytest.fixture(params=BACKENDS)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory:{tmp_path.name}"
    if request.param == "postgresql":
        target: str = request.getfixturevalue("postgresql").target()
        return target
    return f"{request.param}://{tmp_path}/node"


class Pulse:
    """A task that wants to run each millisecond, and knows how long it was kept from it at the
    most. Only as long counts as this process was busy meanwhile: what others do to the machine is
    not the call's fault."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Pulse:
        self._task = asyncio.ensure_future(self._beat())
        await asyncio.sleep(0.01)
        self.longest = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.005)
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            asked, used = perf_counter(), process_time()
            await asyncio.sleep(0.001)
            waited = perf_counter() - asked - 0.001
            self.longest = max(self.longest, min(waited, process_time() - used))


def test_what_blocks_is_noticed() -> None:
    """The pulse itself: work in the loop."""

    async def work() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    async def call() -> None:
        assert await longest_wait(work) > LONGEST

    asyncio.run(call())


async def longest_wait(call: Callable[[], Awaitable[Any]]) -> float:
    """How long others waited while a call was made: the least of some tries."""
    least = 1.0
    for _ in range(TRIES):
        async with Pulse() as pulse:
            await call()
        least = min(least, pulse.longest)
        if least < LONGEST:
            break
    return least


async def read_all(records: AsyncIterator[Any], most: int = RECORDS) -> None:
    count = 0
    async for _ in records:
        count += 1
        if count == most:
            break
    await records.aclose()  # type: ignore[attr-defined]


def calls(jobs: aio.JobStore) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every kind of call, by its name."""
    database, me, lease = jobs.database, this_process("n"), timedelta(seconds=60)
    sync = database.sync

    def many() -> None:
        for number in range(200):
            jobs.sync.update(f"j-{number:05}", priority=number)

    async def work_for_many() -> None:
        await asyncio.gather(
            *(jobs.create(Job()) for _ in range(64)),
            *(jobs.get(f"j-{number:05}") for number in range(64)),
            *(jobs.update(f"j-{number:05}", message="x") for number in range(64)),
        )

    return {
        "create": lambda: jobs.create(Job()),
        "create_many": lambda: jobs.create_many([Job() for _ in range(500)]),
        "update": lambda: jobs.update("j-00001", message="x"),
        "set_state_many": lambda: jobs.set_state_many(
            [StateChange(f"j-{number:05}", "Queued") for number in range(500)]
        ),
        "claim": lambda: jobs.claim(50, owner=me, lease=lease),
        "run": lambda: database.run(many),
        "get": lambda: jobs.get("j-00001"),
        "find": lambda: jobs.find(limit=1000),
        "find by labels": lambda: jobs.find(labels="n!=3", limit=1000),
        "each": lambda: read_all(jobs.each()),
        "live": lambda: read_all(jobs.live()),
        "count": lambda: jobs.count(labels="n!=3"),
        "counts": lambda: jobs.counts(),
        "history": lambda: jobs.history("j-00001"),
        "resolve": lambda: jobs.resolve("j-00001"),
        "watch": lambda: read_all(jobs.watch(after=0)),
        "recover": lambda: jobs.recover(node_id="n"),
        "check": lambda: database.read(lambda: list(check(sync))),
        "deep recount": lambda: database.recount(deep=True),
        "compact": lambda: database.compact(),
        "192 calls at once": work_for_many,
    }


@pytest.mark.timeout(300)
def test_the_loop_goes_on(location: str) -> None:
    """No call keeps the loop waiting for 20 ms; neither does opening, nor closing. The engine is
    never entered in the loop's thread, where it could wait for a disk or a lock."""
    waits: dict[str, float] = {}
    entered: set[int] = set()

    async def work() -> None:
        jobs = await aio.open_job_store(location)
        begin = jobs.database.sync.driver.begin

        def begin_here(*args: Any) -> Any:
            entered.add(threading.get_ident())
            return begin(*args)

        jobs.database.sync.driver.begin = begin_here  # type: ignore[assignment, method-assign]
        for name, call in calls(jobs).items():
            waits[name] = await longest_wait(call)

        async def close_and_open() -> None:
            nonlocal jobs
            await jobs.close()
            jobs = await aio.open_job_store(location)

        if not location.startswith("memory"):
            waits["close and open"] = await longest_wait(close_and_open)
        await jobs.close()
        assert entered
        assert threading.get_ident() not in entered

    with open_database(location) as kept:
        jobs = JobStore(kept)
        jobs.create_many(
            [Job(id=f"j-{number:05}", labels={"n": str(number % 7)}) for number in range(RECORDS)]
        )
        if location.startswith("memory"):
            asyncio.run(work())
    if not location.startswith("memory"):
        asyncio.run(work())
    print({name: f"{wait * 1e3:.1f} ms" for name, wait in waits.items()})
    assert [name for name, wait in waits.items() if wait >= LONGEST] == []
