"""The stores for asyncio: the same promises, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    ConflictError,
    Execution,
    Job,
    JobStore,
    RecordExistsError,
    StoreClosedError,
    StoreFullError,
    aio,
    open_database,
)
from storebridge import ExecutionStore as SyncExecutions
from storebridge.check import check

BACKENDS = ("memory", "sqlite", "lmdb", "bolt", "tinydb")


@pytest.fixture(params=BACKENDS)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory:{tmp_path.name}"
    return f"{request.param}://{tmp_path}/node?durability=off"


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def test_the_names_are_the_same(location: str) -> None:
    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            created = await executions.create(Execution(job_id="j", id="e-1"))
            assert (await executions.set_state("e-1", "Running")).revision == 2
            assert (await executions.get("e-1")).created_at == created.created_at
            assert (await executions.update("e-1", message="x")).message == "x"
            assert (await executions.counts())["Running"] == await executions.count() == 1
            page = await executions.find(state="Running")
            assert [each.id for each in page] == ["e-1"]
            assert await executions.resolve("e") == "e-1"
            kinds = [event.kind for event in await executions.history("e-1")]
            assert kinds == ["created", "state", "updated"]
            results = await executions.create_many(
                [Execution(job_id="j", id="e-1"), Execution(job_id="j", id="e-2")]
            )
            assert isinstance(results[0], RecordExistsError)
            assert [each.id async for each in executions.each()] == ["e-1", "e-2"]
            assert len([each async for each in executions.live()]) == 2
            await executions.delete("e-2")
            with pytest.raises(ConflictError):
                await executions.set_state("e-1", "Created")

    run(work)


def test_nothing_is_missing() -> None:
    """Each method that a store has for its callers is there, awaited, with the same parameters."""
    pairs: tuple[tuple[type, type], ...] = (
        (aio.JobStore, JobStore),
        (aio.ExecutionStore, SyncExecutions),
    )
    for awaited, blocking in pairs:
        for name, method in inspect.getmembers(blocking, inspect.isfunction):
            if name.startswith("_") or name == "standing":
                continue
            wanted = list(inspect.signature(method).parameters)
            has = inspect.signature(getattr(awaited, name)).parameters
            if not any(each.kind is each.VAR_KEYWORD for each in has.values()):
                # A task that waits no longer cancels: it needs no timeout.
                assert list(has) == [each for each in wanted if each != "timeout"], name


def test_long_work_beside_writers(location: str) -> None:
    """Compaction and counting go on beside other writes, and reading events beside both."""

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            await executions.create_many([Execution(job_id="j") for _ in range(300)])
            counting = asyncio.ensure_future(executions.recount(deep=True, repair=True))
            await asyncio.gather(
                executions.database.compact(),
                *(executions.create(Execution(job_id="j")) for _ in range(50)),
            )
            assert not (await counting).faults
            assert len([event async for event in executions.events()]) == 350
            assert [each async for each in executions.quarantined()] == []
            (report,) = await executions.database.recount()
            assert not report.drift

    run(work)


def test_every_task_is_answered_after_a_shared_commit(location: str) -> None:
    """64 tasks: each change once, failures alone, in far fewer transactions than calls."""

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            await executions.create(Execution(job_id="j", id="taken"))
            before = executions.database.sync.statistics.transactions
            refused: Counter[str] = Counter()

            async def task(number: int) -> None:
                for step in range(5):
                    mine = await executions.create(Execution(job_id="j", id=f"{number}-{step}"))
                    assert (await executions.set_state(mine.id, "Running")).state == "Running"
                    with pytest.raises(RecordExistsError):
                        await executions.create(Execution(job_id="j", id="taken"))
                    refused["taken"] += 1

            await asyncio.gather(*(task(number) for number in range(64)))
            assert refused["taken"] == 320
            assert (await executions.counts())["Running"] == 320
            events = list(executions.database.sync.events())
            assert [event.sequence for event in events] == list(range(1, 642))
            took = executions.database.sync.statistics.transactions - before
            assert took < 200
            assert not list(check(executions.database.sync))

    run(work)


def test_whole_transactions(location: str) -> None:
    """`run` takes effect as a whole or not at all, beside the calls of others."""

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            await executions.create(Execution(job_id="j", id="sum", message="0"))
            sync = executions.sync

            def add(amount: int) -> int:
                value = int(sync.get("sum").message) + amount
                sync.update("sum", message=str(value))
                sync.create(Execution(job_id="j"))
                if amount % 5 == 0:
                    raise ValueError(amount)
                return value

            outcomes = await asyncio.gather(
                *(executions.database.run(add, amount) for amount in range(1, 41)),
                return_exceptions=True,
            )
            failed = [each for each in outcomes if isinstance(each, ValueError)]
            assert len(failed) == 8
            wanted = sum(n for n in range(1, 41) if n % 5)
            assert (await executions.get("sum")).message == str(wanted)
            assert await executions.count() == 33

    run(work)


def test_cancelled_before_and_after_it_was_begun(location: str) -> None:
    """Before: it is not done. After: it is done. The store goes on."""

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            begun, go_on = threading.Event(), threading.Event()

            def hold() -> str:
                executions.sync.create(Execution(job_id="j", id="held"))
                begun.set()
                go_on.wait(10)
                return "done"

            first = asyncio.create_task(executions.database.run(hold))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            later = asyncio.create_task(executions.create(Execution(job_id="j", id="later")))
            stays = asyncio.create_task(executions.create(Execution(job_id="j", id="stays")))
            await asyncio.sleep(0.01)
            first.cancel()
            later.cancel()
            await asyncio.gather(first, later, return_exceptions=True)
            assert first.cancelled()
            assert later.cancelled()
            go_on.set()
            await stays
            assert sorted([each.id async for each in executions.each()]) == ["held", "stays"]

    run(work)


def test_cancelled_at_random(location: str) -> None:
    """Whatever is cancelled when: what was acknowledged is there, and everything agrees."""
    seed = int(os.environ.get("STOREBRIDGE_SEED", "5"))
    print(f"STOREBRIDGE_SEED={seed}")
    chance = random.Random(seed)

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            acknowledged: set[str] = set()

            async def task(number: int) -> None:
                for step in range(20):
                    name = f"{number}-{step}"
                    call = executions.create(Execution(job_id="j", id=name))
                    try:
                        await asyncio.wait_for(call, chance.uniform(0.0001, 0.01))
                        acknowledged.add(name)
                    except TimeoutError:
                        pass

            await asyncio.gather(*(task(number) for number in range(16)))
            await executions.create(Execution(job_id="j", id="last"))
            there = {each.id async for each in executions.each()}
            assert acknowledged <= there
            assert len(there) == sum((await executions.counts()).values())
            assert not list(check(executions.database.sync))

    run(work)


def test_closing_drains(location: str) -> None:
    """What was asked for before `close` is done; what comes after is refused."""

    async def work() -> None:
        executions = await aio.open_execution_store(location)
        with open_database(location) as kept:
            tasks = [
                asyncio.create_task(executions.create(Execution(job_id="j"))) for _ in range(50)
            ]
            await asyncio.sleep(0)
            await executions.close()
            assert len({(await task).id for task in tasks}) == 50
            with pytest.raises(StoreClosedError):
                await executions.create(Execution(job_id="j"))
            assert SyncExecutions(kept).count() == 50

    run(work)


def test_a_commit_that_fails_is_told_to_everyone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: each caller in the transaction learns of it, and nothing is half done."""

    async def work() -> None:
        async with await aio.open_execution_store(f"sqlite://{tmp_path}/x.db") as executions:
            await executions.create(Execution(job_id="j"))
            database = executions.database.sync
            commit = database.commit

            def full(unit: Any) -> None:
                database.rollback()
                raise StoreFullError("full")

            monkeypatch.setattr(database, "commit", full)
            outcomes = await asyncio.gather(
                *(executions.create(Execution(job_id="j")) for _ in range(20)),
                return_exceptions=True,
            )
            assert {type(each) for each in outcomes} == {StoreFullError}
            monkeypatch.setattr(database, "commit", commit)
            await executions.create(Execution(job_id="j"))
            assert await executions.count() == 2

    run(work)


