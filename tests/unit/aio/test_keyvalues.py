"""Key-value stores and their locks, awaited: what the suite asks of those that block, and what only
tasks can ask."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import storebridge
from storebridge import (
    Database,
    InvalidQueryError,
    InvalidRecordError,
    KeyNotFoundError,
    StoreClosedError,
    StoreLockedError,
    aio,
    open_database,
)
from storebridge.locks import Lock
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import Ticks, assert_sound, open_at
from storebridge.testing.stores.keyvalues import NAME, KeyValueTests
from storebridge.testing.stores.keyvalues_bad import BadKeyValueTests
from storebridge.testing.stores.keyvalues_changes import KeyValueChangeTests
from storebridge.testing.stores.keyvalues_locks import LockTests
from storebridge.testing.stores.keyvalues_time import Hand, KeyValueTimeTests
from storebridge.testing.stores.keyvalues_types import KeyValueTypeTests
from tests.unit.aio.awaiting import Awaiting, awaiting

BACKENDS = ("memory", "sqlite", "lmdb", "bolt", "tinydb")
OF_A_THREAD = (
    *("test_keys_in_transactions", "test_keys_in_a_snapshot", "test_in_transactions"),
    *("test_taken_twice", "test_refused_locks"),
)
"""What is a thread's: blocks, and to have a lock already; and locks that are refused at once."""


class TestAwaited(
    KeyValueTests,
    KeyValueChangeTests,
    BadKeyValueTests,
    KeyValueTimeTests,
    KeyValueTypeTests,
    LockTests,
):
    """The suite's tests of a store that they are given, awaited."""

    @pytest.fixture(params=["memory", "sqlite"])
    def harness(self, request: pytest.FixtureRequest, tmp_path: Path) -> BackendHarness:
        return BackendHarness(request.param, tmp_path)

    @pytest.fixture
    def store(self, database: Database) -> Iterator[Awaiting]:
        with awaiting(database, NAME) as store:
            yield store

    @pytest.fixture
    def timed(self, harness: BackendHarness, hand: Hand) -> Iterator[Awaiting]:
        with open_at(harness, clock=hand) as database, awaiting(database, NAME) as store:
            yield store

    @pytest.fixture
    def gpio(self, database: Database) -> Iterator[Awaiting]:
        with awaiting(database, "gpio") as store:
            yield store


def _is_given(test: Any) -> bool:
    return bool({"store", "timed", "gpio"} & set(inspect.signature(test).parameters))


for _name, _test in inspect.getmembers(TestAwaited, inspect.isfunction):
    if _name.startswith("test_") and (_name in OF_A_THREAD or not _is_given(_test)):
        setattr(TestAwaited, _name, None)


def test_nothing_is_missing() -> None:
    """Each method that a store, or a lock, has for its callers is there, with its parameters."""
    pairs: tuple[tuple[type, type], ...] = (
        (aio.KeyValueStore, storebridge.KeyValueStore),
        (aio.Lock, Lock),
    )
    for awaited, blocking in pairs:
        for name, method in inspect.getmembers(blocking, inspect.isfunction):
            if name.startswith("_") or name in ("live", "standing"):
                continue
            wanted = list(inspect.signature(method).parameters)
            has = list(inspect.signature(getattr(awaited, name)).parameters)
            left_out = {"write"} | ({"timeout"} if name == "watch" else set())
            assert has == [each for each in wanted if each not in left_out], name


@pytest.fixture(params=BACKENDS)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory:{tmp_path.name}"
    return f"{request.param}://{tmp_path}/node?durability=off"


async def opened(location: str, **options: Any) -> aio.KeyValueStore:
    database = await aio.open_database(location, clock=Ticks())
    return await aio.KeyValueStore.open(database, "settings", **options)


def test_many_tasks(location: str) -> None:
    """What tasks add up is their sum, in fewer commits than there are of them."""

    async def work() -> None:
        async with await opened(location) as settings:
            before = settings.database.sync.statistics.transactions
            await asyncio.gather(*(settings.increment("n") for _ in range(300)))
            assert await settings["n"] == 300
            assert settings.database.sync.statistics.transactions - before < 150
            won = await asyncio.gather(*(settings.set_if_absent("once", n) for n in range(50)))
            assert won.count(True) == 1
            with pytest.raises(KeyNotFoundError):
                await settings["nothing"]
            assert_sound(settings.database.sync)

    asyncio.run(work())


