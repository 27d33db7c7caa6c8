"""Moving a database's content to another backend and back, through all that can go wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    ConfigurationError,
    ConflictError,
    CorruptStoreError,
    DamagedExportError,
    Database,
    IncompleteStoreError,
    Job,
    JobStore,
    open_database,
)
from storebridge.check import check
from storebridge.driver.capabilities import Movable
from storebridge.location import Location, parse_location
from storebridge.testing.harness import BackendHarness, attack
from storebridge.testing.stores.awkward import Clock, fill, seed
from storebridge.testing.stores.base import (
    StoreTests,
    all_rows,
    another_target,
    contents,
    edit_body,
    open_at,
    store_location,
)
from storebridge.testing.stores.workers import store_worker
from storebridge.transfer import filling
from storebridge.transfer.exports import export_database, import_database
from storebridge.transfer.places import remove
from storebridge.transfer.progress import Progress
from storebridge.transfer.verification import verify


class Stopped(Exception):
    """A transfer was stopped in its midst."""


class StopAfter:
    """Stops a transfer when it has told of its progress so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    def __call__(self, progress: Progress) -> None:
        self._left -= 1
        if not self._left:
            raise Stopped


class TransferTests(StoreTests):
    """`migrate_to`, `verify`, export and import."""

    @pytest.fixture
    def awkward(self, harness: BackendHarness) -> Iterator[Database]:
        """A database with content of every kind."""
        chance = random.Random(f"transfer {seed()}")
        with open_at(harness, clock=Clock(chance)) as database:
            fill(database, chance, 100 * attack())
            yield database

    @pytest.fixture
    def plain(self, tmp_path: Path) -> Location:
        """A place that every backend can move to and from."""
        return parse_location(f"sqlite://{tmp_path}/plain.db?durability=off")

    @pytest.fixture
    def elsewhere(self, harness: BackendHarness) -> Iterator[Location]:
        """Another place of the backend under test."""
        location = store_location(harness, another_target(harness))
        if harness.traits.persistent:
            yield location
            return
        with open_database(location):
            yield location

    def test_there_and_back(self, awkward: Database, plain: Location, elsewhere: Location) -> None:
        """All that a database holds comes back byte for byte from another backend: bodies, keys,
        counters, checkpoints, sequence; and everything can be found and changed there.
        """
        there = awkward.migrate_to(plain)
        with open_database(plain) as other:
            back = other.migrate_to(elsewhere)
        assert there.digest == back.digest
        with open_database(elsewhere) as again:
            assert contents(again) == contents(awkward)
            assert verify(awkward, again).equal
            assert_as_sound(again, awkward)
            assert again.stopped_uncleanly == ()
            job = JobStore(again).create(Job(labels={"moved": "yes"}))
            assert [found.id for found in JobStore(again).find(labels="moved=yes")] == [job.id]
            assert again.sequence() == awkward.sequence() + 1

    def test_the_digest_is_what_is_documented(self, awkward: Database, plain: Location) -> None:
        """Anyone can compute it from keys and bodies, as the documentation says."""
        report = awkward.migrate_to(plain)
        names = [name for name in contents(awkward) if name != "totals"]
        tables = {name: _digest(all_rows(awkward, name)) for name in names}
        assert {name: (t.entries, t.sha256) for name, t in report.digest.tables.items()} == tables
        parts = {"tables": tables, "totals": contents(awkward)["totals"]}
        assert report.digest.sha256 == hashlib.sha256(_json(parts)).hexdigest()

    def test_stopped_anywhere(
        self,
        awkward: Database,
        elsewhere: Location,
        plain: Location,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Wherever a migration is stopped, its target is no store and says what it is; the next
        one goes on and writes nothing twice.
        """
        monkeypatch.setattr(filling, "_FEWEST", 40)
        awkward.migrate_to(plain)
        added = 0
        with open_database(plain, read_only=True) as source:
            for times in count(3, 9):
                try:
                    report = source.migrate_to(elsewhere, watch=StopAfter(times))
                    break
                except Stopped:
                    assert times < 500, "it never comes to its end"
                with pytest.raises(IncompleteStoreError, match=r"storebridge migrate.*plain\.db"):
                    open_database(elsewhere)
            added = report.added
        assert times > 10
        assert report.resumed
        assert added < report.digest.entries
        with open_database(elsewhere) as database:
            assert contents(database) == contents(awkward)
            assert_as_sound(database, awkward)

    def test_a_source_that_changes_before_it_goes_on(
        self, awkward: Database, elsewhere: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was added, changed, renamed and removed in the source between two attempts is so in
        the target, too: it is never a mix of both.
        """
        monkeypatch.setattr(filling, "_FEWEST", 20)
        jobs = JobStore(awkward)
        for name in "ab":
            jobs.create(Job(id=f"swapped-{name}", name=name, namespace="swapped"))
        whole: list[Progress] = []
        with pytest.raises(Stopped):
            awkward.migrate_to(elsewhere, watch=_at_the_end_of_copying(whole))
        jobs.update("swapped-a", name="c")
        jobs.update("swapped-b", name="a")
        jobs.update("swapped-a", name="b")
        for job in list(jobs.find(limit=20)):
            jobs.delete(job.id)
        fill(awkward, random.Random(seed()), 0)
        report = awkward.migrate_to(elsewhere)
        assert report.replaced >= 2
        assert report.removed >= 20
        with open_database(elsewhere) as database:
            assert contents(database) == contents(awkward)
            assert_as_sound(database, awkward)

    def test_writers_meanwhile(self, awkward: Database, elsewhere: Location) -> None:
        """What is written to the source while it is copied is copied as well; with a source that
        never comes to rest the migration fails, and the target is no store.
        """
        jobs = JobStore(awkward)
        written = iter(range(10**6))

        def write(progress: Progress) -> None:
            if progress.stage == "verify" and progress.done == 0:
                create = threading.Thread(target=lambda: jobs.create(Job(id=f"w{next(written)}")))
                create.start()
                create.join()

        with pytest.raises(ConflictError, match="stop its writers"):
            awkward.migrate_to(elsewhere, watch=write)
        with pytest.raises(IncompleteStoreError):
            open_database(elsewhere)
        awkward.migrate_to(elsewhere, watch=_once(write))
        with open_database(elsewhere) as database:
            assert contents(database) == contents(awkward)

    def test_quarantined_records(self, awkward: Database, elsewhere: Location) -> None:
        """A record whose body cannot be read stops the migration with its key; skipped, it is in
        the report, and everything else in the target. A dry run finds it, too, and writes nothing.
        """
        jobs = JobStore(awkward)
        jobs.create(Job(id="broken"))
        edit_body(jobs, "broken", lambda body: body.replace(b'"', b"'"))
        before = contents(awkward)
        with pytest.raises(CorruptStoreError, match="'broken' in table job"):
            awkward.migrate_to(elsewhere)
        with pytest.raises(IncompleteStoreError):
            open_database(elsewhere)
        trial = awkward.migrate_to(elsewhere, dry_run=True)
        assert (trial.complete, trial.skipped) == (False, (("job", ("broken",)),))
        report = awkward.migrate_to(elsewhere, skip_quarantined=True)
        assert report.skipped == trial.skipped
        assert report.digest == trial.digest
        with open_database(elsewhere) as database:
            verified = verify(awkward, database)
            assert [d[:3] for d in verified.differences] == [("job", ("broken",), "missing in B")]
        assert contents(awkward) == before

    def test_mended_meanwhile(self, awkward: Database, elsewhere: Location) -> None:
        """A record that was skipped, and is mended in the source while it is copied, is copied."""
        jobs = JobStore(awkward)
        values = jobs._write._columns.of(jobs.create(Job(id="broken")))
        whole = awkward.get("job", ("broken",))
        assert whole is not None
        edit_body(jobs, "broken", lambda body: body.replace(b'"', b"'"))

        def mend(progress: Progress) -> None:
            change = ("job", ("broken",), values, values, whole)
            work = threading.Thread(
                target=awkward.write, args=(lambda unit: unit.engine.replace(*change),)
            )
            work.start()
            work.join()

        report = awkward.migrate_to(elsewhere, skip_quarantined=True, watch=_once(mend))
        assert report.skipped == ()
        with open_database(elsewhere) as database:
            assert contents(database) == contents(awkward)

    def test_a_target_that_holds_something(
        self, awkward: Database, elsewhere: Location, plain: Location
    ) -> None:
        """A target that holds something else is refused and left as it is. Overwritten, what it
        held is kept in another place, and taken away only when the new is whole.
        """
        with open_database(elsewhere) as other:
            JobStore(other).create(Job(id="precious"))
            kept = contents(other)
            with pytest.raises(ConfigurationError, match="holds the store job"):
                awkward.migrate_to(elsewhere)
            # Also while this process has it open.
            with pytest.raises(ConfigurationError, match="cannot be replaced"):
                awkward.migrate_to(elsewhere, overwrite=True)
            assert contents(other) == kept
        if not _can_be_moved(elsewhere):
            return
        for times in (5, 9):
            with pytest.raises(Stopped):
                awkward.migrate_to(elsewhere, overwrite=True, watch=StopAfter(times))
            with open_database(elsewhere) as other:
                assert contents(other) == kept
        report = awkward.migrate_to(elsewhere, overwrite=True)
        assert report.resumed
        with open_database(elsewhere) as database:
            assert contents(database) == contents(awkward)
        assert report.replaces is not None
        with open_database(replace(elsewhere, target=str(report.replaces))) as other:
            assert contents(other) == kept

    def test_to_itself(self, awkward: Database) -> None:
        """A database is not its own target."""
        with pytest.raises(ConfigurationError, match="to itself"):
            awkward.migrate_to(awkward.location, overwrite=True)

    def test_differences_are_found(self, awkward: Database, plain: Location) -> None:
        """Whatever differs is named by table and key: what is missing on either side, other
        bodies, other counters.
        """
        awkward.migrate_to(plain)
        with open_database(plain) as other:
            assert verify(awkward, other).count == 0
            one, two = JobStore(awkward), JobStore(other)
            one.create(Job(id="only-a"))
            two.create(Job(id="only-b"))
            for job in (one, two):
                job.create(Job(id="both"))
            edit_body(two, "both", lambda body: body + b" ")
            other.write(lambda unit: unit.engine.tally({"job Failed": 7}))
            found = verify(awkward, other, most=100)
            assert not found.equal
            there = [d[:3] for d in found.differences]
            assert ("job", ("only-a",), "missing in B") in there
            assert ("job", ("only-b",), "missing in A") in there
            assert ("job", ("both",), "body differs") in there
            assert ("", ("job Failed",), "total differs") in there
            assert verify(awkward, other, most=1).count == found.count

    def test_export_and_import(
        self, awkward: Database, elsewhere: Location, plain: Location, tmp_path: Path
    ) -> None:
        """An export holds the same as its database, is the same file whatever backend it came from,
        and makes the same database of any backend, compressed or not, from a stream as well.
        """
        report = awkward.migrate_to(plain)
        stream = io.BytesIO()
        export_database(awkward, stream)
        for suffix in ("", ".gz", ".xz"):
            with open_database(plain) as other:
                export_database(other, tmp_path / f"other{suffix}")
            export_database(awkward, tmp_path / f"mine{suffix}")
            made = (tmp_path / f"mine{suffix}").read_bytes()
            assert made == (tmp_path / f"other{suffix}").read_bytes()
        assert (tmp_path / "mine").read_bytes() == stream.getvalue()
        assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600
        stream.seek(0)
        assert import_database(stream, elsewhere).digest == report.digest
        with open_database(elsewhere) as database:
            assert contents(database) == contents(awkward)
            assert_as_sound(database, awkward)

    def test_a_damaged_export(self, awkward: Database, elsewhere: Location) -> None:
        """An export that is cut off, altered, reordered or not whole is refused with the number of
        the line, and nothing of it stays.
        """
        stream = io.BytesIO()
        export_database(awkward, stream)
        lines = stream.getvalue().splitlines(keepends=True)
        middle = len(lines) // 2
        damaged = {
            middle: [*lines[: middle - 1], lines[middle - 1][:-5]],
            middle + 1: [*lines[:middle], lines[middle].replace(b'"', b"'", 1), *lines[middle:]],
            middle + 2: [*lines[: middle + 1], lines[middle + 2], lines[middle + 1]],
            middle - 1: lines[: middle - 2] + lines[middle:],
            len(lines): lines[:-1],
            len(lines) + 1: [*lines, b"\n"],
            1: [b"{}\n"],
        }
        for number, made in damaged.items():
            with pytest.raises(DamagedExportError, match=f"line {number}: "):
                import_database(io.BytesIO(b"".join(made)), elsewhere)
            if _can_be_moved(elsewhere):
                assert not os.path.exists(elsewhere.target)
            else:
                with open_database(elsewhere) as database:
                    assert not any(contents(database).values())
        import_database(io.BytesIO(b"".join(lines)), elsewhere)

    def test_migration_killed_at_random(
        self, awkward: Database, harness: BackendHarness, plain: Location
    ) -> None:
        """A migration that is killed, as often as may be, leaves no store, and then goes on."""
        harness.require_persistent()
        awkward.migrate_to(plain)
        target = another_target(harness)
        kill_migrations(replace_target(harness, target), plain, 2 * attack())
        with open_at(harness, target) as database:
            assert contents(database) == contents(awkward)
            assert_as_sound(database, awkward)


def assert_as_sound(database: Database, source: Database) -> None:
    """Indexes, labels, counters agree with the bodies as they do in the source."""
    assert list(check(database)) == list(check(source))


def replace_target(harness: BackendHarness, target: str) -> BackendHarness:
    """The same backend, with another target for its workers."""
    other = replace(harness)
    other.__dict__["target"] = target
    return other


def _can_be_moved(location: Location) -> bool:
    """Whether it is a file or a folder that others may take the place of."""
    return location.path is not None and isinstance(location.backend, Movable)


def kill_migrations(harness: BackendHarness, source: Location, kills: int) -> int:
    """Have a process migrate to the harness's target and kill it at a random moment, again and
    again; at last let it come to its end. Returns in how many of the cases it was in its midst."""
    chance = random.Random(f"kill {seed()}")
    location = store_location(harness)
    midway = 0
    for _ in range(kills):
        with store_worker(harness, "migrate", source=source.target) as worker:
            for _ in range(chance.randint(1, 40)):
                if worker.hear() == "done":
                    break
            worker.kill()
        state = _state(location)
        midway += state == "incomplete"
        if state == "whole":  # it was quicker than the kill
            if not _can_be_moved(location):
                return midway
            remove(location)
    with store_worker(harness, "migrate", source=source.target) as worker:
        while worker.hear() != "done":
            pass
        worker.finish()
    return midway


def _state(location: Location) -> str:
    try:
        with open_database(location, read_only=True) as database:
            return "whole" if database.layouts else "nothing"
    except IncompleteStoreError:
        return "incomplete"
    except ConfigurationError:
        return "nothing"  # it was killed before anything was there


def _at_the_end_of_copying(seen: list[Progress]) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.stage == "verify":
            raise Stopped

    return stop


def _once(write: Callable[[Progress], None]) -> Callable[[Progress], None]:
    done: list[Progress] = []

    def watch(progress: Progress) -> None:
        if progress.stage == "verify" and not done:
            done.append(progress)
            write(progress)

    return watch


def _digest(rows: Any) -> tuple[int, str]:
    """Of a table, as the documentation says."""
    made = hashlib.sha256()
    rows = [row for row in rows if not str(row[0][0]).startswith("opener ")]
    for key, body in rows:
        for text in (_json(key), body):
            made.update(str(len(text)).encode() + b":" + text + b",")
    return len(rows), made.hexdigest()


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()
