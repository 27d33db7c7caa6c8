"""Watching, and writing several records at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from storebridge.database import Database
from storebridge.errors import (
    ConfigurationError,
    ConflictError,
    InvalidQueryError,
    InvalidRecordError,
    RecordExistsError,
    RecordNotFoundError,
    StorebridgeError,
)
from storebridge.events import Event
from storebridge.executions import Execution, ExecutionStore
from storebridge.expect import Expect
from storebridge.jobs import Job, JobStore
from storebridge.store import StateChange
from storebridge.testing.stores.base import StoreTests


class WatchTests(StoreTests):
    """`watch`."""

    def test_what_was_and_what_comes(self, database: Database, jobs: JobStore) -> None:
        """Every event once and in order: those that are there, then those to come."""
        for _ in range(3):
            jobs.create(Job())

        def write() -> None:
            for _ in range(600):
                jobs.create(Job())

        writer = threading.Thread(target=write)
        watched = jobs.watch(after=0)
        first = next(watched)
        writer.start()
        rest = list(islice(watched, 602))
        writer.join()
        watched.close()  # type: ignore[attr-defined]
        assert [e.sequence for e in (first, *rest)] == list(range(1, 604))

    def test_without_a_place_it_begins_now(self, database: Database, jobs: JobStore) -> None:
        """With the call, however late the first event is asked for."""
        jobs.create(Job(id="before"))
        watched = jobs.watch(timeout=0)
        jobs.create(Job(id="after"))
        assert [event.record_id for event in watched] == ["after"]

    def test_what_is_passed_over_moves_the_checkpoint(
        self, database: Database, jobs: JobStore
    ) -> None:
        """Who waits for what is rare does not come again from where it began, where by then events
        may have been removed; and does not write for each that it passes over."""
        with database.transaction():
            for _ in range(1200):
                jobs.create(Job())
        before = database.statistics.transactions
        assert not list(jobs.watch(states=["Failed"], checkpoint="rare", timeout=0))
        saved = database.checkpoint("rare")
        assert saved is not None
        assert saved > 700
        assert database.statistics.transactions - before <= 3

    def test_it_is_told_at_once(self, database: Database, jobs: JobStore) -> None:
        """A change of this process reaches a watcher much sooner than the next look."""
        told: list[float] = []
        watched = jobs.watch(after=0)

        def read() -> None:
            for _ in range(20):
                next(watched)
                told.append(time.perf_counter())

        reader = threading.Thread(target=read)
        reader.start()
        sent = []
        for number in range(20):
            jobs.create(Job())
            sent.append(time.perf_counter())
            while len(told) <= number:
                time.sleep(0.001)
        reader.join()
        waits = sorted(b - a for a, b in zip(sent, told, strict=True))
        assert waits[len(waits) // 2] < 0.05

    def test_stores_and_states(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        job = jobs.create(Job())
        execution = executions.create(Execution(job_id=job.id))
        executions.set_state(execution.id, "Failed")
        jobs.set_state(job.id, "Failed")

        def kinds(watched: Iterator[Event]) -> list[tuple[str, str | None]]:
            return [(event.store, event.state) for event in watched]

        everything = kinds(database.watch(after=0, timeout=0))
        assert len(everything) == 4
        failed = database.watch(after=0, states=["Failed"], timeout=0)
        assert kinds(failed) == [("execution", "Failed"), ("job", "Failed")]
        of_jobs = database.watch(after=0, stores=["job"], timeout=0)
        assert kinds(of_jobs) == [("job", "Pending"), ("job", "Failed")]
        assert kinds(executions.watch(after=0, states=["Failed"], timeout=0)) == [
            ("execution", "Failed")
        ]

    def test_a_watcher_comes_again(self, database: Database, jobs: JobStore) -> None:
        """A reader that comes again goes on where it was: nothing is missed, and what it had done
        with before it asked for more does not come again."""
        for number in range(10):
            jobs.create(Job(id=f"j-{number}"))
        watched = jobs.watch(checkpoint="mailer", timeout=0)
        first = [event.record_id for event in islice(watched, 4)]
        watched.close()  # type: ignore[attr-defined]
        again = [e.record_id for e in jobs.watch(checkpoint="mailer", timeout=0)]
        assert first + again[1:] == [f"j-{number}" for number in range(10)]
        assert again[0] == "j-3"  # nobody has said that it was done with
        assert database.checkpoint("mailer") == 10
        assert not list(jobs.watch(checkpoint="mailer", timeout=0))

    def test_a_watch_that_cannot_be(self, database: Database, jobs: JobStore) -> None:
        with pytest.raises(ConfigurationError):
            database.watch(after=1, checkpoint="x")
        with pytest.raises(InvalidQueryError):
            database.watch(stores="job")
        with pytest.raises(ConfigurationError, match=r"'jobs'.*job"):
            database.watch(stores=["jobs"])
        with pytest.raises(InvalidQueryError, match=r"'Runing'.*Running"):
            jobs.watch(states=["Runing"])
        with pytest.raises(InvalidRecordError, match="after"):
            list(jobs.watch(after="1", timeout=0))  # type: ignore[arg-type]


class ManyTests(StoreTests):
    """`create_many` and `set_state_many`."""

    def test_each_has_its_result(self, database: Database, jobs: JobStore) -> None:
        """One that cannot be is refused alone; the others are one transaction."""
        before = database.statistics.transactions
        created = jobs.create_many([Job(id="a"), Job(id="a"), Job(id="b")])
        assert database.statistics.transactions == before + 1
        assert isinstance(created[1], RecordExistsError)
        assert [job.id for job in (created[0], created[2]) if isinstance(job, Job)] == ["a", "b"]
        changed = jobs.set_state_many(
            [
                StateChange("a", "Running", message="go", expect=Expect(states=["Pending"])),
                StateChange("a", "Running", expect=Expect(revision=1)),
                StateChange("none", "Running"),
                StateChange("b", "Failed", fields={"priority": 3, "message": "why"}),
                StateChange("b", "Failed", fields={"no such field": 3}),
            ]
        )
        assert isinstance(changed[1], ConflictError)
        assert isinstance(changed[2], RecordNotFoundError)
        assert isinstance(changed[4], StorebridgeError)
        assert jobs.get("a").message == "go"
        b = jobs.get("b")
        assert (b.state, b.priority, b.message) == ("Failed", 3, "why")
        assert database.sequence() == 4
        assert jobs.create_many([]) == jobs.set_state_many([]) == []
