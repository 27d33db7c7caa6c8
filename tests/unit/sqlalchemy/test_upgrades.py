"""Upgrades on a server, where others are at work beside: what holds on every backend is tested in
tests/unit/upgrades."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from storebridge_sqlalchemy import dependents, metadata_of

from storebridge import (
    ConfigurationError,
    Job,
    JobStore,
    StorageError,
    StoreLockedError,
    open_database,
)
from storebridge.check import check
from storebridge.transfer.filling import Filling
from tests.postgres_server import Database
from tests.unit.sqlalchemy.roles import GRANTS, as_role
from tests.unit.upgrades.layout2 import install
from tests.unit.upgrades.sites import kept, with_option
from tests.unit.upgrades.test_upgrades import RECORDS, digest, digest_at_layout_2, make

ROOT = Path(__file__).parents[3]
UPGRADE = [sys.executable, "-m", "tests.unit.upgrades.layout2"]
KILLED_WITHIN = """
import os, signal, sys
from storebridge import open_database
from storebridge_sqlalchemy import dependents
from tests.unit.upgrades.layout2 import install
install()
dependents.turn_over = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
open_database(sys.argv[1])
"""
SERVICE = """
import sys
from storebridge import Job, StorageError, open_job_store
jobs = open_job_store(sys.argv[1])
jobs.create(Job(id="mine"))
print(flush=True)
sys.stdin.readline()
try:
    jobs.get("mine")
except StorageError as error:
    print(error, flush=True)
"""


@pytest.fixture
def old(target: str) -> str:
    """The location of a closed database of layout 1."""
    return make(target, RECORDS)


@pytest.fixture
def layout2(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the process is one of layout 2."""
    install(monkeypatch.setattr)


def terminate(sql: psycopg.Connection) -> None:
    """End all sessions of storebridge, and wait until they are gone."""
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <>"
        " pg_backend_pid() AND application_name LIKE 'storebridge %' AND datname ="
        " current_database()"
    )
    while sql.execute(query).fetchall()[0][0]:
        pass


