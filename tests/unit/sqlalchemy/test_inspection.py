"""What the server says of itself, and damage that it finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from storebridge import CorruptStoreError, Job, JobStore, open_database
from storebridge.check import check, repair
from storebridge.driver import Driver, ReaderLister
from storebridge.testing.stores.base import assert_sound
from tests.postgres_server import Database, Server


@pytest.mark.parametrize(
    ("server", "durability", "expected"),
    [
        ("on", "full", "on"),
        ("off", "full", "on"),
        ("remote_write", "full", "remote_write"),
        ("on", "relaxed", "off"),
        ("on", "off", "off"),
    ],
)
def test_durability(
    postgresql: Database, target: str, server: str, durability: str, expected: str
) -> None:
    """What was acknowledged in full durability is on disk, also where the server's own setting says
    otherwise; a stricter one is left as it is.
    """
    options = f"options=-c%20synchronous_commit%3D{server}"
    with open_database(f"{target}&durability={durability}&{options}") as database:
        JobStore(database).create(Job(id="j"))
        assert database.describe()["synchronous_commit"] == expected


def test_check_finds_what_postgresql_knows(
    sql: psycopg.Connection, target: str, schema: str
) -> None:
    """An index that PostgreSQL holds for invalid, and one that is gone, are faults; `repair` makes
    it again.
    """
    with open_database(target) as database:
        jobs = JobStore(database)
        jobs.create(Job(id="j"))
        sql.execute(f"DROP INDEX {schema}.job_by_state")
        assert ["index state is missing" in fault.problem for fault in check(database)] == [True]
        repair(database)
        sql.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid ="
            f" '{schema}.job_by_created'::regclass"
        )
        problems = [fault.problem for fault in check(database)]
        assert problems == [
            f"index {schema}.job_by_created is invalid: REINDEX INDEX {schema}.job_by_created"
        ]
        sql.execute(f"REINDEX INDEX {schema}.job_by_created")
        assert_sound(database)
        described = database.describe()
        assert described["schema"] == schema
        assert int(described["table_size"]) > 0


def test_readers(opened: Callable[..., Driver]) -> None:
    """Who keeps what was replaced since is told, and how much was committed meanwhile."""
    one, other = opened(), opened()
    assert isinstance(other, ReaderLister)
    view = one.begin(False)
    view.totals("")
    for _ in range(12):
        change = other.begin(True)
        change.tally({"n": 1})
        change.commit()
    late = {reader.pid for reader in other.readers() if reader.behind >= 12}
    assert late
    view.rollback()
    assert len(late - {reader.pid for reader in other.readers()}) == 1


def test_a_damaged_index(own_postgresql: Server) -> None:
    """Bytes of an index that went bad are told by `check`, with the extension `amcheck`, and by
    whoever reads through them; with the index made anew, as `check` says, nothing is lost.
    """
    location = own_postgresql.target()
    schema = location.rpartition("=")[2]
    with open_database(location) as database:
        jobs = JobStore(database)
        for number in range(300):
            jobs.create(Job(id=f"{number:03}"))
        with own_postgresql.connect() as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
            query = f"SELECT pg_relation_filepath('{schema}.job_by_state')"
            (path,) = connection.execute(query).fetchone() or ("",)
        assert_sound(database)
        own_postgresql.stop()
        file = Path(own_postgresql.folder / "data" / path)
        with file.open("r+b") as index:
            index.seek(8192)
            index.write(bytes(8192))
        own_postgresql.start()
        problems = [fault.problem for fault in check(database)]
        (advice,) = [problem for problem in problems if "job_by_state" in problem]
        assert advice.endswith(f": REINDEX INDEX {schema}.job_by_state")
        with pytest.raises(CorruptStoreError, match="job_by_state"):
            jobs.find(state="Pending")
        assert jobs.get("007").id == "007"
        with own_postgresql.connect() as connection:
            connection.execute(advice.rpartition(": ")[2])
        assert [job.id for job in jobs.each(state="Pending")] == [f"{n:03}" for n in range(300)]
        assert_sound(database)
