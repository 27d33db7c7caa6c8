"""Counting again: at opening, on demand, and down to every body, index entry and event."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from storebridge import (
    ConfigurationError,
    Database,
    Execution,
    ExecutionStore,
    Expect,
    Job,
    JobStore,
    RecordStore,
    TransactionError,
    open_database,
)
from storebridge.driver import Key
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import (
    StoreTests,
    Ticks,
    all_rows,
    contents,
    edit_body,
    store_location,
)
from storebridge.testing.stores.mending import edit_values
from storebridge.testing.stores.workers import store_worker

DRIFT = {"job Running": 5, "job Failed": -1}


def drift(database: Database, deltas: dict[str, int]) -> None:
    """Make counters say something else than the records."""
    database.write(lambda unit: unit.engine.tally(deltas))


def event_keys(store: RecordStore[Any], record_id: str) -> list[Key]:
    """The keys of a record's events, oldest first."""
    return [(record_id, event.sequence) for event in store.history(record_id)]


def lose(database: Database, table: str, *keys: Key) -> None:
    """Take entries out of a table without values, as if they had never been written."""

    def remove(unit: Any) -> None:
        for key in keys:
            unit.engine.remove(table, key, ())

    database.write(remove)


@dataclass(frozen=True)
class Seed:
    """A fault that is put into a database by hand."""

    sow: Callable[[JobStore], object]
    """Does it to job `b`, or to a counter."""
    table: str
    key: Key | None
    found: str
    """What a deep recount says of it."""
    mends: bool = True
    drifts: bool = False


def _lose_event(*which: int) -> Callable[[JobStore], object]:
    return lambda jobs: lose(
        jobs.database, "job-history", *(event_keys(jobs, "b")[one] for one in which)
    )


def _break_event(jobs: JobStore) -> None:
    key = event_keys(jobs, "b")[1]
    jobs.database.write(lambda unit: unit.engine.replace("job-history", key, (), (), b"{"))


def _lose_record(jobs: JobStore) -> None:
    values = jobs._write._columns.of(jobs.get("b"))
    jobs.database.write(lambda unit: unit.engine.remove("job", ("b",), values))


def _lose_label(jobs: JobStore) -> None:
    key = ("team", "web", "b")
    jobs.database.write(lambda unit: unit.engine.remove("job-label", key, None))


def _add_label(jobs: JobStore) -> None:
    (_, body) = next(row for row in all_rows(jobs.database, "job-label") if row[0][-1] == "b")
    values = jobs._write._columns.of(jobs.get("b"))[:1]
    key = ("team", "ops", "b")
    jobs.database.write(lambda unit: unit.engine.insert("job-label", key, values, body))


def _change_body(old: bytes, new: bytes) -> Callable[[JobStore], object]:
    def change(body: bytes) -> bytes:
        assert body.count(old) == 1
        return body.replace(old, new)

    return lambda jobs: edit_body(jobs, "b", change)


RECORD, HISTORY, LABEL = ("b",), "job-history", "job-label"
SEEDS = {
    "a counter": Seed(
        lambda jobs: drift(jobs.database, {"job Running": 2}), "job", None, "off by", drifts=True
    ),
    "a column": Seed(
        lambda jobs: edit_values(jobs, "b", lambda v: (v[0], v[1] + 7, *v[2:])),  # type: ignore[operator]
        "job",
        RECORD,
        "modified",
    ),
    "an index entry": Seed(
        lambda jobs: edit_values(
            jobs, "b", lambda v: tuple("Failed" if x == "Queued" else x for x in v)
        ),
        "job",
        RECORD,
        "state",
        drifts=True,
    ),
    "a body beside its indexes": Seed(
        _change_body(b'"namespace":"default"', b'"namespace":"other"'), "job", RECORD, "namespace"
    ),
    "an unreadable body": Seed(
        _change_body(b'"id":"b"', b'"id":"b'), "job", RECORD, "read", mends=False
    ),
    "a label missing": Seed(_lose_label, LABEL, ("team", "web", "b"), "missing"),
    "a label too many": Seed(_add_label, LABEL, ("team", "ops", "b"), "no such label"),
    "the first event": Seed(_lose_event(0), HISTORY, RECORD, "before event"),
    "an event in the midst": Seed(_lose_event(1), HISTORY, RECORD, "changes are missing"),
    "the last event": Seed(_lose_event(-1), HISTORY, RECORD, "its last event"),
    "all events": Seed(_lose_event(0, 1, 2), HISTORY, RECORD, "no event"),
    "an unreadable event": Seed(_break_event, HISTORY, RECORD, "cannot be read"),
    "a revision": Seed(
        _change_body(b'"revision":3', b'"revision":4'), HISTORY, RECORD, "revision 4"
    ),
    "a record": Seed(_lose_record, HISTORY, RECORD, "the record is missing"),
    "the next event's number": Seed(
        lambda jobs: drift(jobs.database, {"sequence": -2}), HISTORY, None, "lags behind"
    ),
}


