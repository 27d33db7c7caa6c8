"""The room that removed rows leave on the server."""

from __future__ import annotations

import os
from datetime import timedelta

import psycopg

from storebridge import Job, JobStore, Retention, open_database, to_json
from tests.postgres_server import Server
from tests.unit.sqlalchemy.roles import GRANTS, as_role

EVERYTHING = Retention(
    keep=timedelta(0), states=("Pending",), deleted_keep=timedelta(0), stores=("job",)
)


def fill(jobs: JobStore, count: int = 300) -> None:
    with jobs.database.transaction():
        for _ in range(count):
            jobs.create(Job(spec=to_json({"noise": os.urandom(1000).hex()})))


def test_room_is_used_again(own_postgresql: Server) -> None:
    """`compact` gives back what it can, and of what was removed the room is used again at once,
    without waiting for autovacuum: here it never comes.
    """
    with open_database(f"{own_postgresql.target()}&durability=off") as database:
        jobs = JobStore(database)
        sizes = []
        for _ in range(7):
            fill(jobs)
            report = database.compact(EVERYTHING)
            assert report.pruned["job"].records == 300
            assert report.skipped is None
            assert report.before is not None
            assert report.after is not None
            assert report.after < report.before
            sizes.append(report.before)
        assert sizes[-1] < 1.2 * sizes[3]
        with own_postgresql.connect() as connection:
            (dead,) = connection.execute(
                "SELECT sum(n_dead_tup) FROM pg_stat_all_tables WHERE schemaname = %s"
                " AND relname LIKE 'job%%'",
                [database.describe()["schema"]],
            ).fetchone() or (None,)
        assert dead == 0
        fill(jobs)
        assert database.compact(EVERYTHING, reclaim=False).skipped is None
        report = database.compact()
        assert (report.after or 0) < (report.before or 0)


def test_who_may_not_vacuum(sql: psycopg.Connection, target: str, schema: str, role: str) -> None:
    """Who is not the owner removes what may go, and is told who sees to the room."""
    with open_database(target) as database:
        fill(JobStore(database), 3)
    for grant in GRANTS:
        sql.execute(grant.format(schema=schema, role=role))
    with open_database(as_role(target, role)) as database:
        JobStore(database)
        report = database.compact(EVERYTHING)
    assert report.pruned["job"].records == 3
    assert report.skipped is not None
    assert report.skipped.startswith("autovacuum will do it: ")
    assert "\n" not in report.skipped
