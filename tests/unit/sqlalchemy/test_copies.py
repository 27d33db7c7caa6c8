"""Databases on a server, backed up and brought back while others write."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from storebridge import Job, JobStore, open_database
from storebridge.testing.stores.base import assert_sound
from storebridge.transfer.backups import back_up, restore
from storebridge.transfer.content import DatabaseContent
from tests.unit.sqlalchemy.proxy import proxy_to


def test_a_backup_is_of_one_moment(
    target: str, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup is read in one transaction that repeats what it has read, and while another process
    goes on writing: what is restored from it is sound, and is what was there at one moment.
    """
    seen: list[list[tuple[str]]] = []
    pages = DatabaseContent.pages
    with (
        open_database(target) as database,
        open_database(f"{target}&pool_size=3") as other,
    ):
        JobStore(database).create(Job(id="j", labels={"a": "b"}))
        others, stop = JobStore(other), threading.Event()

        def write() -> None:
            while not stop.is_set():
                others.update("j", priority=others.get("j").priority + 1)
                others.create(Job(labels={"a": "b"}))

        def slowly(content: DatabaseContent, table: object) -> object:
            found = pages(content, table)  # type: ignore[arg-type]
            query = (
                "SELECT xact_start::text FROM pg_stat_activity WHERE backend_xmin IS NOT NULL"
                " AND state = 'idle in transaction' AND query NOT LIKE '%%FOR UPDATE%%'"
                " ORDER BY 1 LIMIT 1"
            )
            before = others.count()
            while others.count() < before + 5:
                pass
            seen.append(sql.execute(query).fetchall())
            return found

        monkeypatch.setattr(DatabaseContent, "pages", slowly)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            while others.count() < 2:  # it writes before the first moment, too
                pass
            report = back_up(database, [tmp_path])
        finally:
            stop.set()
            writer.join()
        monkeypatch.undo()
        assert report.ok
        assert len(seen) > 4
        assert len({str(each) for each in seen[1:]}) == 1, seen
        assert database.stopped_uncleanly == ()
        written = others.count()
    (copy,) = report.copies
    restore(str(copy.file), f"sqlite:{tmp_path}/back.db")
    with open_database(f"sqlite:{tmp_path}/back.db") as back:
        jobs = JobStore(back)
        assert 1 < jobs.count() < written
        job = jobs.get("j")
        # One event each, and of each moment one more job than the last update, or as many.
        assert back.sequence() == jobs.count() + job.revision - 1
        assert job.priority - jobs.count() in (-1, 0)
        assert len(jobs.find(labels="a=b", limit=1000)) == jobs.count()
        assert_sound(back)


def test_a_backup_goes_to_a_server(target: str, tmp_path: Path) -> None:
    """What was kept in a file is restored to a server."""
    with open_database(f"sqlite:{tmp_path}/node.db") as database:
        JobStore(database).create(Job(id="j", labels={"a": "b"}))
        (copy,) = back_up(database, [tmp_path]).copies
    restore(str(copy.file), target)
    with open_database(target) as database:
        assert JobStore(database).find(labels="a=b")[0].id == "j"
        assert_sound(database)


def test_a_migration_over_a_slow_network(target: str, tmp_path: Path) -> None:
    """What goes to a server is not asked about entry by entry: it takes far fewer round trips."""
    with open_database(f"sqlite:{tmp_path}/node.db?durability=off") as database:
        jobs = JobStore(database)
        with database.transaction():
            for number in range(500):
                jobs.create(Job(id=f"{number:03}", labels={"a": "b"}))
        with proxy_to(target) as proxy:
            report = database.migrate_to(proxy.url(target))
            assert proxy.round_trips < 200
        assert report.added > 1500
        with open_database(target) as there:
            assert_sound(there)
            back = there.migrate_to(f"sqlite:{tmp_path}/back.db")
        assert back.digest == report.digest
