"""Closing where others hold what it needs: it comes to an end, and so do its threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storebridge import Job, JobStore, StoreLockedError, aio, open_database
from storebridge.check import check
from storebridge.driver.lockfile import LockFile

PATIENCE = 10.0


@pytest.fixture
def location(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/node?durability=off&lock_timeout=0.3"


@contextmanager
def locked(tmp_path: Path) -> Iterator[None]:
    """As another process has it that writes for long."""
    lock = LockFile(tmp_path / "node-lock", 0o600)
    lock.acquire(5)
    try:
        yield
    finally:
        lock.close()


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def threads_of_others() -> None:
    _before.update(threading.enumerate())


def own_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each not in _before]


async def threads_end() -> bool:
    give_up = time.monotonic() + PATIENCE
    while own_threads() and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    return not own_threads()


def check_file(location: str) -> None:
    """Whatever became of closing: what was acknowledged is there, and the next one begins well."""
    with open_database(location) as database:
        assert JobStore(database).counts()["Pending"] == 1
        assert list(check(database)) == []


def test_locked_by_another_process(location: str, tmp_path: Path) -> None:
    """It waits for `lock_timeout` and says so; it is closed, and no thread is left."""

    async def work() -> None:
        jobs = await aio.open_job_store(location)
        await jobs.create(Job())
        assert await jobs.count() == 1
        with locked(tmp_path):
            began = time.monotonic()
            with pytest.raises(StoreLockedError):
                await jobs.close()
            assert time.monotonic() - began < 3
            assert jobs.database.sync.closed
            assert own_threads() == []
            await jobs.close()

    asyncio.run(work())
    check_file(location)


def test_cancelled_while_it_waits(location: str, tmp_path: Path) -> None:
    """Once it has begun it is done, and no thread is left, though nobody waits for it."""

    async def work() -> None:
        jobs = await aio.open_job_store(location)
        await jobs.create(Job())
        assert await jobs.count() == 1
        with locked(tmp_path):
            closing = asyncio.ensure_future(jobs.close())
            while not jobs.database.sync._turn._lock.acquire(blocking=False):
                await asyncio.sleep(0.001)
            jobs.database.sync._turn._lock.release()
            await asyncio.sleep(0.1)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert await threads_end()
        assert jobs.database.sync.closed
        await jobs.close()

    asyncio.run(work())
    check_file(location)


def test_while_a_thread_writes_for_long(location: str) -> None:
    """It stays open, says so, and can be used and closed again."""

    async def work() -> None:
        jobs = await aio.open_job_store(location)
        begun, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with jobs.sync.database.transaction():
                begun.set()
                go_on.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        while not begun.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(StoreLockedError):
            await jobs.close()
        assert not jobs.database.sync.closed
        assert await jobs.count() == 0
        go_on.set()
        holder.join(60)
        await jobs.create(Job())
        await jobs.close()
        assert own_threads() == []

    asyncio.run(work())
    check_file(location)


def test_one_of_two_that_share_it(location: str) -> None:
    """The other goes on; the threads of this one end."""

    async def work() -> None:
        with open_database(location) as database:
            jobs = await aio.open_job_store(location)
            await jobs.create(Job())
            await jobs.close()
            assert own_threads() == []
            assert not database.closed

    asyncio.run(work())
    check_file(location)


def test_cancelled_before_it_has_begun(location: str) -> None:
    """It is not done, and all goes on."""

    async def work() -> None:
        jobs = await aio.open_job_store(location)
        begun, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            go_on.wait(60)

        holding = asyncio.ensure_future(jobs.database.run(hold))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        closing = asyncio.ensure_future(jobs.close())
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        go_on.set()
        await holding
        await jobs.create(Job())
        await jobs.close()
        assert own_threads() == []

    asyncio.run(work())
    check_file(location)


def test_without_asyncio(location: str, tmp_path: Path) -> None:
    """The same of `Database.close`: a file that another process has locked is closed all the same;
    that this one wrote is then found out by the next one that opens it."""
    database = open_database(location)
    JobStore(database).create(Job())
    with locked(tmp_path):
        with pytest.raises(StoreLockedError):
            database.close()
        assert database.closed
        database.close()
    check_file(location)


def test_who_watches_until_the_end(location: str) -> None:
    """The thread that hears of others' commits ends with it."""

    async def work() -> None:
        jobs = await aio.open_job_store(location)
        await jobs.create(Job())
        watched = jobs.watch(after=0)
        assert (await anext(watched)).sequence == 1
        assert "storebridge-listen" in own_threads()
        await jobs.close()
        assert own_threads() == []
        await watched.aclose()  # type: ignore[attr-defined]

    asyncio.run(work())
    check_file(location)
