"""Fills the disk below a database that is one file: `python -m tests.unit.full_disk LIMIT BACKEND
PATH DURABILITY`. Prints "usable" where nothing was lost, and the database can be written to again
as soon as there is room.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from storebridge import Job, JobStore, StoreFullError, open_database, to_json
from storebridge.check import check

ROUNDS = 4
SPEC = to_json({"text": "x" * 3000})


class FileSize:
    """A limit on the size of files, which grows from round to round."""

    def __init__(self, path: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.path = path
        self.room = 10_000

    def fill(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        self._limit(size + self.room)
        self.room *= 4

    def clear(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Ballast:
    """Another file on the database's own small disk, which leaves it less and less."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name("ballast")
        self.room = 160_000

    def fill(self) -> None:
        disk = os.statvfs(self.path.parent)
        self.path.write_bytes(bytes(max(disk.f_bavail * disk.f_frsize - self.room, 0)))
        self.room //= 4

    def clear(self) -> None:
        self.path.unlink()


Limit = FileSize | Ballast
LIMITS: dict[str, Callable[[Path], Limit]] = {"file-size": FileSize, "small-disk": Ballast}


def no_room_to_make_it(limit: Limit, path: Path, location: str) -> None:
    """Whatever there is room for, a database that could not be made is not in the way of one."""
    for room in (0, 1, 5_000, 9_000, 17_000):
        for empty in (False, True):
            path.unlink(missing_ok=True)
            if empty:
                path.touch()
            limit.room = room
            limit.fill()
            try:
                open_database(location).close()
            except StoreFullError:
                limit.clear()
                assert os.listdir(path.parent) == ([path.name] if path.exists() else [])
            else:
                limit.clear()
            with open_database(location) as database:
                JobStore(database).create(Job(id="first"))
    path.unlink()


def no_room_to_write(limit: Limit, location: str) -> None:
    kept: set[str] = set()
    database = open_database(location)
    jobs = JobStore(database)
    for turn in range(ROUNDS):
        limit.fill()
        refused = 0
        for number in range(1000):
            name = f"{turn}-{number}"
            try:
                jobs.create(Job(id=name, spec=SPEC))
                kept.add(name)
            except StoreFullError:
                refused += 1
            if refused == 3:
                break
        assert refused == 3, "the disk was never full"
        assert {job.id for job in jobs.each()} == kept
        limit.clear()
        jobs.create(Job(id=f"{turn}-after", spec=SPEC))
        kept.add(f"{turn}-after")
        assert list(check(database)) == []
        if turn % 2:
            database.close()
            database = open_database(location)
            jobs = JobStore(database)
        assert {job.id for job in jobs.each()} == kept
        assert jobs.counts()["Pending"] == len(kept)
    database.close()


def no_room_after_a_kill(limit: Limit, path: Path, location: str) -> None:
    """What a killed process has left is opened and read on a full disk, too; its mark goes when
    there is room for that."""
    child = os.fork()
    if not child:
        jobs = JobStore(open_database(location))
        for number in range(20):
            jobs.create(Job(id=str(number), spec=SPEC))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    limit.room = 0
    limit.fill()
    with open_database(location) as database:
        assert [owner.pid for owner in database.stopped_uncleanly] == [child]
        (report,) = database.recounted
        assert (report.counts["Pending"], report.drift) == (20, {})
        assert len(list(JobStore(database).each())) == 20
    limit.clear()
    with open_database(location) as database:
        assert (database.stopped_uncleanly == ()) == report.repaired
    with open_database(location) as database:
        assert database.stopped_uncleanly == ()
        for number in range(20):
            JobStore(database).delete(str(number))


def main() -> None:
    kind, backend, name, durability = sys.argv[1:]
    path = Path(name)
    location = f"{backend}://{path}?durability={durability}"
    no_room_to_make_it(LIMITS[kind](path), path, location)
    no_room_after_a_kill(LIMITS[kind](path), path, location)
    no_room_to_write(LIMITS[kind](path), location)
    print("usable")


if __name__ == "__main__":
    main()
