"""What importing and opening costs, as a program: `python -m benchmarks.openers CONTENDER PLACE`.

It imports what a contender's user would, opens what is at the place (a folder that the contender
has filled, the address of a server, or for ours a location), reads one record, and prints: seconds
of importing, seconds of opening, and what both added to the memory of the process in bytes, first
what it has to itself, then all that is resident. The module imports nothing that it measures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from time import perf_counter

Opener = Callable[[str], Iterator[None]]
"""Goes on to the first `yield` to import, and to the second to open and read."""


def _store(location: str) -> Iterator[None]:
    from storebridge import open_execution_store

    yield
    store = open_execution_store(location)
    assert store.find(limit=1) or location.startswith("memory:")
    yield


def _sqlite3(folder: str) -> Iterator[None]:
    import sqlite3

    import msgspec

    yield
    connection = sqlite3.connect(f"{folder}/hand.db", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    msgspec.json.decode(connection.execute("SELECT body FROM execution LIMIT 1").fetchone()[0])
    yield


def _lmdb(folder: str) -> Iterator[None]:
    import lmdb
    import msgspec

    yield
    environment = lmdb.open(f"{folder}/hand", map_size=1 << 34, max_dbs=16)
    table = environment.open_db(b"execution")
    with environment.begin(table) as transaction:
        msgspec.json.decode(next(iter(transaction.cursor()))[1])
    yield


def _aiosqlite(folder: str) -> Iterator[None]:
    import asyncio

    import aiosqlite
    import msgspec

    yield

    async def read() -> None:
        connection = await aiosqlite.connect(f"{folder}/hand.db", isolation_level=None)
        await connection.execute("PRAGMA synchronous=FULL")
        cursor = await connection.execute("SELECT body FROM execution LIMIT 1")
        row = await cursor.fetchone()
        assert row is not None
        msgspec.json.decode(row[0])
        await connection.close()  # its thread would keep the program from ending

    with asyncio.Runner() as runner:
        runner.run(read())
        yield


def _apscheduler(folder: str) -> Iterator[None]:
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    yield
    store = SQLAlchemyJobStore(url=f"sqlite:///{folder}/jobs.db")
    scheduler = BackgroundScheduler(jobstores={"default": store})
    scheduler.start(paused=True)
    assert store.lookup_job("e-0")
    yield
    scheduler.shutdown()


def _huey(folder: str) -> Iterator[None]:
    from huey.storage import SqliteStorage

    yield
    storage = SqliteStorage(filename=f"{folder}/huey.db", fsync=True)
    assert storage.enqueued_items(1)
    yield


def _diskcache(folder: str) -> Iterator[None]:
    from diskcache import Cache

    yield
    cache = Cache(f"{folder}/records", eviction_policy="none", sqlite_synchronous=2, timeout=60)
    assert cache["e-0"]
    yield


def _sqlitedict(folder: str) -> Iterator[None]:
    from sqlitedict import SqliteDict

    yield
    records = SqliteDict(f"{folder}/records.db", autocommit=True, journal_mode="WAL")
    assert records["e-0"]
    yield
    records.close()


def _tinydb(folder: str) -> Iterator[None]:
    from tinydb import TinyDB, where

    yield
    assert TinyDB(f"{folder}/db.json").get(where("id") == "e-0")
    yield


def _aiotinydb(folder: str) -> Iterator[None]:
    import asyncio

    from aiotinydb.database import AIOTinyDB
    from tinydb import where

    yield

    async def read() -> None:
        async with AIOTinyDB(f"{folder}/db.json") as db:
            assert db.get(where("id") == "e-0")

    with asyncio.Runner() as runner:
        runner.run(read())
        yield


def _psycopg(url: str) -> Iterator[None]:
    import msgspec
    import psycopg

    yield
    connection = psycopg.connect(url)
    row = connection.execute("SELECT body FROM hand.execution LIMIT 1").fetchone()
    assert row is not None
    msgspec.json.decode(row[0])
    yield


OPENERS: dict[str, Opener] = {
    "sqlite3 by hand": _sqlite3,
    "aiosqlite by hand": _aiosqlite,
    "APScheduler": _apscheduler,
    "huey": _huey,
    "diskcache": _diskcache,
    "sqlitedict": _sqlitedict,
    "py-lmdb by hand": _lmdb,
    "TinyDB": _tinydb,
    "aiotinydb": _aiotinydb,
    "psycopg by hand": _psycopg,
}
"""By contender. Ours are not among them: they are opened by location."""


def _memory() -> tuple[int, int]:
    """Bytes of memory of this process: its own, and all that are resident, shared ones too."""
    with open("/proc/self/status", encoding="ascii") as status:
        sizes = dict(line.split(":", 1) for line in status)
    return int(sizes["RssAnon"].split()[0]) * 1024, int(sizes["VmRSS"].split()[0]) * 1024


def main() -> None:
    name, place = sys.argv[1:]
    steps = OPENERS.get(name, _store)(place)
    before, started = _memory(), perf_counter()
    next(steps)
    imported = perf_counter()
    next(steps)
    opened, after = perf_counter(), _memory()
    print(imported - started, opened - imported, after[0] - before[0], after[1] - before[1])
    for _ in steps:
        pass


if __name__ == "__main__":
    main()
