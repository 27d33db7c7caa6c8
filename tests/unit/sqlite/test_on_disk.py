"""The file is native to SQLite's tools: real tables, indexes, views, and a mark."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from storebridge_sqlite import backend
from storebridge_sqlite.schema import APPLICATION_ID

from storebridge.driver import Driver, Field, Index, Options, Range, Table, Values, View
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import ENTRY, LAYOUT, LOG, PAIR, TABLES, entry

JOB = Table(
    "job",
    key=(Field("id"),),
    columns=(Field("state"), Field("created_at", "integer", time=True)),
    indexes=(Index("state", ("state", "created_at", "id")),),
    view=View("jobs", ("id", "state", "created_at", "labels", "message")),
)
HISTORY = Table(
    "job-history",
    key=(Field("record_id"), Field("sequence", "integer")),
    indexes=(Index("sequence", ("sequence",), unique=True),),
)
BODY = (
    b'{"id":"0012","state":"Failed","created_at":"2026-11-02T10:00:00.250000Z",'
    b'"labels":{"a":"b"},"message":"no \\u0000 space"}'
)


def write_job(driver: Driver) -> None:
    driver.create_tables((JOB, HISTORY), 3)
    with writing(driver) as transaction:
        transaction.insert("job", ("0012",), ("Failed", 1793613600250000), BODY)


@pytest.fixture
def shell(path: Path) -> Iterator[sqlite3.Connection]:
    """Someone else's look at the file."""
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def one(connection: sqlite3.Connection, sql: str) -> Any:
    return connection.execute(sql).fetchone()[0]


def test_the_view_shows_bodies_and_columns(driver: Driver, shell: sqlite3.Connection) -> None:
    """A view has the record's fields; a time as the body has it, and as seconds."""
    write_job(driver)
    cursor = shell.execute("SELECT * FROM jobs")
    names = [column[0] for column in cursor.description]
    assert names == ["id", "state", "created_at", "created_at_epoch", "labels", "message"]
    row = cursor.fetchone()
    assert row[:5] == (
        "0012",
        "Failed",
        "2026-11-02T10:00:00.250000Z",
        1793613600.25,
        '{"a":"b"}',
    )


def test_the_view_uses_indexes(driver: Driver, shell: sqlite3.Connection) -> None:
    """What is a column of the table is found by its index through the view too."""
    write_job(driver)
    plan = shell.execute("EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE state = 'x'").fetchall()
    assert [row[3] for row in plan] == ["SEARCH job USING COVERING INDEX job_by_state (state=?)"]


def test_a_broken_body_does_not_break_the_view(driver: Driver, shell: sqlite3.Connection) -> None:
    """Bodies that are no JSON or no UTF-8 have NULL for their members; all others are shown, and
    the driver reads every body as it is.
    """
    write_job(driver)
    broken = {"a": b"{", "b": b"\xff\xfe", "c": b"", "d": b"[1]\0"}
    with writing(driver) as transaction:
        for key, body in broken.items():
            transaction.insert("job", (key,), ("Broken", 1), body)
    rows = shell.execute("SELECT id, state, message FROM jobs ORDER BY id").fetchall()
    assert [row[0] for row in rows] == ["0012", *broken]
    assert all(row[1:] == ("Broken", None) for row in rows[1:])
    with reading(driver) as transaction:
        found, _ = transaction.scan("job", Range("state", ("Broken",)))
        assert found == [((key,), body) for key, body in broken.items()]
        assert transaction.get("job", ("b",)) == b"\xff\xfe"


def test_types_and_mark(driver: Driver, shell: sqlite3.Connection) -> None:
    """Texts are text, '0012' too; the header tells whose file it is and which layout."""
    write_job(driver)
    types = "SELECT typeof(id) || typeof(created_at) || typeof(body) FROM job"
    assert one(shell, types) == "textintegertext"
    assert one(shell, "PRAGMA application_id") == APPLICATION_ID
    assert one(shell, "PRAGMA user_version") == 3
    assert one(shell, "PRAGMA journal_mode") == "wal"


