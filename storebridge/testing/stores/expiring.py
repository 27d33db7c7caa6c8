"""Events and versions go, and whoever reads them is told."""

from __future__ import annotations

import pytest

from storebridge import (
    EventsExpiredError,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    Retention,
)
from storebridge.testing.stores.aging import (
    DAY,
    Aging,
    AgingTests,
    assert_deeply_sound,
    ended,
)


class ExpiryTests(AgingTests):
    """What compaction does to histories, versions, and their readers."""

    def test_history_of_the_deleted(self, aging: Aging) -> None:
        """The history of a record that was deleted stays whole until its time is over, then it
        goes whole; that of a record which is there again does not.
        """
        database, clock = aging
        jobs = JobStore(database)
        for name in ("gone", "again", "late"):
            jobs.create(Job(id=name))
            jobs.set_state(name, "Running")
        clock.time += 10 * DAY
        for name in ("gone", "again"):
            jobs.delete(name)
        jobs.create(Job(id="again"))
        clock.time += 5 * DAY
        jobs.delete("late")
        database.compact(Retention(deleted_keep=6 * DAY), reclaim=False)
        assert [len(jobs.history(name)) for name in ("gone", "again", "late")] == [3, 4, 3]
        clock.time += 2 * DAY
        database.compact(Retention(deleted_keep=6 * DAY), reclaim=False)
        assert [len(jobs.history(name)) for name in ("gone", "again", "late")] == [0, 4, 3]
        assert_deeply_sound(database)

    def test_events_by_count_and_age(self, aging: Aging) -> None:
        """Of each record the oldest events go, so that none is missing in between, and never the
        last one.
        """
        database, clock = aging
        jobs = JobStore(database)
        for name in ("busy", "idle"):
            jobs.create(Job(id=name))
        for priority in range(1, 8):
            clock.time += DAY
            jobs.update("busy", priority=priority)
        database.compact(Retention(events_count=5), reclaim=False)
        assert [e.revision for e in jobs.history("busy")] == [4, 5, 6, 7, 8]
        database.compact(Retention(events_keep=2.5 * DAY), reclaim=False)
        assert [e.revision for e in jobs.history("busy")] == [6, 7, 8]
        assert [e.revision for e in jobs.history("idle")] == [1]
        clock.time += 30 * DAY
        report = database.compact(Retention(events_keep=DAY, events_count=2), reclaim=False)
        assert report.pruned["job"].events == 2
        assert [e.revision for e in jobs.history("busy")] == [8]
        assert_deeply_sound(database)
        jobs.update("busy", priority=99)
        assert_deeply_sound(database)

    def test_versions_by_count_and_age(self, aging: Aging) -> None:
        """Of a job's versions the oldest go; the job itself is not touched."""
        database, clock = aging
        jobs = JobStore(database)
        jobs.create(Job(id="j"))
        for priority in range(1, 8):
            clock.time += DAY
            jobs.update("j", priority=priority)
        now = jobs.get("j")
        database.compact(Retention(versions_count=5), reclaim=False)
        assert [v.version for v in jobs.versions("j")] == [3, 4, 5, 6, 7]
        database.compact(Retention(versions_keep=3.5 * DAY), reclaim=False)
        assert [v.version for v in jobs.versions("j")] == [5, 6, 7]
        database.compact(Retention(versions_count=0), reclaim=False)
        assert jobs.versions("j") == []
        assert jobs.get("j") == now
        assert jobs.update("j", priority=99).version == 9
        assert_deeply_sound(database)

    def test_a_history_longer_than_a_step(self, aging: Aging) -> None:
        """A record with more events and versions than are removed at once goes whole, too."""
        database, clock = aging
        jobs = JobStore(database)
        jobs.create(Job(id="j"))
        with database.transaction():
            for priority in range(1, 700):
                jobs.update("j", priority=priority)
        jobs.set_state("j", "Completed")
        clock.time += 2 * DAY
        gone = database.compact(Retention(keep=DAY), reclaim=False).pruned["job"]
        assert (gone.records, gone.events, gone.versions) == (1, 701, 699)
        assert [e.kind for e in jobs.history("j")] == ["deleted"]
        assert_deeply_sound(database)

    def test_readers_are_told_of_what_they_missed(self, aging: Aging) -> None:
        """Reading on from before what was removed is an EventsExpiredError, in that store alone;
        from behind it every event comes; and whoever asks for what is left gets that.
        """
        database, clock = aging
        executions = ExecutionStore(database)
        jobs = JobStore(database)
        ended(executions, "old")
        jobs.create(Job(id="j"))
        position = database.sequence()
        clock.time += 2 * DAY
        ended(executions, "new")
        database.compact(Retention(keep=DAY), reclaim=False)
        for after in (0, 1, 2):
            with pytest.raises(EventsExpiredError, match="'execution': events up to 3"):
                list(database.events(after))
            with pytest.raises(EventsExpiredError):
                list(executions.events(after))
        assert [e.record_id for e in jobs.events(0)] == ["j"]
        told = [(e.record_id, e.kind) for e in database.events(position)]
        assert told == [*[("new", kind) for kind in ("created", "state", "state")],
                        ("old", "deleted")]  # fmt: skip
        assert [e.record_id for e in database.events()] == ["j", *["new"] * 3, "old"]

    def test_a_reader_is_overtaken(self, aging: Aging) -> None:
        """A reader that events are removed ahead of, while it reads, is told so: it never passes
        over them in silence.
        """
        database, clock = aging
        executions = ExecutionStore(database)
        with database.transaction():
            for number in range(600):
                executions.create(Execution(id=f"{number}", job_id="j"))
        for number in range(600):
            executions.set_state(f"{number}", "Cancelled")
        reader = database.events(0)
        seen = [next(reader).sequence for _ in range(10)]
        clock.time += 2 * DAY
        database.compact(Retention(keep=DAY), reclaim=False)
        with pytest.raises(EventsExpiredError):
            seen += [event.sequence for event in reader]
        assert seen == list(range(1, len(seen) + 1))

    def test_checkpoints_hold_events(self, aging: Aging) -> None:
        """No event goes that a checkpoint has not passed, until the checkpoint is forgotten: then
        it holds nothing, and its reader is told what it missed.
        """
        database, clock = aging
        jobs = JobStore(database)
        jobs.create(Job(id="j"))
        for name in ("Running", "Completed"):
            jobs.set_state("j", name)
        clock.time += 10 * DAY
        database.set_checkpoint("ahead", 3)
        database.set_checkpoint("behind", 1)
        rule = Retention(keep=DAY, events_count=1, checkpoints_keep=5 * DAY)
        report = database.compact(rule, reclaim=False)
        assert report.pruned["job"].records == 1
        assert [e.sequence for e in jobs.history("j")] == [2, 3, 4]
        assert [n for n in report.notes if "'behind'" in n and "after 1" in n]
        assert len(list(database.events(1))) == 3
        assert_deeply_sound(database)
        clock.time += 4 * DAY
        database.set_checkpoint("ahead", 4)
        assert database.compact(rule, reclaim=False).pruned["job"].events == 0
        clock.time += 2 * DAY
        report = database.compact(rule, reclaim=False)
        assert jobs.history("j") == []
        assert report.notes == ()
        assert database.checkpoint("behind") == 1
        with pytest.raises(EventsExpiredError):
            list(database.events(1))
        assert list(database.events(4)) == []