def test_watching(location: str) -> None:
    """Every event once and in order, while others write; a checkpoint brings the reader back."""

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            seen: list[int] = []

            async def read() -> None:
                async for event in executions.watch(after=0, checkpoint=None):
                    seen.append(event.sequence)
                    if len(seen) == 200:
                        return

            reader = asyncio.create_task(read())
            await asyncio.gather(*(executions.create(Execution(job_id="j")) for _ in range(200)))
            await asyncio.wait_for(reader, 10)
            assert seen == list(range(1, 201))
            count = 0
            async for _ in executions.watch(checkpoint="c"):
                count += 1
                if count == 200:
                    break
            await executions.create(Execution(job_id="j", id="new"))

    run(work)


def test_a_watcher_in_another_process(tmp_path: Path) -> None:
    """What another process commits is seen within half a second."""
    location = f"sqlite://{tmp_path}/node.db"
    code = (
        "import sys, time; from storebridge import *\n"
        "store = open_execution_store(sys.argv[1])\n"
        "print(flush=True); sys.stdin.readline()\n"
        "store.create(Execution(job_id='j')); print(time.time(), flush=True)"
    )

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", code, location),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert process.stdin is not None
            await process.stdout.readline()
            process.stdin.write(b"\n")
            async for event in executions.watch(after=0):
                seen = time.time()
                assert event.kind == "created"
                break
            assert seen - float(await process.stdout.readline()) < 2
            await process.wait()

    run(work)


def test_records_of_your_own(location: str) -> None:
    from storebridge import JOB

    async def work() -> None:
        async with await aio.open_database(location) as database:
            jobs = await aio.RecordStore.open(database, JOB)
            await jobs.create(Job(id="mine"))
            assert (await jobs.get("mine")).state == "Pending"

    run(work)


def test_importing_storebridge_imports_no_asyncio() -> None:
    code = "import sys, storebridge; sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
