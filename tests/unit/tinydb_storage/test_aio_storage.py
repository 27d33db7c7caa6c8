"""`AtomicAIOJSONStorage`: blocks of `AIOTinyDB` that take effect whole or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiotinydb import middleware
from aiotinydb.database import AIOTinyDB
from aiotinydb.exceptions import DatabaseNotReady, NotOverridableError
from storebridge_tinydb import aiostorage
from storebridge_tinydb.aiostorage import AtomicAIOJSONStorage
from storebridge_tinydb.sharedfile import LONGEST_POLL, SharedFile
from storebridge_tinydb.steps import decode
from tinydb import TinyDB, where

from storebridge.errors import StoreLockedError
from tests.unit.tinydb_storage.conftest import Start


def ours(path: Path, **options: Any) -> AIOTinyDB:
    return AIOTinyDB(path, storage=AtomicAIOJSONStorage, **options)


def documents(path: Path) -> list[Any]:
    return list(json.loads(path.read_bytes())["_default"].values())


def run(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(function(), debug=False)


class Gate(json.JSONEncoder):
    """Encodes when it is let, and says when it has come to that."""

    reached = threading.Event()
    opened = threading.Event()

    def encode(self, o: Any) -> str:
        self.reached.set()
        assert self.opened.wait(60)
        return super().encode(o)


@pytest.fixture
def gate() -> type[Gate]:
    Gate.reached.clear()
    Gate.opened.clear()
    return Gate


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


def must_be_free(path: Path) -> None:
    file = SharedFile(path)
    file.lock(0)
    file.close()


async def fail_after(change: Callable[[TinyDB], object], db: AIOTinyDB) -> None:
    async with db:
        change(db)
        raise ZeroDivisionError


def no_worker_is_left() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("storebridge-tinydb"):
            thread.join(20)
            assert not thread.is_alive()


def test_a_block_takes_effect_at_its_end(tmp_path: Path) -> None:
    """Not before; and the next block has it. Missing folders are made."""
    path = tmp_path / "new" / "folders" / "db.json"

    async def main() -> None:
        async with ours(path) as db:
            db.insert({"a": 1})
            db.insert({"a": 2})
            assert path.read_bytes() == b""
        assert documents(path) == [{"a": 1}, {"a": 2}]
        async with ours(path) as db:
            db.update({"b": True}, where("a") == 2)
            db.table("other").insert({"c": None})
        async with ours(path) as db:
            assert db.all() == [{"a": 1}, {"a": 2, "b": True}]
            assert db.tables() == {"_default", "other"}

    run(main)
    no_worker_is_left()


def test_a_block_without_changes_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db.json"

    async def main() -> None:
        async with ours(path):
            pass
        assert path.read_bytes() == b""
        async with ours(path) as db:
            db.insert({"a": 1})
        before = path.stat()
        async with ours(path) as db:
            assert len(db) == 1
        assert path.stat() == before

    run(main)


@pytest.mark.parametrize(
    "error", [ValueError, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit]
)
def test_an_exception_keeps_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """Of whatever kind; and the lock is free again."""
    path = tmp_path / "db.json"

    async def main() -> None:
        async with ours(path) as db:
            db.insert({"a": 1})
        before = path.read_bytes(), path.stat()
        storage = AtomicAIOJSONStorage(path)
        await storage.__aenter__()
        storage.write({"_default": {}})
        await storage.__aexit__(error, error(), None)
        assert (path.read_bytes(), path.stat()) == before
        with pytest.raises(ZeroDivisionError):
            await fail_after(lambda db: db.drop_tables(), ours(path))
        assert (path.read_bytes(), path.stat()) == before
        must_be_free(path)

    run(main)


def test_outside_of_a_block(tmp_path: Path) -> None:
    """Nothing can be read, written or closed."""
    storage = AtomicAIOJSONStorage(tmp_path / "db.json")
    with pytest.raises(DatabaseNotReady):
        storage.read()
    with pytest.raises(DatabaseNotReady):
        storage.write({})
    with pytest.raises(NotOverridableError):
        storage.close()
    assert not (tmp_path / "db.json").exists()


def test_what_was_read_or_inserted_is_nobody_elses(tmp_path: Path) -> None:
    """What a program does to documents that it read or gave does not change the database, and a
    change that fails halfway changes nothing.
    """
    path = tmp_path / "db.json"

    def fail_at_the_second(document: Any) -> None:
        if document["number"] == 1:
            raise LookupError
        document["tags"].append("changed")

    async def main() -> None:
        mine: list[str] = []
        async with ours(path) as db:
            db.insert_multiple({"number": number, "tags": mine} for number in range(3))
            mine.append("mine")
            for document in db.all():
                document["tags"].append("read")
            with pytest.raises(LookupError):
                db.update(fail_at_the_second)
        assert documents(path) == [{"number": number, "tags": []} for number in range(3)]

    run(main)


def test_dropping_all_before_anything_was_read(tmp_path: Path) -> None:
    """What the block sees afterwards is what it has made."""
    path = tmp_path / "db.json"

    async def main() -> None:
        async with ours(path) as db:
            db.insert({"a": 1})
        async with ours(path) as db:
            db.drop_tables()
            assert db.tables() == set()
        assert path.read_bytes() == b"{}"

    run(main)


def test_what_json_makes_of_values(tmp_path: Path) -> None:
    """`default` and all that JSON converts; what it does not know is an error, and the block keeps
    nothing.
    """
    path = tmp_path / "db.json"

    async def main() -> None:
        async with ours(path, default=str, ensure_ascii=False) as db:
            db.insert({"path": Path("世界"), "tuple": (1, 2), 5: float("inf")})
            assert db.all()[0]["path"] == "世界"
        before = path.read_bytes()
        assert '"世界"'.encode() in before
        assert documents(path) == [{"path": "世界", "tuple": [1, 2], "5": float("inf")}]
        async with ours(path) as db:
            with pytest.raises(TypeError):
                db.insert({"path": Path("x")})
            assert len(db) == 1
        with pytest.raises(TypeError):
            async with ours(path) as db:
                db.insert({"bytes": b"late, at the end of the block"})
        assert path.read_bytes() == before

    run(main)


def test_a_file_that_is_not_json(tmp_path: Path) -> None:
    """Is left alone, and the lock is free again."""
    path = tmp_path / "db.json"
    path.write_text('{"_default": {')

    async def main() -> None:
        with pytest.raises(json.JSONDecodeError):
            async with ours(path):
                pass
        assert path.read_text() == '{"_default": {'
        must_be_free(path)

    run(main)
    no_worker_is_left()


def test_with_a_cache(tmp_path: Path) -> None:
    """aiotinydb's middleware writes at the end of the block, also nothing if it fails."""
    path = tmp_path / "db.json"

    def cached() -> AIOTinyDB:
        storage = middleware.CachingMiddleware(AtomicAIOJSONStorage)  # type: ignore[no-untyped-call]
        return AIOTinyDB(path, storage=storage)

    async def main() -> None:
        async with cached() as db:
            db.insert({"a": 1})
        with pytest.raises(ZeroDivisionError):
            await fail_after(lambda db: db.insert({"a": 2}), cached())
        assert documents(path) == [{"a": 1}]

    run(main)


