"""Retention: what may go goes, nothing else, and everything that is left agrees."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from storebridge import (
    ConfigurationError,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    KeyValueStore,
    ReadOnlyError,
    Record,
    RecordSpec,
    RecordStore,
    Removal,
    Retention,
    TransactionError,
    open_database,
)
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.aging import (
    DAY,
    Aging,
    AgingTests,
    assert_deeply_sound,
    ended,
)
from storebridge.testing.stores.base import (
    StoreTests,
    Ticks,
    all_rows,
    contents,
    edit_body,
    ids,
    open_at,
    store_location,
)


class Note(Record, kw_only=True, tag=1):
    text: str = ""


NOTE = RecordSpec(name="note", type=Note)


class RetentionTests(AgingTests):
    """`database.compact(retention)`, and what it leaves."""

    def test_by_age_and_state(self, aging: Aging) -> None:
        """Terminal records go when they have not been changed for longer than they are kept, with
        all that belongs to them; live ones and younger ones stay as they are.
        """
        database, clock = aging
        executions = ExecutionStore(database)
        for day in range(10):
            ended(executions, f"done-{day}")
            ended(executions, f"failed-{day}", "Failed")
            executions.create(Execution(id=f"live-{day}", job_id="j"))
            clock.time += DAY
        late = executions.set_state("live-1", "Running")
        executions.set_state(late.id, "Completed")
        kept = {e.id: e for e in executions.each()}
        rule = Retention(keep=4.5 * DAY, states=("Completed", "Cancelled"))
        asked = database.compact(rule, reclaim=False, dry_run=True)
        assert {e.id: e for e in executions.each()} == kept
        report = database.compact(rule, reclaim=False)
        gone = {f"done-{day}" for day in range(6)}
        assert set(ids(executions.each())) == set(kept) - gone
        assert {e.id: e for e in executions.each()}.items() <= kept.items()
        assert report.pruned["execution"].records == asked.pruned["execution"].records == 6
        assert report.pruned["execution"].events == asked.pruned["execution"].events == 18
        assert (asked.dry_run, report.dry_run) == (True, False)
        assert report.longest_pause > 0
        assert_deeply_sound(database)
        assert (
            database.compact(Retention(keep=4.5 * DAY), reclaim=False).pruned["execution"].records
            == 6
        )
        assert [e for e in ids(executions.each()) if "live" not in e] == [
            name for day in range(6, 10) for name in (f"done-{day}", f"failed-{day}")
        ]
        assert executions.get("live-1").state == "Completed"
        assert_deeply_sound(database)

    def test_live_records_go_only_by_name(self, aging: Aging) -> None:
        """No age and no count removes a live record, unless its state is named."""
        database, clock = aging
        executions = ExecutionStore(database)
        for number in range(3):
            executions.create(Execution(id=str(number), job_id="j"))
        clock.time += 1000 * DAY
        database.compact(Retention(keep=DAY, count=0), reclaim=False)
        assert executions.count() == 3
        executions.set_state("1", "Running")
        database.compact(Retention(keep=DAY, states=("Created",)), reclaim=False)
        assert ids(executions.each()) == ["1"]
        assert executions.counts() == dict.fromkeys(executions.counts(), 0) | {"Running": 1}

    def test_by_count(self, aging: Aging) -> None:
        """Of each store only so many of the records that might go are left, those made last."""
        database = aging.database
        executions = ExecutionStore(database)
        jobs = JobStore(database)
        for number in range(10):
            ended(executions, f"{number}", "Failed" if number % 2 else "Completed")
            jobs.create(Job(id=f"{number}"))
            jobs.set_state(f"{number}", "Stopped")
        executions.create(Execution(id="live", job_id="j"))
        database.compact(Retention(count=4), reclaim=False)
        assert ids(executions.each()) == ["6", "7", "8", "9", "live"]
        assert ids(jobs.each()) == ["6", "7", "8", "9"]
        database.compact(Retention(count=1, states=("Failed",)), reclaim=False)
        assert ids(executions.each()) == ["6", "8", "9", "live"]
        database.compact(Retention(count=0, stores=("execution",)), reclaim=False)
        assert (ids(executions.each()), jobs.count()) == (["live"], 4)
        assert_deeply_sound(database)

    def test_by_count_at_once(self, aging: Aging) -> None:
        """Two that remove by count at the same time leave as many as one of them does."""
        database = aging.database
        executions = ExecutionStore(database)
        with database.transaction():
            for number in range(700):
                executions.create(Execution(id=f"{number:03}", job_id="j", state="Failed"))
        rule, others = Retention(count=100), [1]

        def meanwhile(removals: object) -> None:
            if others:
                others.pop()
                database.compact(rule, reclaim=False)

        database.on_compact(archive=meanwhile)
        database.compact(rule, reclaim=False)
        assert ids(executions.each()) == [f"{number}" for number in range(600, 700)]

    def test_what_a_count_leaves(self, aging: Aging) -> None:
        """By count alone nothing piles up either: the event that tells of a removal goes when the
        last reader it may wait for has been forgotten.
        """
        database, clock = aging
        executions = ExecutionStore(database)
        rule = Retention(count=2, checkpoints_keep=5 * DAY)
        for day in range(12):
            ended(executions, f"{day:02}")
            database.compact(rule, reclaim=False)
            clock.time += DAY
        told = {key[0] for key, _ in all_rows(database, "execution-history")}
        assert told == {f"{day:02}" for day in range(5, 12)}
        assert ids(executions.each()) == ["10", "11"]
        assert_deeply_sound(database)

    def test_everything_of_a_job_goes(self, aging: Aging) -> None:
        """With a record its labels, versions and events go, and its name is free again; watchers
        are told that it went.
        """
        database, clock = aging
        jobs = JobStore(database)
        job = jobs.create(Job(id="old", name="nightly", labels={"team": "web", "tier": "1"}))
        for priority in range(3):
            jobs.update(job.id, priority=priority + 1)
        jobs.set_state(job.id, "Completed")
        before = database.sequence()
        clock.time += 2 * DAY
        jobs.create(Job(id="new", labels={"team": "web"}))
        report = database.compact(Retention(keep=DAY), reclaim=False)
        gone = report.pruned["job"]
        assert (gone.records, gone.events, gone.versions) == (1, 5, 3)
        assert [key[-1] for key, _ in all_rows(database, "job-label")] == ["new"]
        assert all_rows(database, "job-version") == []
        (told,) = jobs.history("old")
        assert (told.kind, told.revision, told.message) == ("deleted", 5, "retention")
        assert [e.record_id for e in database.events() if e.sequence > before] == ["new", "old"]
        jobs.create(Job(id="old", name="nightly"))
        assert_deeply_sound(database)
        clock.time += 2 * DAY
        database.compact(Retention(deleted_keep=DAY), reclaim=False)
        assert [e.kind for e in jobs.history("old")] == ["deleted", "created"]

    def test_what_cannot_be_judged_stays(self, aging: Aging) -> None:
        """Records that cannot be read, or that a hand moved in the index, stay as they are, and are
        reported.
        """
        database, clock = aging
        executions = ExecutionStore(database)
        for name in ("whole", "broken", "moved"):
            ended(executions, name)
        edit_body(executions, "broken", lambda body: body[:-5])
        edit_body(executions, "moved", lambda body: body.replace(b'"Completed"', b'"Running"'))
        before = dict(all_rows(database, "execution"))
        clock.time += 2 * DAY
        report = database.compact(Retention(keep=DAY), reclaim=False)
        assert dict(all_rows(database, "execution")) == {
            key: body for key, body in before.items() if key != ("whole",)
        }
        assert sorted(note.partition(": ")[2][:12] for note in report.notes) == [
            "cannot be re", "is not where",
        ]  # fmt: skip

    def test_records_without_states(self, aging: Aging) -> None:
        """Records without states, such as settings, only go from stores that are named."""
        database, clock = aging
        notes = RecordStore(database, NOTE)
        for number in range(4):
            notes.create(Note(id=str(number)))
            clock.time += DAY
        database.compact(Retention(keep=timedelta(0), count=0), reclaim=False)
        assert notes.count() == 4
        database.compact(Retention(stores=("note",), keep=2.5 * DAY), reclaim=False)
        assert ids(notes.each()) == ["2", "3"]
        database.compact(Retention(stores=("note",), count=1), reclaim=False)
        assert ids(notes.each()) == ["3"]
        assert_deeply_sound(database)

    def test_keys_whose_time_is_over(self, aging: Aging) -> None:
        """Compaction removes the expired keys of key-value stores, and no other key."""
        database, clock = aging
        settings = KeyValueStore(database, "settings")
        settings["stays"] = 1
        settings.set("later", 2, expires_in=5 * DAY)
        settings.set("soon", 3, expires_in=DAY)
        clock.time += 2 * DAY
        assert database.compact(dry_run=True).pruned["settings"].keys == 1
        assert database.compact(reclaim=False).pruned["settings"].keys == 1
        assert dict(settings) == {"stays": 1, "later": 2}
        assert len(all_rows(database, "settings")) == 2
        assert_deeply_sound(database)

    def test_rules_that_overlap(self, aging: Aging) -> None:
        """A record that several rules let go is counted, and asked about, once."""
        database, clock = aging
        executions = ExecutionStore(database)
        for name in "abc":
            ended(executions, name)
        edit_body(executions, "c", lambda body: body[:-5])
        clock.time += 10 * DAY
        asked: list[str] = []

        def keep(removal: Removal) -> bool:
            asked.append(removal.id)
            return removal.id == "b"

        database.on_compact(keep=keep)
        rules = [Retention(keep=DAY, states=("Completed",)), Retention(keep=2 * DAY)]
        assert database.compact(rules, dry_run=True).pruned["execution"].records == 2
        report = database.compact(rules, reclaim=False)
        assert (report.pruned["execution"].records, report.kept) == (1, 1)
        assert asked == ["a", "b"]
        assert report.notes == ("1 record stays: cannot be read",)

    def test_a_dry_run_touches_nothing(self, harness: BackendHarness, aging: Aging) -> None:
        """A dry run changes nothing, asks nobody, and is possible where nothing can be written."""
        database, clock = aging
        executions = ExecutionStore(database)
        ended(executions, "old")
        clock.time += 2 * DAY
        asked: list[Any] = []
        database.on_compact(before=asked.append, keep=asked.append, after=asked.append)  # type: ignore[arg-type]
        before = contents(database)
        report = database.compact(Retention(keep=DAY), dry_run=True)
        assert report.pruned["execution"].records == 1
        assert (contents(database), asked) == (before, [])
        if not harness.traits.persistent:
            return
        database.close()
        with open_at(harness, read_only=True, clock=clock) as reader:
            again = reader.compact(Retention(keep=DAY), dry_run=True)
            assert again.pruned == report.pruned
            with pytest.raises(ReadOnlyError):
                reader.compact(Retention(keep=DAY))

    def test_nothing_goes_by_mistake(self, aging: Aging) -> None:
        """A rule about a store or a state that there is none of is refused, and so is compaction
        where it could be undone, or nothing can be written.
        """
        database = aging.database
        jobs = JobStore(database)
        with pytest.raises(ConfigurationError, match="no store is called jobs"):
            database.compact(Retention(stores=("jobs",), keep=DAY))
        with pytest.raises(ConfigurationError, match="Done is no state"):
            database.compact(Retention(states=("Done",), keep=DAY))
        with database.transaction(), pytest.raises(TransactionError):
            database.compact()
        asked: list[object] = []
        database.on_compact(before=asked.append)
        with database.snapshot(), pytest.raises(ReadOnlyError):
            database.compact()
        assert asked == []
        jobs.create(Job(id="j"))
        assert database.compact(reclaim=False).pruned["job"].total == 0

    def test_writers_go_on(self, aging: Aging) -> None:
        """While compaction removes thousands of records others write, each change in its turn, and
        what they changed meanwhile is kept or removed as it then is.
        """
        database, clock = aging
        executions = ExecutionStore(database)
        with database.transaction():
            for number in range(600):
                ended(executions, f"{number:04}")
            for number in range(5):
                executions.create(Execution(id=f"live-{number}", job_id="j"))
        clock.time += 2 * DAY
        stop, written = threading.Event(), [0]

        def write() -> None:
            while not stop.is_set():
                written[0] += 1
                executions.update("live-0", message=str(written[0]))
                executions.create(Execution(id=f"new-{written[0]}", job_id="j"))
                # Still there: it was changed before it was its turn.
                executions.update(f"live-{written[0] % 5}", message="touched")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            report = database.compact(Retention(keep=DAY), reclaim=False)
        finally:
            stop.set()
            writer.join()
        assert report.pruned["execution"].records == 600
        assert written[0] >= 3
        assert executions.count() == 5 + written[0]
        assert_deeply_sound(database)


class DefaultRetentionTests(StoreTests):
    def test_the_database_own_rules(self, harness: BackendHarness) -> None:
        """Without being told, compaction goes by what the environment said at opening."""
        clock = Ticks()
        with open_database(store_location(harness), clock=clock) as database:
            executions = ExecutionStore(database)
            ended(executions, "old")
            clock.time += 2 * DAY
            database.compact(reclaim=False)
            assert executions.count() == 1
            database.retention = (Retention(keep=DAY),)
            database.compact(reclaim=False)
            assert executions.count() == 0
