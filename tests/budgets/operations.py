"""The operations that have a budget, through the public interface alone, each on a database of its
own: so that one that is added, or costs more, changes what no other one costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import count
from math import inf
from pathlib import Path
from typing import NamedTuple

from storebridge import (
    Database,
    Job,
    JobStore,
    KeyValueStore,
    open_database,
    this_process,
    to_json,
)

BACKENDS = ("sqlite", "lmdb", "bolt", "tinydb", "memory")
TIMES = 10
"""How often each operation is done: what grows now and then, as a tree does, counts in part."""
RECORDS = 150
_BEFORE = 3
"""How often it is done first, uncounted: what is made once is ready then."""
_SPEC = to_json({"image": "debian", "command": ["sh", "-c", "exit 0"]})
_LEASE = timedelta(minutes=5)
_ticks = count()


def _clock() -> datetime:
    """A millisecond later each time: keys that hold a time differ from run to run by that alone."""
    return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(milliseconds=next(_ticks))


class Stores(NamedTuple):
    """An open database with what the operations need."""

    database: Database
    jobs: JobStore
    settings: KeyValueStore


Counted = Callable[[], AbstractContextManager[object]]
"""What is done in its block is counted."""


class Operation(NamedTuple):
    """`do(stores, number)` is done for numbers from 0 in a database that is filled, closed and open
    again. `prepare` has readied it before."""

    name: str
    do: Callable[[Stores, int], object]
    prepare: Callable[[Stores], object] = lambda stores: None

    def run(self, backend: str, folder: Path, counted: Counted) -> None:
        location = location_of(backend, folder)
        stores = open_stores(location)
        fill(stores)
        self.prepare(stores)
        if backend != "memory":  # which keeps nothing for the next opener
            stores.database.close()
            stores = open_stores(location)
        for number in range(_BEFORE):
            self.do(stores, number)
        with counted():
            for number in range(_BEFORE, _BEFORE + TIMES):
                self.do(stores, number)
        stores.database.close()


class Opening(NamedTuple):
    """Opening, or closing after a change, of a database that is there or, each time, is not."""

    name: str
    counts_opening: bool
    is_new: bool = False

    def run(self, backend: str, folder: Path, counted: Counted) -> None:
        for number in range(1 + TIMES):
            place = folder / str(number if self.is_new else 0)
            place.mkdir(exist_ok=True)
            counted_now = counted if number else nullcontext  # the first imports the backend
            with (counted_now if self.counts_opening else nullcontext)():
                stores = open_stores(location_of(backend, place))
            stores.settings["opened"] = number
            with (nullcontext if self.counts_opening else counted_now)():
                stores.database.close()


def location_of(backend: str, folder: Path) -> str:
    return f"memory:{folder.name}" if backend == "memory" else f"{backend}://{folder}/node"


def open_stores(location: str) -> Stores:
    database = open_database(location, clock=_clock)
    database.statistics.slow_after = inf  # what is logged of a busy machine is no cost of ours
    return Stores(database, JobStore(database), KeyValueStore(database, "settings"))


def fill(stores: Stores) -> None:
    """Jobs and settings whose ids are the same every time: of keys that are drawn, trees differ."""
    with stores.database.transaction():
        for number in range(RECORDS):
            stores.jobs.create(job(number))
            stores.settings[f"key-{number:04}"] = number


def job(number: int) -> Job:
    return Job(
        id=name_of(number),
        namespace="lab",
        type="ops",
        priority=number % 4,
        labels={"team": "web", "number": str(number)},
        spec=_SPEC,
        message="accepted",
    )


def name_of(number: int) -> str:
    # In no order, as ids that are drawn, but the same ones every time.
    return f"job-{number * 7919 % 10_000:04}"


def _create(stores: Stores, number: int) -> None:
    stores.jobs.create(job(RECORDS + number))


def _create_ten(stores: Stores, number: int) -> None:
    with stores.database.transaction():
        for each in range(10):
            stores.jobs.create(job(RECORDS + 10 * number + each))


def _refused(stores: Stores, number: int) -> None:
    results = stores.jobs.create_many([job(number)])
    assert isinstance(results[0], Exception)


def _claim(stores: Stores, number: int) -> None:
    assert stores.jobs.claim(1, owner=this_process("node-1"), lease=_LEASE)


def _hold(stores: Stores) -> None:
    assert len(stores.jobs.claim(20, owner=this_process("node-1"), lease=_LEASE)) == 20


def _heartbeat(stores: Stores, number: int) -> None:
    # Priority 3 is claimed first, and in it the oldest.
    stores.jobs.heartbeat(name_of(4 * number + 3), this_process("node-1"), _LEASE)


def _found(stores: Stores, expected: int, **query: str) -> None:
    assert len(stores.jobs.find(limit=100, **query)) == expected  # type: ignore[arg-type]


def _watch(stores: Stores, events: int) -> None:
    """One look of a watcher that is `events` behind."""
    after = stores.database.sequence() - events
    assert len(list(stores.database.watch(after, timeout=0))) == events


def _watch_on(stores: Stores, number: int) -> None:
    """A watcher with a checkpoint takes it up, sees an event and moves it on."""
    stores.jobs.set_state(name_of(number), "Queued")
    assert list(stores.database.watch(checkpoint="mailer", timeout=0))


def _set_checkpoint(stores: Stores) -> None:
    stores.database.set_checkpoint("mailer", stores.database.sequence())


def _change_ten_times(stores: Stores) -> None:
    for number in range(_BEFORE + TIMES):
        for each in range(10):
            stores.jobs.update(name_of(number), message=f"{each}")


def _compact(stores: Stores, number: int) -> None:
    pruned = stores.database.compact().pruned
    assert not any(each.total for each in pruned.values())


OPERATIONS: Sequence[Operation | Opening] = (
    Opening("open a new one", counts_opening=True, is_new=True),
    Opening("open", counts_opening=True),
    Opening("close", counts_opening=False),
    Operation("create", _create),
    Operation("create ten in a transaction", _create_ten),
    Operation("create what is there", _refused),
    Operation("get", lambda stores, n: stores.jobs.get(name_of(n))),
    Operation("set_state", lambda stores, n: stores.jobs.set_state(name_of(n), "Queued")),
    Operation("update", lambda stores, n: stores.jobs.update(name_of(n), message="changed")),
    Operation("delete", lambda stores, n: stores.jobs.delete(name_of(n))),
    Operation("find 100 by state", lambda stores, _: _found(stores, 100, state="Pending")),
    Operation("find 100 by label", lambda stores, _: _found(stores, 100, labels="team=web")),
    Operation("find one by label", lambda stores, n: _found(stores, 1, labels=f"number={n}")),
    Operation(
        "get by name", lambda stores, n: stores.jobs.get_unique(namespace="lab", name=name_of(n))
    ),
    Operation("counts", lambda stores, _: stores.jobs.counts()),
    Operation(
        "history of eleven",
        lambda stores, n: stores.jobs.history(name_of(n)),
        prepare=_change_ten_times,
    ),
    Operation("claim", _claim),
    Operation("heartbeat", _heartbeat, prepare=_hold),
    Operation("set a new key", lambda stores, n: stores.settings.set(f"new-{n:04}", n)),
    Operation("set a key again", lambda stores, n: stores.settings.set(f"key-{n:04}", -n)),
    Operation("get a key", lambda stores, n: stores.settings[f"key-{n:04}"]),
    Operation("delete a key", lambda stores, n: stores.settings.pop(f"key-{n:04}")),
    Operation("increment", lambda stores, _: stores.settings.increment("key-0000")),
    Operation("watch: nothing new", lambda stores, _: _watch(stores, 0)),
    Operation("watch: one event", lambda stores, _: _watch(stores, 1)),
    Operation("set_state and watch on", _watch_on, prepare=_set_checkpoint),
    Operation("recount", lambda stores, _: stores.database.recount()),
    Operation("compact nothing", _compact),
)
