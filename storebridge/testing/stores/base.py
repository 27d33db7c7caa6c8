"""What the tests of a store share: fixtures, a clock, and the judge of a database's soundness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from storebridge import Database, ExecutionStore, JobStore, RecordStore, open_database
from storebridge.check import check
from storebridge.driver import Options, Range, Rows, Transaction
from storebridge.location import Location
from storebridge.testing.harness import BackendHarness, patience

Calls = tuple[Callable[[], object], ...]
"""What is tried one after another."""
START = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


class Ticks:
    """A clock that goes on by `step` whenever it is looked at."""

    def __init__(
        self, step: timedelta = timedelta(milliseconds=1), start: datetime = START
    ) -> None:
        self.step = step
        self.time = start

    def __call__(self) -> datetime:
        self.time += self.step
        return self.time


def store_location(harness: BackendHarness, target: str | None = None, **options: Any) -> Location:
    """A location of the backend under test; quick, not durable, unless `options` say otherwise."""
    target = harness.target if target is None else target
    chosen = Options(**{"durability": "off", "lock_timeout": patience(5.0), **options})
    return Location(harness.backend, target, chosen, f"{harness.backend.name}:{target}")


def open_at(
    harness: BackendHarness,
    target: str | None = None,
    clock: Callable[[], datetime] | None = None,
    **options: Any,
) -> Database:
    """The database of a target; the test's own if none is given."""
    return open_database(store_location(harness, target, **options), clock=clock or Ticks())


def another_target(harness: BackendHarness) -> str:
    """A target of this test's other than its own, whatever the backend calls its databases."""
    fresh = harness.fresh()
    return fresh if fresh != harness.target else f"{fresh}another"


class StoreTests:
    """Supply `harness`; the rest follows from it."""

    @pytest.fixture
    def harness(self) -> BackendHarness:
        raise NotImplementedError("supply the fixture harness: see storebridge.testing")

    @pytest.fixture
    def database(self, harness: BackendHarness) -> Iterator[Database]:
        database = open_at(harness)
        yield database
        database.close()

    @pytest.fixture
    def jobs(self, database: Database) -> JobStore:
        return JobStore(database)

    @pytest.fixture
    def executions(self, database: Database) -> ExecutionStore:
        return ExecutionStore(database)


def all_rows(database: Database, table: str) -> Rows:
    """Every entry of a table."""
    found: Rows = []
    position = None
    while True:
        rows, position = database.read(_scan, table, Range(after=position, limit=1000))
        found += rows
        if position is None:
            return found


def _scan(transaction: Transaction, table: str, part: Range) -> Any:
    return transaction.scan(table, part)


def contents(database: Database) -> dict[str, Any]:
    """All that a database holds but its opener's mark: what a rolled-back change must not touch."""
    found: dict[str, Any] = {
        table.name: [row for row in all_rows(database, table.name) if not _is_mark(row[0][0])]
        for table in database.tables()
    }
    return found | {"totals": {k: v for k, v in database.read(_totals).items() if v}}


def _is_mark(name: str | int) -> bool:
    return str(name).startswith("opener ")


def _totals(transaction: Transaction) -> dict[str, int]:
    return transaction.totals("")


def assert_sound(database: Database) -> None:
    """Indexes, labels and counters agree with the bodies, and each record's events have no gap."""
    assert [fault for fault in check(database) if "opener" not in fault.problem] == []
    for layout in database.layouts.values():
        bodies = [msgspec.json.decode(body) for _, body in all_rows(database, layout.record.name)]
        states = Counter(body.get("state", "") if layout.states else "" for body in bodies)
        assert states == {s: n for s, n in database.counts(layout).items() if n}
        revisions = {body["id"]: body["revision"] for body in bodies}
        seen = last_revisions(database, layout.name)
        assert {i: r for i, r in seen.items() if i in revisions} == revisions


def last_revisions(database: Database, store: str) -> dict[str, int]:
    """The revision that the events of each record lead to; AssertionError where one is missing."""
    last: dict[str, int] = {}
    sequence = 0
    for event in database.events(stores=[store]):
        assert event.sequence > sequence
        sequence = event.sequence
        if event.kind == "created":
            assert event.revision == 1
        elif event.kind != "deleted":
            assert event.revision == last[event.record_id] + 1
        last[event.record_id] = event.revision
    return last


def ids(records: Any) -> list[str]:
    """The ids of records, in their order."""
    return [record.id for record in records]


def edit_body(store: RecordStore[Any], record_id: str, change: Callable[[bytes], bytes]) -> bytes:
    """Write another body with unchanged columns, as an edit by hand does. Returns the body."""
    table = store.layout.record.name
    old = store.database.get(table, (record_id,))
    assert old is not None
    values = store._write._columns.of(store.codec.decode(old))
    new = change(old)
    store.database.write(lambda unit: unit.engine.replace(table, (record_id,), values, values, new))
    return new
