"""Where calls, loops and closing meet: nobody waits for ever, and nothing is done unasked."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    ConfigurationError,
    Execution,
    ExecutionStore,
    Job,
    StoreClosedError,
    StoreFullError,
    aio,
    open_database,
)


@pytest.fixture
def location(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/node?durability=off"


def test_closing_again(location: str) -> None:
    """Is no error, nor is closing from two tasks at once; what comes later is refused."""

    async def work() -> None:
        executions = await aio.open_execution_store(location)
        await asyncio.gather(executions.close(), executions.close())
        await executions.close()
        with pytest.raises(StoreClosedError):
            await executions.create(Execution(job_id="j"))
        with pytest.raises(StoreClosedError):
            await executions.get("e")

    asyncio.run(work())


def test_closing_before_those_that_wait_to_be_let_in(location: str) -> None:
    """More calls than may wait, and then closing: each is done or refused, none waits for ever."""

    async def work() -> None:
        executions = await aio.open_execution_store(location)
        calls = [
            asyncio.ensure_future(executions.create(Execution(job_id="j"))) for _ in range(1500)
        ]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(executions.close())
        await asyncio.sleep(0)
        late = [
            asyncio.ensure_future(executions.create(Execution(job_id="j"))) for _ in range(1500)
        ]
        outcomes = await asyncio.wait_for(
            asyncio.gather(*calls, *late, return_exceptions=True), timeout=60
        )
        await closing
        done = Counter(type(each) for each in outcomes)
        assert set(done) <= {Execution, StoreClosedError}
        assert all(isinstance(each, Execution) for each in outcomes[:1500])
        with open_database(location) as database:
            assert ExecutionStore(database).count() == done[Execution]

    asyncio.run(work())


def test_closing_waits_for_readers(location: str) -> None:
    """What is being read is read to its end."""

    async def work() -> None:
        executions = await aio.open_execution_store(location)
        await executions.create(Execution(id="e", job_id="j"))
        begun = threading.Event()

        def read() -> str:
            with executions.sync.database.snapshot():
                begun.set()
                time.sleep(0.2)
                return executions.sync.get("e").id

        reading = asyncio.ensure_future(executions.database.read(read))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        await executions.close()
        assert await reading == "e"

    asyncio.run(work())


def test_what_is_cancelled_takes_no_room(location: str) -> None:
    """However many calls are made and cancelled while the writer is held up, no more wait than
    may; and those are dropped."""

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            begun, go_on = threading.Event(), threading.Event()

            def hold() -> None:
                begun.set()
                go_on.wait(60)

            holding = asyncio.ensure_future(executions.database.run(hold))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            for _ in range(30):
                calls = [
                    asyncio.ensure_future(executions.create(Execution(job_id="j")))
                    for _ in range(100)
                ]
                await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            assert executions.database._writer._calls.qsize() <= 1024
            go_on.set()
            await holding
            await executions.create(Execution(job_id="j"))
            assert await executions.count() == 1

    asyncio.run(work())


def test_another_event_loop(location: str) -> None:
    """Its tasks could not be answered, so they are refused, and nothing is done."""

    async def opened() -> aio.ExecutionStore:
        return await aio.open_execution_store(location)

    async def used(executions: aio.ExecutionStore) -> None:
        with pytest.raises(ConfigurationError, match="event loop"):
            await executions.create(Execution(job_id="j"))
        with pytest.raises(ConfigurationError, match="event loop"):
            await executions.count()

    loop = asyncio.new_event_loop()
    executions = loop.run_until_complete(opened())
    asyncio.run(used(executions))
    assert loop.run_until_complete(executions.count()) == 0
    loop.run_until_complete(executions.close())
    loop.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_in_a_forked_child(location: str) -> None:
    """The threads are the parent's: the child is told at once that it has to open its own."""
    loop = asyncio.new_event_loop()
    executions = loop.run_until_complete(aio.open_execution_store(location))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        status = 1
        try:
            for call in (executions.create(Execution(job_id="j")), executions.count()):
                with pytest.raises(StoreClosedError, match="before a fork"):
                    asyncio.run(call)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    loop.run_until_complete(executions.close())
    loop.close()