def test_two_processes_at_once(postgresql: Database) -> None:
    """One upgrades, the others wait for it, and all of them have the new layout."""
    old = make(postgresql.target(), 1000)
    wanted = digest_at_layout_2(old)
    location = with_option(old, "lock_timeout=60")
    processes = [
        subprocess.Popen([*UPGRADE, location], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert len(kept(old)) == 1
    assert sum("upgraded from layout 1 to 2" in text for text in said) == 1
    with layout_2(), open_database(old) as database:
        assert digest(database) == wanted


@contextmanager
def layout_2() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        install(patched.setattr)
        yield


def test_who_waits_too_long_is_told(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a process of the older storebridge does not open what is being upgraded."""
    code = "import sys; from storebridge import *; open_database(sys.argv[1])"
    command = [sys.executable, "-c", code, with_option(old, "lock_timeout=0.1")]
    told = []
    real = Filling.read_again

    def read_again(self: Filling) -> object:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        told.append(done.stderr.splitlines()[-1])
        return real(self)

    monkeypatch.setattr(Filling, "read_again", read_again)
    with layout_2():
        open_database(old).close()
    ((line,),) = [told]
    assert "StoreLockedError" in line
    assert "which upgrades it" in line


@pytest.mark.usefixtures("layout2")
def test_a_session_is_ended_in_the_midst(
    old: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the session its lock is gone, and with that the right to put anything in place."""
    real = Filling.read_again

    def read_again(self: Filling) -> object:
        read = real(self)
        terminate(sql)
        return read

    with monkeypatch.context() as patched:
        patched.setattr(Filling, "read_again", read_again)
        with pytest.raises(StorageError):
            open_database(old)
    assert not kept(old)
    with open_database(old) as database:
        assert JobStore(database).count() == RECORDS - 1
    assert len(kept(old)) == 1


@pytest.mark.parametrize("how", ["the client", "the session"])
def test_killed_within_the_last_transaction(old: str, how: str, sql: psycopg.Connection) -> None:
    """The old database is whole, and the next opening goes on."""
    wanted = digest_at_layout_2(old)
    if how == "the client":
        done = subprocess.run([sys.executable, "-c", KILLED_WITHIN, old], cwd=ROOT, check=False)
        assert done.returncode == -9
    else:
        with layout_2(), pytest.MonkeyPatch.context() as patched:
            patched.setattr(dependents, "turn_over", lambda *_: terminate(sql))
            with pytest.raises(StorageError, match="terminat"):
                open_database(old)
    assert not kept(old)
    with open_database(old) as database:
        assert database.driver.layout() == 1
        assert JobStore(database).count() == RECORDS - 1
    with layout_2(), open_database(old) as database:
        assert digest(database) == wanted
    assert len(kept(old)) == 1


def test_who_lost_the_connection_meanwhile(old: str, sql: psycopg.Connection) -> None:
    """A service of the older storebridge is in the way of an upgrade while it is connected; if it
    was not, it does not take the new database for the old one."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, old],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as service:
        assert service.stdout is not None
        service.stdout.readline()
        with layout_2():
            with pytest.raises(StoreLockedError, match=f"process {service.pid} has it open"):
                open_database(with_option(old, "lock_timeout=0.1"))
            terminate(sql)
            open_database(old).close()
        said, _ = service.communicate("go\n")
    assert "from layout 1 to 2" in said
    with layout_2(), open_database(old) as database:
        assert JobStore(database).get("mine").state == "Pending"


def test_rights_and_views_of_others(
    old: str, sql: psycopg.Connection, schema: str, role: str
) -> None:
    """Who may do something may do it afterwards, and what shows our tables shows the new ones."""
    for grant in GRANTS:
        sql.execute(grant.format(schema=schema, role=role))
    sql.execute(f"REVOKE UPDATE ON {schema}.job_label FROM {role}")
    sql.execute(f"GRANT UPDATE (body) ON {schema}.job_label TO {role} WITH GRANT OPTION")
    sql.execute(f"REVOKE ALL ON FUNCTION {schema}.storebridge_json FROM PUBLIC")
    sql.execute(f"GRANT EXECUTE ON FUNCTION {schema}.storebridge_json TO {role}")
    sql.execute(
        f"CREATE VIEW {schema}.theirs WITH (security_barrier) AS SELECT j.id, s.priority"
        f" FROM {schema}.job j JOIN {schema}.jobs s USING (id)"
    )
    sql.execute(f"CREATE VIEW {schema}.upon AS SELECT count(*) FROM {schema}.theirs")
    sql.execute(f"GRANT SELECT ON {schema}.theirs TO {role}")
    before = rights(sql, schema)
    with layout_2(), open_database(old) as database:
        assert rights(sql, schema) == before
        JobStore(database).create(Job(id="new"))
        assert sql.execute(f"SELECT * FROM {schema}.upon").fetchall() == [(RECORDS,)]
        job = metadata_of(database).tables[f"{schema}.job"]
        assert "version" in job.c
    with layout_2(), open_database(as_role(old, role)) as database:
        JobStore(database).create(Job(id="another"))
        assert list(check(database)) == []


def rights(sql: psycopg.Connection, schema: str) -> list[tuple[str, ...]]:
    query = """
        SELECT relname, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(relacl) a)::text,
            reloptions::text FROM pg_class
        WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'v')
        UNION ALL
        SELECT attrelid::regclass || attname, attacl::text, NULL FROM pg_attribute JOIN pg_class c
            ON c.oid = attrelid WHERE relnamespace = %(schema)s::regnamespace AND attacl IS NOT NULL
        UNION ALL
        SELECT proname, proacl::text, NULL FROM pg_proc
        WHERE pronamespace = %(schema)s::regnamespace ORDER BY 1"""
    return sql.execute(query, {"schema": schema}).fetchall()


@pytest.mark.parametrize(
    ("made", "dropped"),
    [
        (
            "CREATE TABLE {0}.note (job text REFERENCES {0}.job)",
            "ALTER TABLE {0}.note DROP CONSTRAINT note_job_fkey",
        ),
        (
            "CREATE MATERIALIZED VIEW {0}.seen AS SELECT id FROM {0}.jobs",
            "DROP MATERIALIZED VIEW {0}.seen",
        ),
        ("CREATE INDEX mine ON {0}.job (state, id)", "DROP INDEX {0}.mine"),
        (
            "ALTER TABLE {0}.job ADD CHECK (id <> '')",
            "ALTER TABLE {0}.job DROP CONSTRAINT job_id_check",
        ),
        (
            "CREATE FUNCTION {0}.first() RETURNS {0}.job LANGUAGE sql AS 'SELECT NULL::{0}.job'",
            "DROP FUNCTION {0}.first",
        ),
    ],
)
def test_what_cannot_be_taken_along(
    old: str, sql: psycopg.Connection, schema: str, made: str, dropped: str
) -> None:
    """It is named, nothing is copied, and without it the upgrade is done."""
    sql.execute(made.format(schema))
    with layout_2():
        with pytest.raises(ConfigurationError, match="drop it, open the database once"):
            open_database(old)
        assert not kept(old)
        sql.execute(dropped.format(schema))
        open_database(old).close()
    assert len(kept(old)) == 1


def test_missing_rights(target: str, sql: psycopg.Connection, schema: str, role: str) -> None:
    """Who may not upgrade is told what to grant, in one line, and can do it then."""
    sql.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {role}")
    theirs = make(as_role(target, role), RECORDS)
    with layout_2():
        with pytest.raises(ConfigurationError, match="GRANT CREATE ON DATABASE") as told:
            open_database(theirs)
        assert "\n" not in str(told.value)
        assert "export" in str(told.value)
        for ending in ("storebridge_incoming", "replaced"):
            assert f"{schema}_{ending}" in str(told.value)
            sql.execute(f"CREATE SCHEMA {schema}_{ending} AUTHORIZATION {role}")
        # Whose view it is, only he can have it show other tables.
        sql.execute(f"CREATE VIEW {schema}.seen AS SELECT id FROM {schema}.job")
        with pytest.raises(ConfigurationError, match=r"drop it.* view .*\.seen"):
            open_database(theirs)
        sql.execute(f"DROP VIEW {schema}.seen")
        open_database(theirs, create=False).close()
    assert len(kept(target)) == 1


def test_others_tables(old: str, sql: psycopg.Connection, schema: str, role: str) -> None:
    """A service that owns nothing is told who must open it; whose it is stays so."""
    for grant in GRANTS:
        sql.execute(grant.format(schema=schema, role=role))
    with layout_2():
        with pytest.raises(ConfigurationError, match="owned by"):
            open_database(as_role(old, role))
        sql.execute(f"GRANT CREATE ON SCHEMA {schema} TO {role}")
        for kind, name in (("TABLE", "job"), ("VIEW", "jobs"), ("FUNCTION", "storebridge_json")):
            sql.execute(f"ALTER {kind} {schema}.{name} OWNER TO {role}")
        open_database(old).close()
    query = "SELECT relname FROM pg_class WHERE relowner = %s::regrole AND relkind IN ('r', 'v')"
    assert len(kept(old)) == 1
    owned = [name for (name,) in sql.execute(query, [role])]
    assert sorted(owned) == ["job", "job", "jobs", "jobs"]


def test_two_prefixes(target: str, sql: psycopg.Connection, schema: str) -> None:
    """Databases that share a schema, and others' tables in it, are not touched."""
    first, second = (with_option(target, f"prefix={name}_") for name in "ab")
    make(first, 3)
    make(second, 5)
    sql.execute(f"CREATE TABLE {schema}.others (id text)")
    with open_database(second) as still:
        with layout_2():
            open_database(first).close()
        assert still.driver.layout() == 1
        assert JobStore(still).count() == 4
    names = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
    there = {name for (name,) in sql.execute(names, [f"{schema}_replaced"])}
    assert {name[0] for name in there} == {"a"}
    with layout_2():
        open_database(second).close()
        with open_database(second) as database:
            assert JobStore(database).count() == 4
    sql.execute(f"SELECT * FROM {schema}.others")
