"""What is in the database: names, types, views, and what is not ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from storebridge_sqlalchemy import backend

from storebridge import (
    ConfigurationError,
    Execution,
    ExecutionStore,
    ForeignFileError,
    Job,
    JobStore,
    ReadOnlyError,
    Record,
    RecordSpec,
    RecordStore,
    open_database,
    opening,
    to_json,
)
from storebridge.driver import Field, Index, Options, Table, View
from storebridge.testing.harness import writing
from storebridge.testing.samples import TEXTS
from storebridge.testing.stores.base import assert_sound, edit_body
from tests.postgres_server import Database
from tests.unit.sqlalchemy.roles import GRANTS, as_role


def ask(connection: psycopg.Connection, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return connection.execute(query, parameters).fetchall()


def relations(connection: psycopg.Connection, schema: str) -> set[str]:
    query = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind <> 't'"
    return {name for (name,) in ask(connection, query, schema)}


def test_tables_and_types(sql: psycopg.Connection, target: str, schema: str) -> None:
    """Tables are called as with the backend `sqlite`; text is compared by code point, integers have
    64 bits, and a body is the text of one line.
    """
    with open_database(target) as database:
        JobStore(database).create(Job(id="j", name="é", labels={"a": "b"}))
    assert {"job", "job_history", "job_label", "job_version", "jobs", "job_by_state"} <= relations(
        sql, schema
    )
    columns = ask(
        sql,
        "SELECT column_name, data_type, collation_name FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = 'job'",
        schema,
    )
    assert {(kind, collation) for _, kind, collation in columns[:-1]} <= {
        ("text", "C"),
        ("bigint", None),
        ("text", None),
    }
    (row,) = ask(sql, f"SELECT id, name, state, body FROM {schema}.job")
    assert row[:3] == ("j", "é", "Pending")
    assert row[3].startswith("{")
    assert "\n" not in row[3]
    assert ask(sql, f"SELECT DISTINCT layout FROM {schema}.storebridge_layout") == [(1,)]
    assert ask(sql, f"SELECT value FROM {schema}.storebridge WHERE name = 'sequence'") == [(1,)]


def test_views(sql: psycopg.Connection, target: str, schema: str) -> None:
    """Members of the bodies are columns, times also as epoch seconds; what PostgreSQL's JSON cannot
    hold or read disturbs nobody.
    """
    with open_database(target) as database:
        executions = ExecutionStore(database)
        made = executions.create(Execution(id="1", job_id="j", spec=to_json({"image": "x"})))
        executions.create(Execution(id="2", job_id="j", message="a\0b \\u0000 \\\0"))
        for number, body in enumerate((b"garbage", b"\xff\0", b"", b"[" * 20_000), start=3):
            executions.create(Execution(id=str(number), job_id="j"))
            edit_body(executions, str(number), lambda _, body=body: body)  # type: ignore[misc]
        assert len(executions.find().quarantined) == 4
    query = (
        "SELECT id, state, message, spec::json ->> 'image', revision::int, created_at,"
        f" created_at_epoch FROM {schema}.executions ORDER BY id"
    )
    rows = ask(sql, query)
    at = made.created_at
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert rows[0] == ("1", "Created", "", "x", 1, stamp, pytest.approx(at.timestamp(), abs=1e-5))
    assert rows[1][:3] == ("2", "Created", "a\ufffdb \\u0000 \\\ufffd")
    assert [row[:3] for row in rows[2:]] == [(str(n), "Created", None) for n in range(3, 7)]
    counted = ask(sql, f"SELECT state, count(*) FROM {schema}.executions GROUP BY state")
    assert counted == [("Created", 6)]


def test_every_text_is_in_order(sql: psycopg.Connection, target: str, schema: str) -> None:
    """Whatever the database's own collation: SQL sorts as the stores do."""
    with open_database(f"{target}&durability=off") as database:
        jobs = JobStore(database)
        for text in TEXTS:
            jobs.create(Job(id=text))
        found = [job.id for job in jobs.each(sort="id")]
    assert found == sorted(TEXTS)
    assert [name for (name,) in ask(sql, f"SELECT id FROM {schema}.job ORDER BY id")] == found


# --- what is not ours ---

TAKEN = (
    "TABLE {}.job (id text PRIMARY KEY, body text NOT NULL)",
    "VIEW {}.jobs AS SELECT 1 AS id",
    "TABLE {}.storebridge (name text)",
    "TABLE {}.others (state text); CREATE INDEX job_by_state ON {}.others (state)",
)


