"""A fork while a thread of the parent holds a lock: that thread is not in the child, and nobody
there waits for it."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from storebridge_bolt import pybolt

from storebridge import Job, JobStore, StoreClosedError, open_database
from storebridge.events import Event
from tests.postgres_server import Database as Server

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
_LOCKS: Any = (type(threading.Lock()), type(threading.RLock()))


def locks_in(thing: object, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Every lock that our objects hold, however deep, and that of every event."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, _LOCKS):
        yield path, thing
    elif isinstance(thing, threading.Event):
        yield path, thing._cond._lock  # type: ignore[attr-defined]
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for each in list(thing):
            yield from locks_in(each, f"{path}[]", seen)
    elif type(thing).__module__.startswith(("storebridge", "tests.")):
        names = {name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())}
        for name in sorted(names | set(getattr(thing, "__dict__", ()))):
            yield from locks_in(getattr(thing, name, None), f"{path}.{name}", seen)


class Held:
    """A lock that another thread holds in the block."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._holds, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self._lock:
            self._holds.set()
            self._leave.wait(30)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._holds.wait(10)

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join(10)


def in_a_child(work: Callable[[], None]) -> int:
    """The status with which a forked child ends; 14 if it waits for something."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


class Parents:
    """What a process has open, and a forked child is left with."""

    def __init__(self, location: str) -> None:
        self._location = location
        self.database = open_database(location)
        self.jobs = JobStore(self.database)
        self.jobs.create(Job(id="first"))
        self.watched: Iterator[Event] = self.database.watch(after=0)
        next(self.watched)
        self.left: list[Iterator[Event]] = [self.database.watch(after=0)]
        next(self.left[0])

    def locks(self) -> Iterator[tuple[str, Any]]:
        yield from locks_in(self.database, "database", set())
        for number, listener in enumerate(self.database._listeners):
            news: Any = listener.__self__  # type: ignore[attr-defined]
            yield from locks_in(news, f"listener {number}", set())

    def use_in_child(self) -> None:
        jobs, database = self.jobs, self.database
        calls: list[Callable[[], object]] = [
            lambda: jobs.get("first"),
            lambda: jobs.create(Job()),
            lambda: list(jobs.each()),
            lambda: database.transaction().__enter__(),
            lambda: database.snapshot().__enter__(),
            lambda: next(self.watched),
            lambda: next(database.watch()),
            lambda: database.recount(repair=True),
            lambda: database.compact(()),
            lambda: database.engine_check(),
            lambda: database.describe(),
            lambda: JobStore(database),
        ]
        for call in calls:
            with pytest.raises(StoreClosedError):
                call()
        self.left.clear()
        gc.collect()
        heard = threading.Event()
        database.on_events(heard.set)
        database.off_events(heard.set)
        database.close()
        if database.driver.traits.processes == "many":
            with open_database(self._location) as own:
                assert JobStore(own).get("first")
                JobStore(own).create(Job())
                assert next(own.watch(after=0)).record_id == "first"
        with open_database("memory:of-the-child") as other:
            JobStore(other).create(Job())


def location_of(backend: str, folder: Path) -> str:
    if backend == "memory":
        return f"memory:{folder}"
    return f"{backend}://{folder}/x?durability=off"


@pytest.mark.parametrize("backend", ["memory", "sqlite", "lmdb", "bolt", "tinydb", "postgresql"])
def test_each_lock(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whichever of a database's locks it is: the child is told that the database is its parent's,
    can let go of it, and opens one of its own."""
    if backend == "postgresql":
        location = request.getfixturevalue("postgresql").target()
    else:
        location = location_of(backend, tmp_path)
    parents = Parents(location)
    locks = dict(parents.locks())
    assert len(locks) >= 3, locks
    for name, lock in locks.items():
        with Held(lock):
            assert in_a_child(parents.use_in_child) == 0, name
        parents.jobs.create(Job())
    parents.watched.close()  # type: ignore[attr-defined]
    parents.left.clear()
    parents.database.close()


def test_of_pybolt(tmp_path: Path) -> None:
    """The same of a bolt database that is used without storebridge."""
    db = pybolt.DB(tmp_path / "t.db", durability="off")
    with db.update() as tx:
        tx.create_bucket(b"b")

    def use() -> None:
        calls: list[Callable[[], object]] = [
            db.view,
            db.update,
            lambda: db.batch(lambda tx: None),
        ]
        for call in calls:
            with pytest.raises(pybolt.DatabaseClosedError):
                call()
        db.close()

    for name, lock in locks_in(db, "db", set()):
        with Held(lock):
            assert in_a_child(use) == 0, name
        with db.update() as tx:
            tx.bucket(b"b").put(name.encode(), b"")
    db.close()


def test_leaving_a_snapshot(tmp_path: Path, postgresql: Server) -> None:
    """A child that was forked within a snapshot leaves it, and does not end its parent's."""
    for location in (
        postgresql.target(),
        f"sqlite://{tmp_path}/s",
        f"lmdb://{tmp_path}/l",
    ):
        with open_database(location) as database:
            jobs = JobStore(database)
            jobs.create(Job(id="first"))
            snapshot = database.snapshot()
            snapshot.__enter__()
            assert jobs.get("first")

            def leave(snapshot: Any = snapshot, jobs: JobStore = jobs) -> None:
                with pytest.raises(StoreClosedError):
                    jobs.get("first")
                snapshot.__exit__(None, None, None)

            assert in_a_child(leave) == 0
            thread = threading.Thread(target=jobs.create, args=(Job(id="second"),))
            thread.start()
            thread.join()
            assert jobs.counts()["Pending"] == 1
            snapshot.__exit__(None, None, None)
            assert jobs.counts()["Pending"] == 2
