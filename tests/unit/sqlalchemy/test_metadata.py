"""Our tables in SQLAlchemy, and SQLite files that two backends open."""

from __future__ import annotations

import importlib.util
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa
from storebridge_sqlalchemy import engine_of, metadata_of

from storebridge import Execution, ExecutionStore, Job, JobStore, open_database
from storebridge.check import check
from storebridge.testing.stores.base import assert_sound

EXAMPLE = Path(__file__).parents[3] / "examples" / "joined_table.py"


@pytest.fixture(params=["sqlite", "sqlite+pysqlite", "postgresql", "prefix"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param.startswith("sqlite"):
        return f"{request.param}://{tmp_path}/store.db"
    target: str = request.getfixturevalue("target")
    return target if request.param == "postgresql" else f"{target}&prefix=mine_"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("joined_table", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_as_described(location: str) -> None:
    """What the metadata says is what the database has: tables, columns and indexes."""
    with open_database(location) as database:
        JobStore(database)
        ExecutionStore(database)
        metadata, engine = metadata_of(database), engine_of(database)
        inspector = sa.inspect(engine)
        assert len(metadata.tables) == len(database.tables())
        for table in metadata.tables.values():
            columns = inspector.get_columns(table.name, schema=table.schema)
            assert [column["name"] for column in columns] == [c.name for c in table.columns]
            key = inspector.get_pk_constraint(table.name, schema=table.schema)
            if not location.startswith("sqlite"):  # there, a number in the key may be the row's
                assert set(key["constrained_columns"]) == {c.name for c in table.primary_key}
                made = inspector.get_indexes(table.name, schema=table.schema)
                assert {(i["name"], tuple(i["column_names"]), i["unique"]) for i in made} == {
                    (i.name, tuple(c.name for c in i.columns), i.unique) for i in table.indexes
                }
        engine.dispose()


def test_joined_table(
    location: str, example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example runs on all of them, twice on the same database."""
    if location.endswith("prefix=mine_"):
        location = location.removesuffix("&prefix=mine_")
    for times in (1, 2):
        example.main(location)
        assert (
            capsys.readouterr().out
            == f"Cancelled: {7 * times} cents\nCreated: {14 * times} cents\n"
        )
    with open_database(location) as database:
        assert ExecutionStore(database).count() == 6
        assert_sound(database)


def test_reading_by_sqlalchemy(location: str) -> None:
    """A select of one's own finds what the store has, with awkward text and all."""
    prefix = "mine_" if location.endswith("mine_") else ""
    with open_database(location) as database:
        jobs = JobStore(database)
        for name in ("é", "'; --", "%s", "😀"):
            jobs.create(Job(id=name))
        engine = engine_of(database)
        job = sa.Table(f"{prefix}job", metadata_of(database))
        with engine.connect() as connection:
            found = connection.execute(sa.select(job.c.id).where(job.c.state == "Pending"))
            assert sorted(found.scalars()) == sorted(["é", "'; --", "%s", "😀"])
            row = connection.execute(sa.select(job).where(job.c.id == "%s")).one()
            assert (row.namespace, row.body.encode()) == ("default", database.get("job", ("%s",)))
        engine.dispose()


@pytest.mark.parametrize("first", ["sqlite", "sqlite+pysqlite"])
def test_files_go_both_ways(tmp_path: Path, first: str) -> None:
    """A file that one of the two backends made is the other's as well: the same tables, mark, mode
    and side files, and neither changes what the other has made of them.
    """
    second = {"sqlite": "sqlite+pysqlite", "sqlite+pysqlite": "sqlite"}[first]
    path = tmp_path / "store.db"
    with open_database(f"{first}://{path}?mode=640") as database:
        JobStore(database).create(Job(id="first", labels={"a": "b"}))
        assert database.location.backend.name == first.replace("sqlite+pysqlite", "sqlalchemy")
    schema, mode = _schema(path), path.stat().st_mode
    beside = sorted(each.name for each in tmp_path.iterdir())
    with open_database(f"{second}://{path}") as database:
        jobs = JobStore(database)
        jobs.set_state("first", "Running")
        jobs.create(Job(id="second"))
        assert_sound(database)
    assert (_schema(path), path.stat().st_mode) == (schema, mode)
    assert sorted(each.name for each in tmp_path.iterdir()) == beside
    with open_database(f"{first}://{path}") as database:
        states = {job.id: job.state for job in JobStore(database).each()}
        assert states == {"first": "Running", "second": "Pending"}
        assert_sound(database)


def test_both_at_once(tmp_path: Path) -> None:
    """The two in one process, on one file: they take turns like two processes."""
    path = tmp_path / "store.db"
    with (
        open_database(f"sqlite://{path}") as one,
        open_database(f"sqlite+pysqlite:///{path}") as other,
    ):
        assert one is not other
        for number in range(10):
            for database in (one, other):
                JobStore(database).create(Job(id=f"{number}-{id(database)}"))
        assert JobStore(one).count() == JobStore(other).count() == 20
        assert list(check(one)) == list(check(other)) == []


def test_sqlite_files_need_no_import_of_sqlalchemy(tmp_path: Path) -> None:
    """The backend `sqlite` does not import SQLAlchemy, nor does recognising a location."""
    script = (
        "import sys, storebridge\n"
        "from storebridge.location import parse_location\n"
        f"with storebridge.open_job_store('sqlite://{tmp_path}/a.db') as jobs: jobs.find()\n"
        "parse_location('postgresql+psycopg://host/db')\n"
        "print(sorted({'sqlalchemy', 'psycopg'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_created_by_hand_from_the_metadata(tmp_path: Path) -> None:
    """The metadata can make the tables elsewhere, for a report that is kept beside."""
    with open_database("sqlite+pysqlite:" + str(tmp_path / "a.db")) as database:
        executions = ExecutionStore(database)
        executions.create(Execution(id="e", job_id="j"))
        metadata = metadata_of(database)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/copy.db")
    metadata.create_all(engine)
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert {"execution", "execution_history", "execution_by_state"} <= names


def _schema(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        marks = [
            connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("application_id", "user_version", "journal_mode")
        ]
    return [*made, *((str(mark), "") for mark in marks)]