def test_optional_columns_have_partial_indexes(driver: Driver, shell: sqlite3.Connection) -> None:
    """An entry that is absent from an index takes no room in it."""
    sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%WHERE%'"
    partial = {name for (name,) in shell.execute(sql)}
    assert partial == {
        "suite_entry_by_node",
        "suite_entry_by_size",
        "suite_entry_by_name",
        "suite_pair_by_label",
    }


def test_a_unique_number_of_the_key_is_the_row_number(
    driver: Driver, shell: sqlite3.Connection
) -> None:
    """A history keeps one index, not two; both of its orders work."""
    write_job(driver)
    with writing(driver) as transaction:
        for number, key in enumerate((("b", 2), ("a", 9), ("a", 1))):
            assert transaction.insert("job-history", key, (), b"%d" % number)
        assert not transaction.insert("job-history", ("a", 9), (), b"x")
    indexes = shell.execute("SELECT name FROM pragma_index_list('job_history')").fetchall()
    assert indexes == [("sqlite_autoindex_job_history_1",)]
    assert one(shell, "SELECT rowid FROM job_history WHERE record_id = 'b'") == 2
    with reading(driver) as transaction:
        rows, _ = transaction.scan("job-history", Range("sequence"))
        assert [key for key, _ in rows] == [("a", 1), ("b", 2), ("a", 9)]
        rows, _ = transaction.scan("job-history", Range(reverse=True))
        assert [key for key, _ in rows] == [("b", 2), ("a", 9), ("a", 1)]


def test_nothing_is_made_again(path: Path, driver: Driver, shell: sqlite3.Connection) -> None:
    """Opening a database whose tables exist does not write to it."""
    write_job(driver)
    before = one(shell, "PRAGMA schema_version"), one(shell, "PRAGMA data_version")
    again = backend.open(str(path), Options())
    again.create_tables((*TABLES, JOB, HISTORY), 3)
    again.close()
    assert (one(shell, "PRAGMA schema_version"), one(shell, "PRAGMA data_version")) == before


def test_a_wider_view_of_another_version_stays(driver: Driver, shell: sqlite3.Connection) -> None:
    """A record version with more fields widens the view; one with fewer, at the same layout, does
    not take them away again.
    """
    assert JOB.view is not None
    write_job(driver)
    wider = Table("job", JOB.key, JOB.columns, JOB.indexes, View("jobs", (*JOB.view.fields, "new")))
    for declared in (wider, JOB):
        driver.create_tables((declared,), 3)
        names = [row[1] for row in shell.execute("PRAGMA table_info(jobs)")]
        assert names[-2:] == ["message", "new"]
    driver.create_tables((JOB,), 4)
    assert len(shell.execute("PRAGMA table_info(jobs)").fetchall()) == 6


def test_tools_read_while_a_process_writes(path: Path, start: Callable[..., Any]) -> None:
    """`select … group by` answers beside a writer, in Python's sqlite3 and in the command."""
    writer = start(path, durability="off")
    assert [writer.do(word) for word in ("open", "write")] == ["opened", 1]
    writer.begin("load")
    sql = "SELECT worker, count(*) FROM suite_log GROUP BY worker"
    seen = 0
    with closing(sqlite3.connect(path)) as shell:
        for _ in range(20):
            ((_, count),) = shell.execute(sql).fetchall()
            assert count >= seen
            seen = count
    if shutil.which("sqlite3") is None:
        pytest.skip("the command sqlite3 is not installed")
    command = backend.shell(str(path))
    assert command is not None
    done = subprocess.run([*command, sql], capture_output=True, text=True, check=True)
    assert int(done.stdout.strip().split("|")[1]) >= seen
    assert writer.answer() > 20


