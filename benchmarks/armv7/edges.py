"""Where 32 bits end: address space, file offsets, seconds since 1970. Not a part of `make test`:

    pytest benchmarks/armv7/edges.py

What each test saw goes with its outcome into pytest's report (`--junitxml`).
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lmdb
import pytest
from storebridge_bolt.pybolt import DB, DatabaseTooLargeError

from storebridge import (
    ConfigurationError,
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    KeyValueStore,
    Retention,
    StorebridgeError,
    StoreFullError,
    open_database,
    to_json,
)
from storebridge.check import check

MIB = 2**20
BODY = to_json({"filler": "x" * 900_000})
LATE = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
"""The last second that 32 bits with sign count to."""
FILES = ("sqlite", "lmdb", "bolt", "tinydb")
narrow = pytest.mark.skipif(sys.maxsize > 2**32, reason="addresses are 64 bits long")

Note = Callable[[str, object], None]


def fill(jobs: JobStore, start: int = 0, limit: int = 1000) -> int:
    """Create jobs of 0.9 MB, so many or until it is full; how many were made."""
    for number in range(limit):
        try:
            jobs.create(Job(id=f"job-{start + number:05}", spec=BODY))
        except StoreFullError:
            return number
    return limit


def assert_whole(database: Database, count: int) -> None:
    """Every job can be read, and nothing disagrees."""
    jobs = JobStore(database)
    assert jobs.count() == count
    assert all(jobs.get(f"job-{number:05}").spec == BODY for number in range(count))
    assert list(check(database)) == []


@contextmanager
def crowded(leaving: int) -> Iterator[None]:
    """Take address space until no stretch of so many bytes is left."""
    with ExitStack() as stack:
        size = 1 << 30
        while size >= leaving:
            try:
                stack.enter_context(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE, prot=0))
            except OSError:
                size //= 2
        yield


@narrow
def test_lmdb_alone_cannot_map_3_gib(tmp_path: Path, record_property: Note) -> None:
    """What py-lmdb says by itself: no map, and no way to go on but a smaller one."""
    with pytest.raises((lmdb.MemoryError, OverflowError)) as caught:
        lmdb.open(str(tmp_path / "bare"), map_size=3 << 30)
    record_property("said", f"{type(caught.value).__name__}: {caught.value}")


@narrow
@pytest.mark.parametrize("asked", ["1025M", "3G", "16G"])
def test_lmdb_map_beyond_the_addresses(tmp_path: Path, asked: str, record_property: Note) -> None:
    """A map that cannot be is refused before anything is made, with what could be."""
    path = tmp_path / "jobs.lmdb"
    with pytest.raises(ConfigurationError, match=r"map_size=.*to 1G") as caught:
        open_database(f"lmdb://{path}?map_size={asked}")
    record_property("said", caught.value)
    assert not path.exists()


@narrow
def test_lmdb_grows_to_its_limit(tmp_path: Path, record_property: Note) -> None:
    """By default the map begins at 16 MiB and grows to 512 MiB; then it is full, nothing is lost,
    and what is deleted makes room.
    """
    location = f"lmdb://{tmp_path / 'jobs.lmdb'}?durability=off"
    with open_database(location) as database:
        jobs = JobStore(database)
        record_property("first", database.driver.describe()["mapsize"])
        count = fill(jobs)
        record_property("full", database.driver.describe()["mapsize"])
        record_property("jobs of 0.9 MB", count)
        assert 400 < count < 600
        for number in range(count - 50, count):
            jobs.delete(f"job-{number:05}")
        assert fill(jobs, count) > 20
    with open_database(location) as database:
        assert list(check(database)) == []
        assert JobStore(database).get("job-00007").spec == BODY


@narrow
def test_lmdb_where_addresses_run_out(tmp_path: Path, record_property: Note) -> None:
    """A map that could grow by its limit, but finds no room in a crowded process: full, and all
    that was acknowledged is there. Once there is room again, it goes on.
    """
    with open_database(f"lmdb://{tmp_path / 'jobs.lmdb'}?durability=off") as database:
        jobs = JobStore(database)
        with crowded(leaving=24 * MIB):
            count = fill(jobs)
            with pytest.raises(StoreFullError, match="cannot map more memory") as caught:
                jobs.create(Job(id="one-more", spec=BODY))
        record_property("said", caught.value)
        record_property("jobs of 0.9 MB", count)
        assert_whole(database, count)
        assert fill(jobs, count, 40) == 40
        assert_whole(database, count + 40)


@narrow
def test_bolt_where_addresses_run_out(tmp_path: Path, record_property: Note) -> None:
    """A commit that needs a map for which there is no room fails whole; later ones do not."""
    path = tmp_path / "jobs.bolt"
    with open_database(f"bolt://{path}?durability=off") as database:
        jobs = JobStore(database)
        assert fill(jobs, 0, 40) == 40
        with crowded(leaving=24 * MIB):
            with pytest.raises(StorebridgeError, match="no room to map") as caught:
                fill(jobs, 40, 100)
            count = jobs.count()
        record_property("said", caught.value)
        assert fill(jobs, count, 40) == 40
        assert_whole(database, count + 40)
    with open_database(f"bolt://{path}") as database:
        assert_whole(database, count + 40)


def lengthen(path: Path, size: int) -> None:
    """Give a file this size, with nothing in what is new."""
    os.truncate(path, size)
    assert path.stat().st_blocks * 512 < size // 2, "the file system keeps no sparse files"


@narrow
def test_bolt_file_past_2_gib(tmp_path: Path, record_property: Note) -> None:
    """Refused in words, and left as it is; one of 1 GiB is used."""
    path = tmp_path / "jobs.bolt"
    with open_database(f"bolt://{path}") as database:
        assert fill(JobStore(database), 0, 3) == 3
    lengthen(path, 1 << 30)
    with open_database(f"bolt://{path}") as database:
        assert fill(JobStore(database), 3, 3) == 3
        assert_whole(database, 6)
    lengthen(path, 3 << 30)
    for mode in ("", "?read_only=true"):
        with pytest.raises(ConfigurationError, match="64-bit") as caught:
            open_database(f"bolt://{path}{mode}")
    record_property("said", caught.value)
    os.truncate(path, 1 << 30)
    with open_database(f"bolt://{path}") as database:
        assert_whole(database, 6)


@narrow
def test_bolt_grows_as_long_as_two_maps_fit(tmp_path: Path, record_property: Note) -> None:
    """A commit maps the longer file beside the one that is mapped. Where there is no room for both,
    the transaction fails whole, and what was there stays readable.
    """
    path = tmp_path / "t.db"
    with DB(path, durability="off") as db:
        with db.update() as tx:
            tx.create_bucket(b"b").put(b"first", b"1")

        def put_much(number: int) -> None:
            with db.update() as tx:
                tx.bucket(b"b").put(b"%05d" % number, bytes(64 * MIB))

        number = 0
        with pytest.raises((DatabaseTooLargeError, MemoryError)) as caught:  # noqa: PT012
            while True:
                put_much(number)
                number += 1
        reached = path.stat().st_size
        with db.view() as tx:
            kept = sum(1 for _ in tx.bucket(b"b").scan()) - 1
        assert kept == number
    record_property("said", caught.value)
    record_property("MiB", reached // MIB)
    assert 256 * MIB < reached < 2 << 30
    with DB(path) as db, db.view() as tx:
        assert tx.bucket(b"b").get(b"first") == b"1"
        assert len(tx.bucket(b"b").get(b"%05d" % (number - 1)) or b"") == 64 * MIB


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_sqlite_file_past_2_gib(tmp_path: Path, scheme: str, record_property: Note) -> None:
    """Records on both sides of 2 GiB and of 4 GiB are written and read; what lies between is a gap
    in the file, whose pages SQLite takes for used.
    """
    path = tmp_path / "jobs.db"
    count = 0
    for size in (0, 2 << 30, 4 << 30):
        if size:
            pretend_used(path, size - 2 * MIB)
        with open_database(f"{scheme}://{path}") as database:
            jobs = JobStore(database)
            count += fill(jobs, count, 10)
            assert all(jobs.get(f"job-{number:05}").spec == BODY for number in range(count))
            assert (count, path.stat().st_size > size) == (jobs.count(), True)
    record_property("bytes", path.stat().st_size)


def pretend_used(path: Path, size: int) -> None:
    """Let a SQLite file, closed and with nothing in its log, have so many bytes of pages."""
    with path.open("r+b") as file:
        header = file.read(100)
        (page_size,) = struct.unpack_from(">H", header, 16)
        file.seek(28)
        file.write(struct.pack(">I", size // page_size))
    lengthen(path, size)


@pytest.mark.parametrize("backend", ["memory", *FILES])
def test_times_past_2038(tmp_path: Path, backend: str) -> None:
    """Records made before, in and after the last second of 32 bits: in order, found by time, and
    with leases, expiry and retention that reach across it.
    """
    time = LATE - timedelta(seconds=3)

    def clock() -> datetime:
        return time

    place = f"{backend}:" if backend == "memory" else f"{backend}://{tmp_path / 'store'}"
    with open_database(place, clock=clock) as database:
        executions, settings = ExecutionStore(database), KeyValueStore(database, "settings")
        settings.set("gone", 1, expires_in=5)
        settings.set("stays", 1, expires_in=timedelta(days=20_000))
        made = []
        for _ in range(7):
            made.append(executions.create(Execution(job_id="j")).id)
            time += timedelta(seconds=1)
        times = [executions.get(each).created_at for each in made]
        assert times == [LATE + timedelta(seconds=step) for step in range(-3, 4)]
        assert [each.id for each in executions.find()] == made
        assert [each.id for each in executions.find(created_from=LATE)] == made[3:]
        assert [each.id for each in executions.find(created_until=LATE)] == made[:3]
        assert dict(settings) == {"stays": 1}
        time += timedelta(days=36_500)
        for each in made:
            executions.set_state(each, "Failed")
        assert [event.at.year for event in executions.history(made[0])] == [2038, 2137]
        time += timedelta(days=31)
        database.compact(Retention(states=("Failed",), keep=timedelta(days=30)))
        assert executions.count() == 0
        assert list(check(database)) == []
