"""A write that Python puts in between: a signal handler's or a finaliser's, in the midst of another
one of the same thread. It is refused, for it could be acknowledged and then be undone with that
one; and that one is as if nothing had happened."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    KeyValueStore,
    Owner,
    Record,
    RecordStore,
    StorebridgeError,
    TransactionError,
    open_database,
)
from storebridge.check import check
from storebridge.owner import this_process
from storebridge.spec import RecordSpec
from storebridge.transaction import Unit


class Thing(Record, kw_only=True, tag=1):
    """A record of a type that the database does not know."""


class Stores:
    """A database with a store of each kind, and what is in them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.jobs = JobStore(database)
        self.executions = ExecutionStore(database)
        self.settings = KeyValueStore(database, "settings")
        self.owner: Owner = this_process("here")
        self.jobs.create(Job(id="first"))
        self.jobs.create(Job(id="queued", state="Queued"))
        gone = Owner("here", 1, self.owner.boot_id, "1")
        self.executions.create(Execution(id="orphan", job_id="first", state="Running", owner=gone))
        self.settings["there"] = 1
        self.settings["led", "red"] = 1
        # A first look at a lock makes its store.
        with self.settings.lock("known"):
            pass

    def state(self) -> object:
        """All that a write could have changed."""
        return (
            sorted(job.id for job in self.jobs.each()),
            self.executions.get("orphan").state,
            dict(self.settings),
            self.database.checkpoint("c"),
            [record.id for record in self.settings.locks()],
        )


def kv_store(stores: Stores) -> object:
    return KeyValueStore(stores.database, "another")


def another_type(stores: Stores) -> object:
    return RecordStore(stores.database, RecordSpec(name="thing", type=Thing, plural="things"))


def in_a_block(stores: Stores) -> None:
    with stores.database.transaction():
        stores.jobs.create(Job(id="second"))


def take_a_lock(stores: Stores) -> None:
    stores.settings.lock("known", timeout=0).acquire()


ENTRANCES: dict[str, Callable[[Stores], object]] = {
    "create": lambda s: s.jobs.create(Job(id="second")),
    "create_many": lambda s: s.jobs.create_many([Job(id="second"), Job(id="third")]),
    "set_state": lambda s: s.jobs.set_state("first", "Queued"),
    "delete": lambda s: s.jobs.delete("first"),
    "claim": lambda s: s.jobs.claim(owner=s.owner),
    "recover": lambda s: s.executions.recover(node_id="here", jobs=s.jobs),
    "block": in_a_block,
    "discard": lambda s: s.jobs.discard("first"),
    "recount": lambda s: s.database.recount(repair=True),
    "repair": lambda s: s.database.recount(deep=True, repair=True),
    "compact": lambda s: s.database.compact(()),
    "checkpoint": lambda s: s.database.set_checkpoint("c", 1),
    "delete checkpoint": lambda s: s.database.delete_checkpoint("c"),
    "set": lambda s: s.settings.set("new", 1),
    "set_if_absent": lambda s: s.settings.set_if_absent("new", 1),
    "compare_and_set": lambda s: s.settings.compare_and_set("there", 1, 2),
    "increment": lambda s: s.settings.increment("there"),
    "setdefault": lambda s: s.settings.setdefault("new", 1),
    "update": lambda s: s.settings.update({"new": 1}),
    "update_sections": lambda s: s.settings.update_sections({"led": {"green": 1}}),
    "del": lambda s: s.settings.__delitem__("there"),
    "pop": lambda s: s.settings.pop("there"),
    "popitem": lambda s: s.settings.popitem(),
    "clear": lambda s: s.settings.clear(),
    "lock": take_a_lock,
    "a new store": kv_store,
    "a new type": another_type,
    "close": lambda s: s.database.close_driver(),
}