@asynccontextmanager
async def busy_default_threads() -> AsyncIterator[None]:
    """All threads that the loop has for everybody wait, as they do for aiotinydb's lock."""
    loop = asyncio.get_running_loop()
    threads, release = ThreadPoolExecutor(2), threading.Event()
    loop.set_default_executor(threads)
    waiting = [loop.run_in_executor(None, release.wait) for _ in range(2)]
    try:
        yield
    finally:
        release.set()
        await asyncio.gather(*waiting)


def test_fifty_objects_on_one_file(tmp_path: Path) -> None:
    """All at once, and while the loop's own threads are busy: all come to their end, in the order
    of their coming, and nothing is lost.
    """
    path = tmp_path / "db.json"
    order: list[int] = []

    async def add(number: int) -> None:
        async with ours(path) as db:
            order.append(number)
            await asyncio.sleep(0)
            db.insert({"number": number})

    async def main() -> None:
        async with busy_default_threads():
            await asyncio.gather(*(add(number) for number in range(50)))

    run(main)
    assert order == list(range(50))
    assert sorted(document["number"] for document in documents(path)) == order
    no_worker_is_left()


def test_several_loops(tmp_path: Path) -> None:
    """In threads at the same time, and one after the other with the same object."""
    path = tmp_path / "db.json"

    async def add(db: AIOTinyDB, times: int) -> None:
        for _ in range(times):
            async with db:
                db.insert({})

    threads = [threading.Thread(target=lambda: asyncio.run(add(ours(path), 10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = ours(path)
    for _ in range(2):
        asyncio.run(add(again, 1))
    assert len(documents(path)) == 32


def test_files_and_json_are_off_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it happens in the loop's thread."""
    path = tmp_path / "db.json"
    threads: dict[str, set[threading.Thread]] = {}

    def note(holder: Any, name: str) -> None:
        function = getattr(holder, name)

        def noting(*arguments: Any, **options: Any) -> Any:
            threads.setdefault(name, set()).add(threading.current_thread())
            return function(*arguments, **options)

        monkeypatch.setattr(holder, name, noting)

    for name in ("create", "lock", "read", "replace", "unlock"):
        note(SharedFile, name)
    for name in ("encode", "decode"):
        note(aiostorage, name)
    for name in ("open", "fsync", "stat", "lstat", "fstat"):
        note(os, name)

    async def main() -> None:
        for _ in range(2):
            async with ours(path) as db:
                db.insert({"a": 1})

    run(main)
    assert {"create", "lock", "read", "replace", "unlock", "encode", "decode", "fsync"} <= {
        *threads
    }
    for name, found in threads.items():
        assert threading.main_thread() not in found, name


def test_the_loop_goes_on_while_a_block_ends(tmp_path: Path, gate: type[Gate]) -> None:
    """What the end of a block waits for can come from the loop itself."""
    path = tmp_path / "db.json"

    async def change() -> None:
        async with ours(path, cls=gate) as db:
            db.insert({"a": 1})

    async def main() -> None:
        task = asyncio.create_task(change())
        await until(gate.reached)
        assert not task.done()
        gate.opened.set()
        await task

    run(main)
    assert documents(path) == [{"a": 1}]


@pytest.mark.parametrize("times", [1, 3])
def test_cancelled_while_a_block_ends(tmp_path: Path, gate: type[Gate], times: int) -> None:
    """The change, which has begun, comes to its end first; then the task is cancelled."""
    path = tmp_path / "db.json"

    async def change() -> None:
        async with ours(path, cls=gate) as db:
            db.insert({"a": 1})

    async def main() -> None:
        task = asyncio.create_task(change())
        await until(gate.reached)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        must_be_free(path)

    run(main)
    assert documents(path) == [{"a": 1}]
    no_worker_is_left()


@pytest.mark.parametrize("kind", ["ours-async", "aiotinydb"])
def test_cancelled_while_waiting_for_another_process(
    tmp_path: Path, start: Start, kind: str
) -> None:
    """At once, with all that waits behind it; and the lock is free for others afterwards."""
    path = tmp_path / "db.json"
    holder = start("hold", path, kind)
    holder.hear()

    async def enter(entered: list[int]) -> None:
        async with ours(path, lock_timeout=1000):
            entered.append(1)

    async def main() -> None:
        entered: list[int] = []
        tasks = [asyncio.create_task(enter(entered)) for _ in range(5)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert not entered
        no_worker_is_left()
        holder.go_on()
        assert holder.hear() == "done"
        must_be_free(path)
        await enter(entered)
        assert entered

    run(main)


def test_cancelled_when_the_lock_was_just_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given back, though the block never began."""
    path = tmp_path / "db.json"
    path.write_text("{}")
    reached, opened = threading.Event(), threading.Event()

    def slowly(text: str, *_: object) -> Any:
        reached.set()
        assert opened.wait(60)
        return decode(text)

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(aiostorage, "decode", slowly)
            entering = asyncio.create_task(AtomicAIOJSONStorage(path).__aenter__())
            await until(reached)
            entering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await entering
            opened.set()
        no_worker_is_left()
        must_be_free(path)

    run(main)


def test_waiting_for_too_long(tmp_path: Path, start: Start) -> None:
    """A StoreLockedError with the holder, be it another process or another task of this one."""
    path = tmp_path / "db.json"
    holder = start("hold", path, "ours")
    holder.hear()

    async def main() -> None:
        with pytest.raises(StoreLockedError, match=r"waited 0\.05 s") as caught:
            async with ours(path, lock_timeout=0.05):
                pass
        assert caught.value.holder == holder.pid
        holder.go_on()
        holder.hear()
        async with ours(path):
            with pytest.raises(StoreLockedError, match="this process") as caught:
                async with ours(path, lock_timeout=0.05):
                    pass
        assert caught.value.holder == os.getpid()
        async with ours(path, lock_timeout=0) as db:  # free, so nobody waits
            assert db.all() == [{"by": "actor"}]

    run(main)


def test_a_busy_process_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between blocks that follow one another at once, the lock is free for so long that whoever
    else waits looks at least once.
    """
    path = tmp_path / "db.json"
    lock, unlock = SharedFile.lock, SharedFile.unlock
    moments: list[float] = []

    def noting_lock(*arguments: Any) -> None:
        moments.append(time.monotonic())
        lock(*arguments)

    def noting_unlock(file: SharedFile) -> None:
        unlock(file)
        moments.append(time.monotonic())

    monkeypatch.setattr(SharedFile, "lock", noting_lock)
    monkeypatch.setattr(SharedFile, "unlock", noting_unlock)

    async def main() -> None:
        for _ in range(4):
            async with ours(path):
                await asyncio.sleep(0.03)

    run(main)
    released, next_tries = moments[1:-1:2], moments[2::2]
    for before, after in zip(released, next_tries, strict=True):
        assert after - before >= LONGEST_POLL


def test_a_failure_at_the_end_frees_the_lock(tmp_path: Path) -> None:
    """The error of the system comes out of the block; the file holds what it did."""
    path = tmp_path / "db.json"

    async def main() -> None:
        async with ours(path) as db:
            db.insert({"a": 1})
        before = path.read_bytes()
        path.with_name("db.json-new").mkdir()
        with pytest.raises(OSError, match=r"db\.json-new"):
            async with ours(path) as db:
                db.insert({"a": 2})
        path.with_name("db.json-new").rmdir()
        assert path.read_bytes() == before
        async with ours(path, lock_timeout=0) as db:
            db.insert({"a": 3})
        assert documents(path) == [{"a": 1}, {"a": 3}]

    run(main)
    no_worker_is_left()
