"""Opening and closing: what an unclean stop leaves, options, and reading only."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from storebridge import (
    JOB,
    ConfigurationError,
    Database,
    Job,
    JobStore,
    ReadOnlyError,
    RecordNotFoundError,
    RecordStore,
    StorebridgeError,
)
from storebridge.check import check, repair
from storebridge.driver import Durability
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import (
    Calls,
    StoreTests,
    all_rows,
    assert_sound,
    contents,
    ids,
    open_at,
)
from storebridge.testing.stores.workers import store_worker


def marks(database: Database) -> list[str]:
    """The names of the marks of processes that write."""
    names = [str(key[0]) for key, _ in all_rows(database, "storebridge-meta")]
    return [name for name in names if name.startswith("opener ")]


class OpeningStoreTests(StoreTests):
    """`open_database`."""

    @pytest.mark.parametrize("read_only", [False, True])
    def test_a_file_that_is_moved_away(self, harness: BackendHarness, read_only: bool) -> None:
        """What cannot go on without the file's name says so in one of our errors; with the file
        back in its place everything goes on.
        """
        harness.require_files()
        with open_at(harness) as database:
            JobStore(database).create(Job(id="j"))
        database = open_at(harness, read_only=read_only)
        jobs = JobStore(database)
        kept = harness.target + ".moved"
        os.rename(harness.target, kept)
        calls: Calls = (
            lambda: jobs.get("j"),
            lambda: jobs.find(),
            lambda: jobs.set_state("j", "Running"),
            database.describe,
            database.holder,
        )
        try:
            for call in calls:
                with contextlib.suppress(StorebridgeError):
                    call()
        finally:
            os.rename(kept, harness.target)
        assert jobs.get("j").id == "j"
        database.close()

    def test_a_killed_process_is_noticed(
        self, harness: BackendHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A process that is killed leaves its mark; whoever opens next is told of it, counts again,
        and takes the mark away.
        """
        harness.require_persistent()
        with store_worker(harness, "write_and_wait", job="j") as worker:
            pid = worker.hear()
            os.kill(pid, signal.SIGKILL)
            worker.process.wait()
        with caplog.at_level(logging.WARNING, "storebridge"), open_at(harness) as database:
            assert [owner.pid for owner in database.stopped_uncleanly] == [pid]
            assert [report.store for report in database.recounted] == ["job"]
            assert len(marks(database)) == 1
            assert JobStore(database).count() == 1
        assert f"process {pid} ended without closing" in caplog.text
        with open_at(harness) as database:
            assert (database.stopped_uncleanly, database.recounted) == ((), ())
            assert marks(database) == []

    def test_drift_is_reported_and_mended(self, harness: BackendHarness) -> None:
        """Counters that drifted before an unclean stop are reported by the next opening, state by
        state, and right again.
        """
        harness.require_persistent()
        with open_at(harness) as database:
            JobStore(database)
            database.write(lambda unit: unit.engine.tally({"job Running": 5, "job Failed": -1}))
        with store_worker(harness, "write_and_wait", job="j") as worker:
            worker.hear()
            worker.kill()
        with open_at(harness) as database:
            (report,) = database.recounted
            assert report.drift == {"Running": 5, "Failed": -1}
            assert report.repaired
            assert JobStore(database).counts()["Running"] == 0
            assert_sound(database)

    def test_a_clean_close_leaves_no_mark(self, harness: BackendHarness) -> None:
        """A process that closes, or ends in order without closing, has not stopped uncleanly; one
        that only read leaves no mark at all.
        """
        harness.require_persistent()
        with open_at(harness) as database:
            jobs = JobStore(database)
            jobs.create(Job(id="j"))
            assert len(marks(database)) == 1
        with open_at(harness) as database:
            assert JobStore(database).get("j").id == "j"
            assert marks(database) == []
        with store_worker(harness, "write_and_wait", job="k") as worker:
            worker.hear()
            worker.go()
            worker.finish()
        with open_at(harness) as database:
            assert marks(database) == []
            assert database.stopped_uncleanly == ()

    def test_marks_of_others(self, harness: BackendHarness) -> None:
        """A living process's mark is left alone, and one process's clean close does not hide that
        another was killed.
        """
        harness.require_processes("many")
        harness.require_persistent()
        with (
            store_worker(harness, "write_and_wait", job="1") as living,
            store_worker(harness, "write_and_wait", job="2") as killed,
            store_worker(harness, "write_and_wait", job="3") as closing,
        ):
            pids = [each.hear() for each in (living, killed, closing)]
            killed.kill()
            killed.process.wait()
            closing.go()
            closing.finish()
            with open_at(harness) as database:
                assert [owner.pid for owner in database.stopped_uncleanly] == [pids[1]]
                assert any(f"opener {pids[0]} " in name for name in marks(database))
            with open_at(harness) as database:
                assert database.stopped_uncleanly == ()
            living.kill()
            living.process.wait()
        with open_at(harness) as database:
            assert [owner.pid for owner in database.stopped_uncleanly] == [pids[0]]

    def test_a_read_only_database(self, harness: BackendHarness) -> None:
        """Opened read-only, every write is a ReadOnlyError, reads work, and nothing is changed."""
        harness.require_persistent()
        with open_at(harness) as database:
            jobs = JobStore(database)
            jobs.create(Job(id="j", labels={"a": "b"}))
            jobs.update("j", priority=1)
            before = contents(database)
        with open_at(harness, read_only=True, create=False) as database:
            jobs = JobStore(database)
            calls: Calls = (
                lambda: jobs.create(Job()),
                lambda: jobs.update("j", priority=2),
                lambda: jobs.set_state("j", "Running"),
                lambda: jobs.delete("j"),
                lambda: jobs.discard("j"),
                lambda: database.set_checkpoint("a", 1),
                lambda: repair(database),
                lambda: database.transaction().__enter__(),
            )
            for call in calls:
                with pytest.raises(ReadOnlyError, match="read-only") as caught:
                    call()
                assert "\n" not in str(caught.value)
            assert ids(jobs.find(labels="a")) == ids(jobs.live()) == ["j"]
            assert (jobs.count(), len(jobs.history("j")), len(jobs.versions("j"))) == (1, 2, 1)
            assert len(list(database.events())) == 2
            assert list(check(database)) == []
            assert contents(database) == before

    def test_read_only_after_an_unclean_stop(self, harness: BackendHarness) -> None:
        """Who may only read is told of an unclean stop and leaves the mark for who may write."""
        harness.require_persistent()
        with store_worker(harness, "write_and_wait", job="j") as worker:
            pid = worker.hear()
            worker.kill()
        with open_at(harness, read_only=True, create=False) as database:
            assert [owner.pid for owner in database.stopped_uncleanly] == [pid]
            assert JobStore(database).count() == 1
        with open_at(harness) as database:
            assert [owner.pid for owner in database.stopped_uncleanly] == [pid]

    def test_a_store_that_is_not_there_yet(self, harness: BackendHarness) -> None:
        """Read-only, a store that was never made is empty."""
        harness.require_persistent()
        open_at(harness).close()
        with open_at(harness, read_only=True, create=False) as database:
            jobs = JobStore(database)
            assert (len(jobs.find()), jobs.count(), jobs.history("j")) == (0, 0, [])
            with pytest.raises(RecordNotFoundError):
                jobs.get("j")

    def test_nothing_is_made_unasked(self, harness: BackendHarness) -> None:
        """Where nothing is, opening without `create`, or read-only, is an error in one line, and
        makes nothing.
        """
        harness.require_files()
        for read_only in (False, True):
            with pytest.raises(StorebridgeError) as caught:
                open_at(harness, read_only=read_only, create=False)
            assert "\n" not in str(caught.value)
            assert list(Path(harness.target).parent.iterdir()) == []

    @pytest.mark.parametrize("durability", ["full", "relaxed", "off"])
    def test_durability(self, harness: BackendHarness, durability: Durability) -> None:
        """Every durability that the traits name can be had, and keeps what was written over closing
        and opening.
        """
        assert durability in harness.traits.durability
        with open_at(harness, durability=durability) as database:
            JobStore(database).create(Job(id="j"))
        harness.require_persistent()
        with open_at(harness, durability=durability) as database:
            assert JobStore(database).get("j").id == "j"

    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
    def test_mode(self, harness: BackendHarness, mode: int) -> None:
        """Every file that is made has the permissions asked for, whatever the umask."""
        harness.require_files()
        umask = os.umask(0o077)
        try:
            with open_at(harness, mode=mode) as database:
                JobStore(database).create(Job(id="j"))
                files = [p for p in Path(harness.target).parent.rglob("*") if p.is_file()]
                assert files
                assert {oct(p.stat().st_mode & 0o777) for p in files} == {oct(mode)}
        finally:
            os.umask(umask)

    def test_a_store_made_otherwise(self, harness: BackendHarness) -> None:
        """A store that the database has with other fields is refused before anything is done."""
        with open_at(harness) as database:
            JobStore(database).create(Job(id="j"))
            other = replace(JOB, filters=("state", "type"))
            with pytest.raises(ConfigurationError, match="other filters"):
                RecordStore(database, other)
            assert JobStore(database).count() == 1
