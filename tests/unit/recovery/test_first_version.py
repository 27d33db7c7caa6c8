"""A database whose executions were written before there were leases."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import Raw

from storebridge import (
    EXECUTION_STATES,
    Database,
    ExecutionStore,
    NewerRecordError,
    Owner,
    Record,
    RecordSpec,
    RecordStore,
    open_database,
)
from storebridge.check import check

GONE = Owner("n", 1, "an earlier boot", "1")


class FirstExecution(Record, kw_only=True, tag=1):
    """An execution as it was in the first version."""

    job_id: str
    namespace: str = "default"
    node_id: str | None = None
    state: str = ""
    desired_state: str | None = None
    spec: Raw = Raw(b"{}")
    result: Raw = Raw(b"null")
    owner: Owner | None = None
    previous_id: str | None = None
    next_id: str | None = None
    message: str = ""


FIRST = RecordSpec(
    name="execution",
    type=FirstExecution,
    machine=EXECUTION_STATES,
    filters=("job_id", "state", "node_id", "namespace"),
    added_when_terminal=("next_id",),
)


@pytest.fixture(params=["sqlite", "lmdb", "bolt", "tinydb"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database as the first version left it."""
    location = f"{request.param}://{tmp_path}/node"
    with open_database(location) as database:
        store = RecordStore(database, FIRST)
        for number in range(3):
            execution = FirstExecution(id=f"e-{number}", job_id="j", state="Running", owner=GONE)
            store.create(execution)
        store.set_state("e-2", "Completed")
    return location


def test_it_opens(location: str) -> None:
    """It is read as it is, written in the new version where it is changed, and holds leases."""
    with open_database(location) as database:
        executions = ExecutionStore(database)
        assert [e.lease_until for e in executions.each()] == [None] * 3
        assert executions.heartbeat("e-0", GONE, timedelta(seconds=5)).revision == 1
        assert len(executions.recover(node_id="n").failed) == 2
        assert versions(database) == [2, 2, 1]
        assert list(check(database)) == []
    if location.startswith("sqlite"):
        rows = sqlite3.connect(location.removeprefix("sqlite://")).execute(
            "select id, lease_until is null from executions order by id"
        )
        assert rows.fetchall() == [("e-0", 0), ("e-1", 1), ("e-2", 1)]


def test_it_opens_read_only(location: str) -> None:
    """Also where nothing can be written, the database's own notes of its stores neither."""
    with open_database(location, read_only=True) as database:
        assert len(ExecutionStore(database).recover(node_id="n", dry_run=True).failed) == 2
        assert versions(database) == [1, 1, 1]


def test_the_first_version_goes_on(location: str) -> None:
    """A service of the first version can use it still; it does not drop what it does not know."""
    with open_database(location) as database:
        ExecutionStore(database).update("e-0", lease_until=database.clock())
    with open_database(location) as database:
        first = RecordStore(database, FIRST)
        with pytest.raises(NewerRecordError):
            first.set_state("e-0", "Failed")
        first.set_state("e-1", "Failed")
    with open_database(location) as database:
        assert ExecutionStore(database).get("e-0").lease_until is not None
        assert list(check(database)) == []


def versions(database: Database) -> list[int]:
    """Of the bodies, as they are stored."""
    bodies = [database.get("execution", (f"e-{number}",)) or b"" for number in range(3)]
    return [int(body[5:6]) for body in bodies]