def test_a_whole_transaction(location: str) -> None:
    """`run` changes several keys, or none."""

    async def work() -> None:
        async with await opened(location) as settings:

            def swap() -> None:
                store = settings.sync
                store["a"], store["b"] = store["b"], store["a"]
                if store["a"] == 1:
                    raise ZeroDivisionError

            await settings.update(a=1, b=2)
            await settings.database.run(swap)
            with pytest.raises(ZeroDivisionError):
                await settings.database.run(swap)
            assert {key: value async for key, value in settings.items()} == {"a": 2, "b": 1}

    asyncio.run(work())


def test_watching(location: str) -> None:
    """Changes come as they are made, of the keys that were asked for."""

    async def work() -> None:
        async with await opened(location) as settings:
            seen: list[tuple[object, str]] = []

            async def watch() -> None:
                async for change in settings.watch(after=0, prefix="led-"):
                    seen.append((change.key, change.kind))
                    if len(seen) == 3:
                        return

            watching = asyncio.ensure_future(watch())
            await settings.set("led-1", True)
            await settings.set("other", True)
            await settings.set("led-1", False)
            await settings.pop("led-1")
            await asyncio.wait_for(watching, 20)
            assert seen == [("led-1", "created"), ("led-1", "updated"), ("led-1", "deleted")]
            with pytest.raises(InvalidQueryError):
                async for _ in settings.watch(prefix=5):
                    pass

    asyncio.run(work())


def test_tasks_take_a_lock_in_turn(location: str) -> None:
    """One at a time is inside, whoever waits blocks neither the loop nor readers, and each has had
    its turn; so has a thread that takes the same lock."""

    async def work() -> None:
        async with await opened(location) as settings:
            inside = most = 0

            async def take() -> None:
                nonlocal inside, most
                async with settings.lock("led", timeout=30) as lock:
                    inside += 1
                    most = max(most, inside)
                    assert await lock.held()
                    await settings.increment("taken")
                    inside -= 1

            def take_in_thread() -> None:
                with settings.sync.lock("led", timeout=30):
                    settings.sync.increment("taken")

            tasks = [asyncio.ensure_future(take()) for _ in range(12)]
            tasks.append(asyncio.ensure_future(asyncio.to_thread(take_in_thread)))
            while not all(task.done() for task in tasks):
                began = time.monotonic()
                await settings.get("taken")
                assert time.monotonic() - began < 2
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)
            assert (most, await settings["taken"]) == (1, 13)
            assert [lock async for lock in settings.locks()] == []

    asyncio.run(work())


def test_a_lock_twice(location: str) -> None:
    """A task that has a lock is told at once that it would wait for itself; another task waits."""

    async def work() -> None:
        async with await opened(location) as settings:
            lock = settings.lock("led")
            async with lock:
                token = lock.token
                for again in (lock, settings.lock("led", timeout=30)):
                    began = time.monotonic()
                    with pytest.raises(StoreLockedError):
                        await again.acquire()
                    assert time.monotonic() - began < 5
                other = asyncio.ensure_future(settings.lock("led", timeout=30).acquire())
                await asyncio.sleep(0.05)
                assert not other.done()
            assert token is not None
            assert await other > token
            await settings.break_lock("led")
            with pytest.raises(InvalidRecordError):
                await settings.lock("led", lease=0).acquire()
            with pytest.raises(InvalidRecordError):
                await settings.lock(b"led").acquire()  # type: ignore[arg-type]
            with pytest.raises(InvalidRecordError):
                await settings.lock("led").acquire(timeout=-1)

    asyncio.run(work())


def test_cancelled_while_it_takes_a_lock(location: str) -> None:
    """Wherever that strikes, the lock is then free for others."""

    async def work() -> None:
        async with await opened(location) as settings:
            async with settings.lock("led"):
                pass
            for pauses in range(30):

                async def take() -> None:
                    async with settings.lock("led", timeout=30):
                        await asyncio.sleep(30)

                task = asyncio.ensure_future(take())
                for _ in range(pauses):
                    await asyncio.sleep(0.0005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                async with settings.lock("led", timeout=20):
                    pass

    asyncio.run(work())


def test_closed(location: str) -> None:
    """What comes after closing is refused."""

    async def work() -> None:
        settings = await opened(location)
        await settings.set("a", 1)
        await settings.close()
        for call in (settings.set("a", 2), settings.get("a"), settings.count()):
            with pytest.raises(StoreClosedError):
                await call
        if not location.startswith("memory:"):
            with open_database(location) as database:
                assert storebridge.KeyValueStore(database, "settings") == {"a": 1}

    asyncio.run(work())