@pytest.fixture(params=["memory", "sqlite", "lmdb", "bolt", "tinydb"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    location = f"memory:{tmp_path}"
    if request.param != "memory":
        location = f"{request.param}://{tmp_path}/x?durability=off&lock_timeout=5"
    with open_database(location) as database:
        yield Stores(database)


class Struck:
    """What came of a write that was put in between."""

    def __init__(self, stores: Stores, entrance: str) -> None:
        self._stores = stores
        self._name = entrance
        self.outcomes: list[object] = []

    def strike(self, *_: object) -> None:
        began = time.monotonic()
        try:
            self.outcomes.append(ENTRANCES[self._name](self._stores))
        except StorebridgeError as error:
            self.outcomes.append(error)
        assert time.monotonic() - began < 2, f"{self._name} waited for itself"

    def check_refused(self) -> None:
        (outcome,) = self.outcomes
        assert isinstance(outcome, TransactionError), (self._name, outcome)


@contextmanager
def handling(handler: Callable[..., object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def strike() -> None:
    signal.raise_signal(signal.SIGUSR1)


def create_and_strike(unit: Unit, stores: Stores) -> None:
    stores.jobs._write.create(unit, Job(id="outer"))
    strike()
    stores.jobs._write.update(unit, "outer", None, {"message": "done"})


@contextmanager
def struck_by(stores: Stores, entrance: str) -> Iterator[None]:
    """A signal in the block has a handler that writes: that is refused, and nothing of it there."""
    before = stores.state()
    struck = Struck(stores, entrance)
    with handling(struck.strike):
        yield
    struck.check_refused()
    assert stores.jobs.get("outer")
    stores.jobs.delete("outer")
    assert stores.state() == before, entrance


def test_in_a_step(stores: Stores) -> None:
    """In the midst of a single write: refused, and that one is done whole."""
    for entrance in ENTRANCES:
        with struck_by(stores, entrance):
            stores.database.write(create_and_strike, stores)
            assert stores.jobs.get("outer").message == "done"
    assert list(check(stores.database)) == []


def test_in_a_step_of_a_block(stores: Stores) -> None:
    """In a step that then fails: all of that is undone, and the block goes on."""

    def fail(unit: Unit) -> None:
        stores.jobs._write.create(unit, Job(id="undone"))
        strike()
        raise TransactionError("as it was not to be")

    for entrance in ENTRANCES:
        with struck_by(stores, entrance), stores.database.transaction():
            stores.jobs.create(Job(id="outer"))
            with pytest.raises(TransactionError, match="not to be"):
                stores.database.write(fail)
    assert list(check(stores.database)) == []


def create_outer(stores: Stores, block: bool) -> None:
    if not block:
        stores.jobs.create(Job(id="outer"))
        return
    with stores.database.transaction():
        stores.jobs.create(Job(id="outer"))


@pytest.mark.parametrize("block", [False, True], ids=["single", "block"])
def test_while_it_begins(stores: Stores, block: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the turn is taken, and the engine's transaction is about to begin."""
    begin = stores.database.driver.begin

    def begin_struck(write: bool, single: bool = False) -> Any:
        if write:
            monkeypatch.undo()
            strike()
        return begin(write, single)

    for entrance in ENTRANCES:
        with struck_by(stores, entrance):
            monkeypatch.setattr(stores.database.driver, "begin", begin_struck)
            create_outer(stores, block)


@pytest.mark.parametrize("block", [False, True], ids=["single", "block"])
def test_while_it_commits(stores: Stores, block: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the events are numbered: what came then would have no number."""
    commit = Unit.commit

    def commit_struck(unit: Unit) -> None:
        monkeypatch.undo()
        strike()
        commit(unit)

    for entrance in ENTRANCES:
        with struck_by(stores, entrance):
            monkeypatch.setattr(Unit, "commit", commit_struck)
            create_outer(stores, block)


def test_while_it_waits(stores: Stores) -> None:
    """When the thread stands in line: it is refused at once, rather than wait for itself."""
    for entrance in ENTRANCES:
        with struck_by(stores, entrance):
            holds, go_on = threading.Event(), threading.Event()
            handler = signal.getsignal(signal.SIGUSR1)

            def strike_and_go_on(
                *_: object, handler: Any = handler, go_on: threading.Event = go_on
            ) -> None:
                try:
                    handler()
                finally:
                    go_on.set()

            def hold(holds: threading.Event = holds, go_on: threading.Event = go_on) -> None:
                with stores.database.transaction():
                    holds.set()
                    while not stores.database._turn.line:
                        time.sleep(0.001)
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                    go_on.wait(10)

            holder = threading.Thread(target=hold)
            with handling(strike_and_go_on):
                holder.start()
                holds.wait(10)
                stores.jobs.create(Job(id="outer"))
            holder.join(10)


def test_between_two_steps_of_a_block(stores: Stores) -> None:
    """There it is part of the block, as all is that the thread writes in it."""
    struck = Struck(stores, "create")
    with handling(struck.strike):
        with stores.database.transaction():
            strike()
        assert stores.jobs.get("second")
        stores.jobs.delete("second")
        with pytest.raises(ZeroDivisionError):
            strike_in_a_block_that_fails(stores)
    assert "second" not in [job.id for job in stores.jobs.each()]


def test_between_two_keys(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that changes several keys is one write: what comes in between is refused, too."""
    settings = stores.settings
    calls: list[Callable[[], object]] = [
        lambda: settings.update({"a": 1, "b": 2}),
        lambda: settings.update_sections({"led": {"a": 1}, "b": {"c": 1}}),
        settings.popitem,
        settings.clear,
    ]
    for call in calls:
        struck = Struck(stores, "create")
        with handling(struck.strike), monkeypatch.context() as patch:
            for name in ("put", "take"):
                patch.setattr(settings._write, name, then_strike(getattr(settings._write, name)))
            call()
        assert struck.outcomes
        assert all(isinstance(each, TransactionError) for each in struck.outcomes)
    assert settings == {}
    assert "second" not in [job.id for job in stores.jobs.each()]


def then_strike(change: Callable[..., object]) -> Callable[..., object]:
    def changed(*args: object) -> object:
        result = change(*args)
        strike()
        return result

    return changed


def strike_in_a_block_that_fails(stores: Stores) -> None:
    with stores.database.transaction():
        strike()
        raise ZeroDivisionError


class Finalised:
    """Writes when it goes, and is in a cycle, so that it goes when Python likes."""

    def __init__(self, struck: Struck) -> None:
        self.itself = self
        self._struck = struck

    def __del__(self) -> None:
        self._struck.strike()


@pytest.mark.parametrize("entrance", ["create", "block", "set", "checkpoint"])
def test_a_finaliser_in_somebody_elses_write(stores: Stores, entrance: str) -> None:
    """In the thread that has taken others' writes along: the finaliser's is in none of them."""
    before = stores.state()
    struck = Struck(stores, entrance)
    holds = threading.Event()

    def collect(unit: Unit, name: str) -> None:
        stores.jobs._write.create(unit, Job(id=name))
        gc.collect()

    def hold(unit: Unit) -> None:
        holds.set()
        while len(stores.database._turn.line) < 2:
            time.sleep(0.001)
        Finalised(struck)

    threads = [threading.Thread(target=stores.database.write, args=(hold,))]
    threads[0].start()
    holds.wait(10)
    for name in ("outer-1", "outer-2"):
        threads.append(threading.Thread(target=stores.database.write, args=(collect, name)))
        threads[-1].start()
    for thread in threads:
        thread.join(10)
    struck.check_refused()
    stores.jobs.delete("outer-1")
    stores.jobs.delete("outer-2")
    assert stores.state() == before


def test_a_watcher_that_is_collected(stores: Stores) -> None:
    """In the midst of a write its checkpoint stays where it was: it meets some events again."""
    unraisable: list[object] = []
    database = stores.database
    watched = database.watch(checkpoint="c", timeout=0)
    first = next(watched)
    next(watched)
    found = [watched]
    found.append(found)  # type: ignore[arg-type]
    del watched, found

    def collect(unit: Unit) -> None:
        stores.jobs._write.create(unit, Job(id="outer"))
        gc.collect()

    def note(problem: object) -> None:
        unraisable.append(problem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", note)
        database.write(collect)
    assert unraisable == []
    assert stores.jobs.get("outer")
    assert database.checkpoint("c") is None
    assert next(database.watch(checkpoint="c", timeout=0)) == first
    assert database._listeners == []


@pytest.mark.parametrize("backend", ["sqlite", "lmdb"])
def test_a_watcher_that_is_collected_while_another_begins(backend: str, tmp_path: Path) -> None:
    """In the midst of that: it waits for nobody, and the other one hears."""
    with open_database(f"{backend}://{tmp_path}/x?durability=off") as database:
        jobs = JobStore(database)
        jobs.create(Job())
        left = [database.watch(after=0)]
        next(left[0])
        stays = threading.Event()
        ears = database.driver._ears  # type: ignore[attr-defined]
        with ears._lock:
            left.clear()
            gc.collect()
            database.on_events(stays.set)
        jobs.create(Job())
        assert stays.wait(10)
        stays.clear()
        ears.tell()
        assert stays.is_set()
        assert ears._thread is not None
        assert ears._thread.is_alive()
        database.off_events(stays.set)


def test_a_check_of_the_file(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine finds something in the midst of a write, nobody can tell what it is."""
    found = ["a page is damaged"]
    monkeypatch.setattr(stores.database.driver, "check", lambda: iter(found))
    outcomes: list[object] = []

    def look(*_: object) -> None:
        try:
            outcomes.append(stores.database.engine_check())
        except TransactionError as error:
            outcomes.append(error)

    with handling(look):
        stores.database.write(create_and_strike, stores)
        with stores.database.transaction():
            strike()
        strike()
    assert isinstance(outcomes[0], TransactionError)
    assert outcomes[1:] == [found, found]
    assert stores.database._turn.try_take()
    stores.database._turn.give()


def test_what_it_says(stores: Stores) -> None:
    """What happened, where, and what to do."""
    struck = Struck(stores, "create")
    with handling(struck.strike):
        stores.database.write(create_and_strike, stores)
    text = str(struck.outcomes[0])
    assert "signal handler" in text
    assert "write when" in text
    assert stores.database.location.text in text