def test_a_loop_that_was_closed_under_its_watchers(location: str) -> None:
    """Others write as before: a commit is none the less done."""
    with open_database(location) as kept:
        store = ExecutionStore(kept)
        store.create(Execution(id="1", job_id="j"))
        watched: list[Any] = []

        async def watch() -> None:
            executions = await aio.open_execution_store(location)
            watched.append(executions.watch(after=0))
            assert (await anext(watched[0])).record_id == "1"

        loop = asyncio.new_event_loop()
        loop.run_until_complete(watch())
        loop.close()
        assert store.create(Execution(id="2", job_id="j")).id == "2"
        assert store.count() == 2


def test_a_commit_that_fails_is_not_made_again(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a commit has failed each of its callers learns so, and nothing is done behind their
    backs: whether to try again is for them to decide."""

    async def work() -> None:
        async with await aio.open_execution_store(location) as executions:
            await executions.create(Execution(job_id="j"))
            database = executions.database.sync
            commit = database.commit
            fails = True

            def fail_once(unit: Any) -> None:
                nonlocal fails
                if not fails:
                    return commit(unit)
                fails = False
                database.rollback()
                raise StoreFullError("full")

            monkeypatch.setattr(database, "commit", fail_once)
            outcomes = await asyncio.gather(
                executions.database.run(executions.sync.create, Execution(job_id="j")),
                *(executions.create(Execution(job_id="j")) for _ in range(20)),
                return_exceptions=True,
            )
            failed = [each for each in outcomes if isinstance(each, StoreFullError)]
            assert len(failed) == len({id(each) for each in failed}) >= 1
            assert await executions.count() == 1 + 21 - len(failed)

    asyncio.run(work())


def test_a_checkpoint_after_leaving_the_loop(location: str) -> None:
    """Who leaves the loop in the middle comes again where he left it, not a page before."""

    async def work() -> None:
        async with await aio.open_job_store(location) as jobs:
            await jobs.create_many([Job(id=f"j-{number}") for number in range(10)])
            watched = jobs.watch(checkpoint="c")
            async for event in watched:
                if event.record_id == "j-4":
                    break
            await watched.aclose()  # type: ignore[attr-defined]
            assert await jobs.database.checkpoint("c") == 4
            async for event in jobs.watch(checkpoint="c"):
                assert event.record_id == "j-4"
                break

    asyncio.run(work())


COMMIT_FAILS = """
import asyncio, resource, signal, sys, threading, time
from storebridge import *
from storebridge import aio
from storebridge.check import check
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    async with await aio.open_job_store(sys.argv[1]) as jobs:
        sync, loop = jobs.sync, asyncio.get_running_loop()
        await jobs.create(Job(id="first"))
        text, outcomes = "x" * 3000, []
        begun, go_on = threading.Event(), threading.Event()
        def hold():
            with sync.database.transaction():
                begun.set(); go_on.wait(60)
        def thread(number):
            try:
                outcomes.append(sync.create(Job(id=f"thread-{number}", message=text)))
            except StorebridgeError as error:
                outcomes.append(error)
        holder = threading.Thread(target=hold); holder.start()
        while not begun.is_set():
            await asyncio.sleep(0.001)
        threads = [threading.Thread(target=thread, args=(n,)) for n in range(16)]
        for each in threads: each.start()
        made = [Job(id=f"task-{n}", message=text) for n in range(16)]
        tasks = [asyncio.ensure_future(jobs.create(each)) for each in made]
        while len(sync.database._turn.line) < 17:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        limit(0)
        go_on.set()
        outcomes += await asyncio.gather(*tasks, return_exceptions=True)
        for each in [*threads, holder]:
            while each.is_alive():
                await asyncio.sleep(0.001)
        limit(resource.RLIM_INFINITY)
        errors = [each for each in outcomes if isinstance(each, StorebridgeError)]
        assert len(errors) == len(outcomes) == 32, outcomes
        assert len({id(each) for each in errors}) == 32
        assert [each.id async for each in jobs.each()] == ["first"]
        await jobs.create(Job(id="afterwards"))
        assert not list(check(sync.database))
    print("told", sorted({type(each).__name__ for each in errors}))
asyncio.run(main())
"""


@pytest.mark.parametrize("backend", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_a_full_disk_under_many_callers(backend: str, tmp_path: Path) -> None:
    """Whoever was in a commit that found no room is told so, thread or task, in an error of its
    own; nothing of it is there, and as soon as there is room all goes on."""
    done = subprocess.run(
        [sys.executable, "-c", COMMIT_FAILS, f"{backend}://{tmp_path}/node"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.startswith("told")