def test_columns_edited_by_hand_are_found_and_mended(
    driver: Driver, shell: sqlite3.Connection
) -> None:
    """So is an index that someone dropped."""
    with writing(driver) as transaction:
        for name in ("a", "b"):
            transaction.insert(ENTRY.name, (name,), entry("s", 1, "n", 2, "d", name), b"{}")
    shell.executescript(
        "UPDATE suite_entry SET state = 'edited', size = NULL WHERE id = 'b';"
        "DROP INDEX suite_entry_by_node;"
    )
    driver.create_tables((), LAYOUT)

    def values_of(key: Any, body: bytes) -> Any:
        return entry("s", 1, "n", 2, "d", key[0])

    with writing(driver) as transaction:
        faults = list(transaction.faults(ENTRY.name, values_of))
        assert [fault.key for fault in faults] == [None, ("b",)]
        assert faults[0].problem == "index node is missing"
        assert faults[1].problem == (
            "column state is 'edited', the body says 's'; column size is None, the body says 2"
        )
        transaction.rebuild(ENTRY.name, values_of)
        assert list(transaction.faults(ENTRY.name, values_of)) == []
        assert transaction.count(ENTRY.name, Range("node", ("n",))) == 2


@pytest.mark.parametrize("table", [ENTRY, PAIR, LOG, HISTORY], ids=lambda table: table.name)
def test_every_scan_is_ordered_by_its_index(
    driver: Driver, shell: sqlite3.Connection, table: Table
) -> None:
    """No range of any shape reads the table where an index is named, or sorts: also with
    statistics that would have SQLite think otherwise.
    """
    driver.create_tables((table,), LAYOUT)
    with writing(driver) as transaction:
        for number in range(50):
            key = tuple(number if f.type == "integer" else f"k{number}" for f in table.key)
            values: Values = tuple(number if f.type == "integer" else "same" for f in table.columns)
            if table is ENTRY:
                values = entry("same", number, None, None, "same", None)
            transaction.insert(table.name, key, values, b"{}")
    shell.execute("ANALYZE")
    plans: list[tuple[str, str]] = []
    traced = backend.open(one(shell, "SELECT file FROM pragma_database_list"), Options())
    traced.create_tables((table,), LAYOUT)
    with reading(traced) as transaction:
        execute = transaction._execute  # type: ignore[attr-defined]

        def trace(sql: str, parameters: Any = ()) -> Any:
            rows = execute("EXPLAIN QUERY PLAN " + sql, parameters).fetchall()
            plans.extend((sql, row[3]) for row in rows)
            return execute(sql, parameters)

        transaction._execute = trace  # type: ignore[attr-defined]
        for asked in every_shape(table):
            transaction.scan(table.name, asked)
            transaction.count(table.name, asked)
    traced.close()
    assert len(plans) > 20
    for sql, plan in plans:
        assert "TEMP B-TREE" not in plan, sql
        if "?" in sql.removesuffix("LIMIT ?"):
            assert plan.startswith("SEARCH"), sql
        elif "INDEXED BY" in sql:
            assert "INDEX" in plan, sql


def every_shape(table: Table) -> Iterator[Range]:
    """Ranges of every shape: prefixes of all lengths, bounds, after, both ways."""
    fields = {field.name: field for field in table.key + table.columns}
    orders = [(None, tuple(field.name for field in table.key))]
    orders += [(index.name, index.fields) for index in table.indexes]  # type: ignore[misc]
    for by, names in orders:
        position = tuple(5 if fields[name].type == "integer" else "m" for name in names)
        for length in range(len(names) + 1):
            prefix = position[:length]
            for reverse in (False, True):
                yield Range(by, prefix, reverse=reverse)
                yield Range(by, prefix, after=position, reverse=reverse)
                if length < len(names):
                    low: Any = 2 if fields[names[length]].type == "integer" else "b"
                    high: Any = 9 if fields[names[length]].type == "integer" else "x"
                    yield Range(by, prefix, lower=low, upper=high, reverse=reverse)
                    yield Range(by, prefix, lower=low, upper=high, after=position, reverse=reverse)
