"""What `find` answers and refuses, where real data found it wanting."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from storebridge import (
    InvalidQueryError,
    Job,
    JobStore,
    Record,
    RecordSpec,
    RecordStore,
    open_database,
)

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def jobs() -> Iterator[JobStore]:
    """Jobs of one moment, whose labels are in another order than their ids."""
    with open_database("memory:find", clock=lambda: MIDNIGHT) as database:
        store = JobStore(database)
        for number in range(6):
            store.create(Job(id=f"j{number}", labels={"app": f"a{9 - number}"}))
        yield store


@pytest.mark.parametrize("descending", [False, True])
def test_records_with_a_label_are_in_order_of_time_and_id(jobs: JobStore, descending: bool) -> None:
    """Whatever the label's value is: also of records that were created at once, page by page."""
    expected = sorted((f"j{number}" for number in range(6)), reverse=descending)
    assert [job.id for job in jobs.each(labels="app", descending=descending, limit=2)] == expected


@pytest.mark.parametrize("bound", ["created_from", "created_until"])
@pytest.mark.parametrize("wrong", [datetime(2026, 1, 1), "2026-01-01", 0])
def test_bounds_of_time_have_a_zone(jobs: JobStore, bound: str, wrong: object) -> None:
    with pytest.raises(InvalidQueryError, match=f"{bound}: expected a time with a zone"):
        jobs.find(**{bound: wrong})  # type: ignore[arg-type]
    with pytest.raises(InvalidQueryError, match=bound):
        jobs.count(**{bound: wrong})


class Reminder(Record, kw_only=True, tag=1):
    due: datetime


def test_filters_by_time_have_a_zone() -> None:
    with open_database("memory:reminders") as database:
        store = RecordStore(database, RecordSpec(name="reminder", type=Reminder, filters=("due",)))
        store.create(Reminder(due=MIDNIGHT))
        assert len(store.find(due=MIDNIGHT)) == 1
        with pytest.raises(InvalidQueryError, match="due: expected a time with a zone"):
            store.find(due=datetime(2026, 1, 1))
