"""What the tests of retention share: a database with a clock by which it ages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

import pytest

from storebridge import Database, Execution, ExecutionStore
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import StoreTests, Ticks, open_at

DAY = timedelta(days=1)


class Aging(NamedTuple):
    """A database, and the clock by which it ages."""

    database: Database
    clock: Ticks


def ended(store: ExecutionStore, record_id: str, state: str = "Completed") -> Execution:
    """An execution that has come to an end."""
    store.create(Execution(id=record_id, job_id="j"))
    store.set_state(record_id, "Running")
    return store.set_state(record_id, state)


def assert_deeply_sound(database: Database) -> None:
    assert [report.faults for report in database.recount(deep=True)] == [()] * len(database.layouts)
    assert all(report.ok for report in database.recount())


class AgingTests(StoreTests):
    """Tests of a database that ages."""

    @pytest.fixture
    def aging(self, harness: BackendHarness) -> Iterator[Aging]:
        clock = Ticks()
        database = open_at(harness, clock=clock)
        yield Aging(database, clock)
        database.close()