@pytest.mark.parametrize("made", TAKEN, ids=["table", "view", "storebridge", "index"])
@pytest.mark.parametrize("earlier", [False, True], ids=["new", "beside ours"])
def test_names_that_are_taken(
    sql: psycopg.Connection, target: str, schema: str, made: str, earlier: bool
) -> None:
    """Somebody else's relations are refused where they have our names, and are left alone, also
    where other stores of ours are there; a prefix is a way out.
    """
    sql.execute(f"CREATE SCHEMA {schema}")
    if earlier and "storebridge" not in made:
        with open_database(target) as database:
            ExecutionStore(database)
    for statement in ("CREATE " + made).format(schema, schema).split(";"):
        sql.execute(statement)
    kept = relations(sql, schema)
    with (
        pytest.raises(ForeignFileError, match=r"\?schema=, or other names with \?prefix="),
        closing_opened(),
    ):
        JobStore(open_database(target))
    assert {name for name in relations(sql, schema) - kept if "job" in name} == set()
    with open_database(f"{target}&prefix=mine_") as database:
        JobStore(database).create(Job(id="j"))
        assert_sound(database)
    assert {"mine_job", "mine_jobs", "mine_storebridge"} <= relations(sql, schema)


@contextmanager
def closing_opened() -> Iterator[None]:
    """Close what a failing test body has opened."""
    try:
        yield
    finally:
        for database, _ in list(opening._shared.values()):
            database.close()


def test_two_in_one_schema(target: str) -> None:
    """Prefixes keep databases apart that share a schema."""
    with (
        open_database(f"{target}&prefix=a_") as one,
        open_database(f"{target}&prefix=b_") as other,
        open_database(target) as plain,
    ):
        for database in (one, other, plain):
            JobStore(database).create(Job(id="j"))
            assert_sound(database)
        assert len({id(one), id(other), id(plain)}) == 3
        JobStore(one).delete("j")
        assert [JobStore(each).count() for each in (one, other, plain)] == [0, 1, 1]


def test_tables_of_others_beside_ours(sql: psycopg.Connection, target: str, schema: str) -> None:
    """Tables with other names, and what is built upon ours, are left alone, also when a store grows
    by a column that its view shows.
    """
    old = Table("suite-grown", (Field("id"),), (Field("a"),), view=View("growing", ("id", "a")))
    new = Table(
        "suite-grown",
        (Field("id"),),
        (Field("a"), Field("b", "integer", optional=True)),
        (Index("b", ("b", "id")),),
        View("growing", ("id", "b", "a", "note")),
    )
    driver = backend.open(target, Options())
    driver.create_tables((old,), 1)
    with writing(driver) as transaction:
        transaction.insert(old.name, ("x",), ("1",), b'{"note":"n"}')
    sql.execute(f"CREATE TABLE {schema}.mine (id text)")
    sql.execute(f"CREATE VIEW {schema}.my_view AS SELECT id, a FROM {schema}.growing")
    driver.create_tables((new,), 2)
    assert ask(sql, f"SELECT id, b, a, note FROM {schema}.growing") == [("x", None, "1", "n")]
    assert ask(sql, f"SELECT * FROM {schema}.my_view") == [("x", "1")]
    driver.create_tables((old,), 2)
    assert ask(sql, f"SELECT note FROM {schema}.growing") == [("n",)]
    assert driver.layout() == 2
    driver.close()


class Thing(Record, kw_only=True, tag=1):
    """A record whose names make long ones in SQL."""

    a_field_with_a_name_that_goes_on_and_on: str = ""
    a_field_with_a_name_that_goes_on_and_on_and: str = ""


def test_long_names(target: str) -> None:
    """Names that PostgreSQL would cut off, and take for one another, end in a digest."""
    fields = (
        "a_field_with_a_name_that_goes_on_and_on",
        "a_field_with_a_name_that_goes_on_and_on_and",
    )
    spec = RecordSpec("a-store-whose-name-takes-forty-charac", Thing, filters=fields)
    for _ in range(2):
        with open_database(f"{target}&prefix=and_a_prefix_of_20__") as database:
            things = RecordStore(database, spec)
            values: dict[str, Any] = {fields[0]: "x", fields[1]: "y"}
            things.create(Thing(**values))
            for name, value in values.items():
                query: dict[str, Any] = {name: value}
                assert len(things.find(**query)) == things.count()
            assert_sound(database)


