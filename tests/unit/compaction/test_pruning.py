"""What changes between finding what may go and removing it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from storebridge import Database, Job, JobStore, Retention, open_database
from storebridge.compaction import leaving
from storebridge.compaction.pruning import _step
from storebridge.compaction.retention import limits_of
from storebridge.testing.stores.base import Ticks

DAY = timedelta(days=1)


@pytest.fixture
def jobs() -> Iterator[JobStore]:
    with open_database("memory:pruning", clock=Ticks()) as database:
        yield JobStore(database)


def test_an_id_that_is_used_again(jobs: JobStore) -> None:
    """The history of a deleted record is left alone if there is one of its id again."""
    database, layout = jobs.database, jobs.layout
    for name in ("gone", "again"):
        jobs.create(Job(id=name))
        jobs.delete(name)
    limits = limits_of([Retention(deleted_keep=timedelta(0))], layout)
    found = list(leaving.events(database, layout, limits, database.clock(), 2**63 - 1))
    assert [(event.key[0], event.whole) for event in found] == [("again", True), ("gone", True)]
    jobs.create(Job(id="again"))
    done, pruned = database.write(_step, database.clock(), layout, limits, "event", found)
    assert (done, pruned.events) == (2, 2)
    assert [event.kind for event in jobs.history("again")] == ["created", "deleted", "created"]
    assert jobs.history("gone") == []


def test_a_checkpoint_that_was_set_meanwhile(jobs: JobStore) -> None:
    """Events stay that a reader has not come to, also if it came after they were found."""
    database, layout = jobs.database, jobs.layout
    jobs.create(Job(id="j"))
    for priority in range(1, 5):
        jobs.update("j", priority=priority)
    limits = limits_of([Retention(events_count=1)], layout)
    found = list(leaving.events(database, layout, limits, database.clock(), 2**63 - 1))
    assert len(found) == 4
    database.set_checkpoint("reader", 2)
    database.write(_step, database.clock(), layout, limits, "event", found)
    assert [event.sequence for event in jobs.history("j")] == [3, 4, 5]
    assert _is_sound(database)


def test_what_is_gone_already(jobs: JobStore) -> None:
    """What another process removed meanwhile is not removed, or counted, again."""
    database, layout = jobs.database, jobs.layout
    jobs.create(Job(id="j"))
    for priority in range(1, 5):
        jobs.update("j", priority=priority)
    jobs.set_state("j", "Completed")
    rule, now = Retention(keep=timedelta(0), versions_count=1), database.clock() + DAY
    limits = limits_of([rule], layout)
    records = list(leaving.records(database, layout, rule, now))
    versions = list(leaving.versions(database, layout, limits, now))
    assert (len(records), len(versions)) == (1, 3)
    for kind, items, counted in (("version", versions, 3), ("record", records, 8)):
        for expected in (counted, 0):
            done, pruned = database.write(_step, now, layout, limits, kind, items)
            assert (done, pruned.total) == (len(items), expected)
    assert _is_sound(database)


def _is_sound(database: Database) -> bool:
    return all(report.ok for report in database.recount(deep=True))
