"""Which record types a store takes, and what becomes of the times in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import Any, Optional

import msgspec
import pytest
from msgspec import Raw

from storebridge import (
    ConfigurationError,
    Database,
    InvalidRecordError,
    Job,
    JobStore,
    Record,
    RecordSpec,
    RecordStore,
    open_database,
)

EAST = timezone(timedelta(hours=2))
NOON = datetime(2026, 1, 1, 12, tzinfo=EAST)


class Number(IntEnum):
    ONE = 1


class Word(StrEnum):
    ONE = "one"


class Visit(msgspec.Struct, frozen=True):
    at: datetime
    note: Any = None
    more: list[Visit] = []


class Trip(Record, kw_only=True, tag=1):
    due: Optional[datetime] = None  # noqa: UP045 - the older way to write it
    stops: list[datetime] = []
    visits: dict[Word, Visit] = {}
    either: datetime | int = 0
    raw: Raw = Raw(b"null")


@pytest.fixture
def database() -> Iterator[Database]:
    with open_database("memory:types") as database:
        yield database


@pytest.fixture
def trips(database: Database) -> RecordStore[Trip]:
    return RecordStore(database, RecordSpec(name="trip", type=Trip, filters=("due",)))


def test_optional_times_are_times(database: Database, trips: RecordStore[Trip]) -> None:
    """`Optional[datetime]` is `datetime | None`: in UTC, with microseconds, and with a zone."""
    trips.create(Trip(id="t", due=NOON))
    assert b'"due":"2026-01-01T10:00:00.000000Z"' in (database.get("trip", ("t",)) or b"")
    assert len(trips.find(due=NOON)) == 1
    with pytest.raises(InvalidRecordError, match="due: expected a time with a zone"):
        trips.create(Trip(due=datetime(2026, 1, 1)))


WITHIN: dict[str, Callable[[datetime], dict[str, Any]]] = {
    "a list": lambda time: {"stops": [NOON, time]},
    "a struct in a dict": lambda time: {"visits": {Word.ONE: Visit(time)}},
    "deep": lambda time: {"visits": {Word.ONE: Visit(NOON, more=[Visit(time)])}},
    "one of several types": lambda time: {"either": time},
}


@pytest.mark.parametrize("where", WITHIN)
def test_times_within(database: Database, trips: RecordStore[Trip], where: str) -> None:
    """Times in lists, dicts and structs are kept in UTC, and refused without a zone."""
    values = WITHIN[where]
    with pytest.raises(InvalidRecordError, match="expected a time with a zone"):
        trips.create(Trip(**values(datetime(2026, 1, 1))))
    assert trips.create(Trip(id="t", **values(NOON))) == trips.get("t")
    trips.update("t", raw=Raw(b"1"))
    body = database.get("trip", ("t",)) or b""
    assert b"10:00:00Z" in body
    assert b"+02:00" not in body


@pytest.mark.parametrize("key", [int, Number, datetime, float])
def test_dicts_with_other_keys_than_text(database: Database, key: Any) -> None:
    """JSON has none; said when the store is made, and no table of it is."""
    struct = msgspec.defstruct(
        "Inner", [("members", dict[key, str], msgspec.field(default_factory=dict))]
    )
    for annotation in (dict[key, int], list[dict[key, int]], struct):
        made: Any = msgspec.defstruct(
            "Odd", [("odd", annotation)], bases=(Record,), kw_only=True, tag=1
        )
        with pytest.raises(ConfigurationError, match=r"Odd\.odd: .*dict\[str"):
            RecordStore(database, RecordSpec(name="odd", type=made))
    assert "odd" not in database.layouts


def test_one_of_a_few_values(database: Database) -> None:
    """What a field may be is told to who gives it something else."""
    with pytest.raises(InvalidRecordError) as caught:
        JobStore(database).create(Job(type="cron"))  # type: ignore[arg-type]
    assert str(caught.value) == "type: 'cron' is none of batch, daemon, ops, service"