# --- who may do what ---


def test_no_right_to_make_tables(target: str, role: str) -> None:
    """Who may not make tables is told what to do, and nothing is made."""
    with pytest.raises(ConfigurationError, match=r"may not make .*once") as caught:
        open_database(as_role(target, role))
    assert "\n" not in str(caught.value)


def test_least_privileges(sql: psycopg.Connection, target: str, schema: str, role: str) -> None:
    """With the documented grants a service writes to tables that their owner has made, and can do
    nothing else to them.
    """
    with open_database(target) as database:
        JobStore(database).create(Job(id="1"))
    for grant in GRANTS:
        sql.execute(grant.format(schema=schema, role=role))
    with open_database(as_role(target, role)) as database:
        jobs = JobStore(database)
        jobs.create(Job(id="2", labels={"a": "b"}))
        jobs.update("1", priority=1)
        with database.transaction():
            if jobs.count() == 2:
                jobs.delete("1")
        database.set_checkpoint("x", 1)
        assert_sound(database)
        with pytest.raises(ConfigurationError, match="may not make"):
            ExecutionStore(database)
        assert jobs.count() == 1


def test_a_role_that_only_reads(
    sql: psycopg.Connection, target: str, schema: str, role: str
) -> None:
    """Who may only read can open read-only, and is told so when writing."""
    with open_database(target) as database:
        JobStore(database).create(Job(id="1"))
    sql.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    sql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
    with open_database(as_role(target, role), read_only=True) as database:
        assert JobStore(database).get("1").id == "1"
        assert_sound(database)
    with open_database(as_role(target, role)) as database:
        jobs = JobStore(database)
        assert jobs.count() == 1
        with pytest.raises(ReadOnlyError, match="permission denied") as caught:
            jobs.create(Job())
        assert "\n" not in str(caught.value)


def test_a_database_of_another_encoding(postgresql: Database, sql: psycopg.Connection) -> None:
    """Text that PostgreSQL would have to translate is refused before anything is made."""
    name = f"latin_{uuid.uuid4().hex[:8]}"
    sql.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(ConfigurationError, match="ENCODING 'UTF8'"):
            open_database(postgresql.url.rpartition("/")[0] + f"/{name}")
    finally:
        sql.execute(f"DROP DATABASE {name}")


@pytest.mark.parametrize("name", ['a"b', "a%b", "a%%sb"])
def test_a_schema_that_cannot_be_named(
    postgresql: Database, sql: psycopg.Connection, name: str
) -> None:
    """A schema of the search path whose name could be taken for something else is refused."""
    user = f"user_{uuid.uuid4().hex[:8]}"
    quoted = psycopg.sql.Identifier(name).as_string(sql)
    sql.execute(f"CREATE SCHEMA {quoted}")
    sql.execute(f"CREATE ROLE {user} LOGIN SUPERUSER")
    try:
        sql.execute(f"ALTER ROLE {user} SET search_path = {quoted}")
        with pytest.raises(ConfigurationError, match=r"cannot be used; .*\?schema="):
            open_database(as_role(postgresql.url, user))
        assert relations(sql, quoted) == set()
    finally:
        sql.execute(f"DROP SCHEMA {quoted} CASCADE")
        sql.execute(f"DROP ROLE {user}")


def test_a_schema_with_a_name_of_its_own(postgresql: Database, sql: psycopg.Connection) -> None:
    """A schema of the search path can have capitals, spaces and quotes in its name."""
    user = f"user_{uuid.uuid4().hex[:8]}"
    quoted = psycopg.sql.Identifier(f"Mr O'Neill; -- {user}").as_string(sql)
    sql.execute(f"CREATE SCHEMA {quoted}")
    sql.execute(f"CREATE ROLE {user} LOGIN SUPERUSER")
    try:
        sql.execute(f"ALTER ROLE {user} SET search_path = {quoted}")
        for _ in range(2):
            with open_database(as_role(postgresql.url, user)) as database:
                jobs = JobStore(database)
                jobs.create(Job(labels={"a": "b"}))
                assert len(jobs.find(labels="a=b")) == jobs.count()
                database.compact()
                assert_sound(database)
        assert "jobs" in relations(sql, quoted)
    finally:
        sql.execute(f"DROP SCHEMA {quoted} CASCADE")
        sql.execute(f"DROP ROLE {user}")