class RecountTests(StoreTests):
    """`recount()`, shallow and deep, and what opening does of it."""

    @pytest.fixture
    def told_jobs(self, jobs: JobStore) -> JobStore:
        """Jobs a, b and c, each with told_jobs events, a label and a version."""
        for name in "abc":
            jobs.create(Job(id=name, labels={"team": "web"}))
            jobs.update(name, priority=1)
            jobs.set_state(name, "Queued")
        return jobs

    def test_counts_and_drift(self, database: Database, told_jobs: JobStore) -> None:
        """A recount says how many records are in each state, by how much the counters differ, and
        changes nothing unless it is to repair.
        """
        drift(database, DRIFT)
        before = contents(database)
        report = told_jobs.recount()
        assert {state: n for state, n in report.counts.items() if n} == {"Queued": 3}
        assert (report.drift, report.repaired, report.ok) == (
            {"Running": 5, "Failed": -1},
            False,
            False,
        )
        assert report.seconds > 0
        assert contents(database) == before
        assert told_jobs.recount(repair=True).ok
        again = told_jobs.recount()
        assert (again.drift, again.ok, again.counts) == ({}, True, report.counts)
        assert {state: n for state, n in told_jobs.counts().items() if n} == {"Queued": 3}

    def test_every_store_has_a_report(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """The recount of a database reports store by store, and a store's own is of it alone."""
        executions.create(Execution(job_id="j"))
        drift(database, {"job Running": 1})
        assert {r.store: (sum(r.counts.values()), r.ok) for r in database.recount(deep=True)} == {
            "job": (0, False),
            "execution": (1, True),
        }
        assert executions.recount(deep=True).store == "execution"
        assert executions.recount(deep=True, repair=True).ok
        assert not jobs.recount().ok

    @pytest.mark.parametrize("seeded", SEEDS)
    def test_every_seeded_fault_is_found(
        self, database: Database, told_jobs: JobStore, seeded: str
    ) -> None:
        """A deep recount finds each kind of fault, names where it is and no other record; a repair
        mends it, or says what it left, and changes no body.
        """
        seed = SEEDS[seeded]
        seed.sow(told_jobs)
        bodies = dict(all_rows(database, "job"))
        report = told_jobs.recount(deep=True)
        assert report.deep
        assert not report.ok
        told = [
            fault for fault in report.faults if (fault.table, fault.key) == (seed.table, seed.key)
        ]
        assert any(seed.found in fault.problem for fault in told), report.faults
        named = {fault.key[-1] if fault.table != HISTORY else fault.key[0]
                 for fault in report.faults if fault.key}  # fmt: skip
        assert named <= {"b"}
        assert bool(report.drift) >= seed.drifts
        mended = told_jobs.recount(deep=True, repair=True)
        assert mended.repaired
        assert mended.ok == seed.mends, mended.faults
        assert mended.mended == len(report.faults) - len(mended.faults)
        assert told_jobs.recount(deep=True).faults == mended.faults
        assert dict(all_rows(database, "job")) == bodies
        for name in "ac":
            told_jobs.set_state(name, "Running", expect=Expect(states={"Queued"}))
        assert told_jobs.recount(deep=True).faults == mended.faults

    def test_a_history_that_is_mended_says_so(self, told_jobs: JobStore) -> None:
        """Where events are missing, the repair notes it in the history itself and tells watchers;
        it does not make up what happened.
        """
        before = told_jobs.database.sequence()
        _lose_event(1)(told_jobs)
        told_jobs.recount(deep=True, repair=True)
        (event,) = told_jobs.events(before)
        assert (event.record_id, event.kind, event.revision, event.state) == (
            "b", "repaired", 3, "Queued",
        )  # fmt: skip
        assert "changes are missing" in event.message
        assert [e.revision for e in told_jobs.history("b")] == [1, 3, 3]

    def test_a_life_without_faults(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """Nothing that stores do is a fault: changes, deletion, an id that is used again, an
        unreadable record that was discarded, attempts that are linked.
        """
        for _ in range(3):
            jobs.create(Job(id="again", labels={"a": "b"}))
            jobs.update("again", labels={"a": "c"}, priority=2)
            jobs.delete("again")
        jobs.create(Job(id="broken", labels={"a": "b"}))
        edit_body(jobs, "broken", lambda _: b"garbage")
        jobs.discard("broken")
        jobs.create(Job(id="broken"))
        first = executions.create(Execution(job_id="again"))
        executions.set_state(first.id, "Failed")
        executions.create(Execution(job_id="again", previous_id=first.id))
        assert all(report.ok for report in database.recount(deep=True))

    def test_what_changes_meanwhile_is_no_fault(
        self, harness: BackendHarness, database: Database, jobs: JobStore
    ) -> None:
        """Records that are made, changed and deleted while a deep recount reads are no faults, and
        their writers go on.
        """
        with database.transaction():
            for number in range(600):
                jobs.create(Job(id=f"{number:04}", labels={"team": "web"}))
        if not harness.traits.readers_block:
            seen = self._recount_and_change(jobs)
            assert {"job", "job-history"} <= seen
        stop = threading.Event()
        writer = threading.Thread(target=self._change_until, args=(jobs, stop))
        writer.start()
        try:
            for _ in range(2):
                assert jobs.recount(deep=True).faults == ()
        finally:
            stop.set()
            writer.join()
        assert jobs.recount(deep=True).ok

    def _recount_and_change(self, jobs: JobStore) -> set[str]:
        """Change records whenever the recount tells how far it has come: all through its way."""
        seen: set[str] = set()

        def watch(table: str, entries: int) -> None:
            seen.add(table)
            changes = threading.Thread(target=self._change, args=(jobs, f"{entries:04}"))
            changes.start()
            changes.join()

        assert jobs.recount(deep=True, watch=watch).faults == ()
        return seen

    def _change(self, jobs: JobStore, name: str) -> None:
        new = jobs.create(Job(labels={"team": "new"}))
        jobs.update(new.id, labels={"team": "newer"})
        if name in {job.id for job in jobs.find(prefix=name)}:
            jobs.delete(name)
        for name in ("0001", "0560"):
            jobs.update(name, labels={"n": str(jobs.get(name).revision)})

    def _change_until(self, jobs: JobStore, stop: threading.Event) -> None:
        while not stop.is_set():
            self._change(jobs, "none")

    def test_it_can_be_cancelled(self, database: Database, jobs: JobStore) -> None:
        """Whatever the callback raises ends a deep recount; nothing stays locked or half done."""
        with database.transaction():
            for number in range(1010):
                jobs.create(Job(id=str(number)))
        drift(database, DRIFT)
        told: list[tuple[str, int]] = []
        jobs.recount(deep=True, watch=lambda *seen: told.append(seen))
        assert len(told) >= 4
        for stop in (0, len(told) // 2, len(told) - 1):

            def cancel(*_: Any, calls: list[int] = [stop]) -> None:  # noqa: B006
                calls[0] -= 1
                if calls[0] < 0:
                    raise KeyError("enough")

            with pytest.raises(KeyError, match="enough"):
                jobs.recount(deep=True, repair=True, watch=cancel)
            jobs.set_state(str(stop), "Running")
        assert jobs.recount().drift == {"Running": 5, "Failed": -1}

    def test_a_repair_is_a_transaction_of_its_own(
        self, database: Database, told_jobs: JobStore
    ) -> None:
        """In a transaction one can count, but not repair, which nothing could undo."""
        with database.transaction():
            told_jobs.create(Job(id="d"))
            with pytest.raises(TransactionError):
                told_jobs.recount(repair=True)
            with pytest.raises(TransactionError):
                database.recount(deep=True, repair=True)
        assert told_jobs.recount(deep=True).ok

    def test_when_opening_recounts(self, harness: BackendHarness) -> None:
        """Opening recounts after an unclean stop, each time, or never, as it is asked; what it left
        undone, the next opening does.
        """
        harness.require_persistent()
        location = store_location(harness)
        with open_database(location, clock=Ticks()) as database:
            JobStore(database)
            drift(database, DRIFT)
        with open_database(location) as database:
            assert database.recounted == ()
        with store_worker(harness, "write_and_wait", job="j") as worker:
            worker.hear()
            worker.kill()
        with open_database(location, recount="never") as database:
            assert len(database.stopped_uncleanly) == 1
            assert database.recounted == ()
            assert JobStore(database).counts()["Running"] == 5
        with open_database(location) as database:
            assert len(database.stopped_uncleanly) == 1
            assert [r.drift for r in database.recounted] == [{"Running": 5, "Failed": -1}]
            drift(database, DRIFT)
        with open_database(location, recount="always", read_only=True) as database:
            assert [(r.ok, r.repaired) for r in database.recounted] == [(False, False)]
        with open_database(location, recount="always") as database:
            assert [(r.ok, r.repaired) for r in database.recounted] == [(True, True)]
            assert JobStore(database).counts()["Running"] == 0
        with open_database(location, recount="always") as database:
            assert [r.drift for r in database.recounted] == [{}]

    def test_an_unknown_way_to_recount(self, harness: BackendHarness) -> None:
        """A misspelt choice is refused, and named with what is accepted."""
        with pytest.raises(ConfigurationError, match="'sometimes': accepted are auto, always, ne"):
            open_database(store_location(harness), recount="sometimes")  # type: ignore[arg-type]
