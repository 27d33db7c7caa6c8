"""Names that would collide in some engine's file are refused on every engine."""

from __future__ import annotations

import pytest

from storebridge import (
    ConfigurationError,
    Job,
    JobStore,
    Record,
    RecordSpec,
    RecordStore,
    open_database,
    open_job_store,
)


class Brew(Record, kw_only=True, tag=1):
    created: str = "x"
    id_: str = "y"
    Vessel: str = "v"
    vessel: str = "v"


@pytest.mark.parametrize(
    "name", ["", "Job", "a_b", "a b", "storebridge-meta", "job-history", "x-index", "é", "a" * 41]
)
def test_store_names(name: str) -> None:
    """A store's name is that of files' buckets and of tables."""
    with pytest.raises(ConfigurationError):
        RecordSpec(name=name, type=Brew)


@pytest.mark.parametrize("filters", [("created",), ("id",), ("Vessel", "vessel")])
def test_filter_names(filters: tuple[str, ...]) -> None:
    """A filter's name is that of its index, beside those that every store has."""
    with pytest.raises(ConfigurationError):
        RecordSpec(name="brew", type=Brew, filters=filters)


def test_names_of_other_stores() -> None:
    """No store takes the name of another one's view."""
    with open_database("memory:names") as database:
        JobStore(database)
        with pytest.raises(ConfigurationError, match="belongs to"):
            RecordStore(database, RecordSpec(name="jobs", type=Brew, plural="all-jobs"))


def test_each_ends_while_its_records_change() -> None:
    """Changing what `each` yields in order of modification comes to an end."""
    with open_job_store("memory:each") as jobs:
        for number in range(30):
            jobs.create(Job(id=f"{number:02}"))
        seen = []
        for job in jobs.each(sort="modified_at", limit=7):
            jobs.update(job.id, priority=1)
            seen.append(job.id)
        assert seen == [f"{number:02}" for number in range(30)]


def test_closing_a_store_twice_leaves_other_openers_theirs() -> None:
    """A second close is no second opener's close."""
    with open_job_store("memory:twice") as first, open_job_store("memory:twice") as second:
        first.close()
        first.close()
        second.create(Job())
