"""Events and checkpoints: every change told once and in order."""

from __future__ import annotations

import pytest

from storebridge import (
    ConfigurationError,
    Database,
    Execution,
    ExecutionStore,
    InvalidRecordError,
    Job,
    JobStore,
)
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import Calls, StoreTests, open_at


class EventTests(StoreTests):
    """`database.events()` and checkpoints."""

    def test_once_and_in_order(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """Events of all stores come once each, in the order of the changes, over pages."""
        expected = []
        with database.transaction():
            for number in range(600):
                jobs.create(Job(id=f"j{number}"))
                executions.create(Execution(id=f"e{number}", job_id="j"))
                expected += [f"j{number}", f"e{number}"]
        jobs.delete("j7")
        events = list(database.events())
        assert [event.record_id for event in events] == [*expected, "j7"]
        assert [event.sequence for event in events] == list(range(1, 1202))
        assert list(jobs.events()) == [event for event in events if event.store == "job"]

    def test_from_any_position(self, database: Database, jobs: JobStore) -> None:
        """Reading on from any position, in pieces of any size, tells each event once."""
        for number in range(7):
            jobs.create(Job(id=str(number)))
        everything = list(database.events())
        for event in everything:
            assert list(database.events(event.sequence)) == everything[event.sequence :]
        position, seen = 0, []
        while page := list(database.events(position))[:2]:
            seen += page
            position = page[-1].sequence
        assert seen == everything
        assert list(database.events(10**6)) == []
        assert list(database.events(-(2**63))) == everything
        assert list(database.events(2**63 - 1)) == []

    def test_reading_ends_while_others_write(self, database: Database, jobs: JobStore) -> None:
        """Reading ends with what was committed when it began, whatever is written meanwhile, and
        going on from there misses nothing.
        """
        with database.transaction():
            for number in range(600):
                jobs.create(Job(id=str(number)))
        first = []
        for event in database.events():
            first.append(event)
            if len(first) <= 3:
                jobs.set_state(event.record_id, "Queued")
        assert [event.kind for event in first] == ["created"] * 600
        rest = list(database.events(first[-1].sequence))
        assert [(event.record_id, event.kind) for event in rest] == [(n, "state") for n in "012"]

    def test_sequence(self, database: Database, jobs: JobStore) -> None:
        """The last number is 0 before the first event, and the last event's afterwards."""
        assert database.sequence() == 0
        jobs.create(Job())
        jobs.create(Job())
        assert database.sequence() == list(database.events())[-1].sequence

    def test_unknown_store_and_position(self, database: Database, jobs: JobStore) -> None:
        """A store that there is none of, and a position that is none, are refused in words."""
        with pytest.raises(ConfigurationError, match="'jobs'"):
            database.events(stores=["jobs"])
        for position in ("1", 1.5, True, 2**63):
            with pytest.raises(InvalidRecordError, match="after"):
                database.events(position)  # type: ignore[arg-type]
            with pytest.raises(InvalidRecordError, match="after"):
                jobs.history("j", after=position)  # type: ignore[arg-type]

    def test_checkpoints(self, database: Database, jobs: JobStore) -> None:
        """A checkpoint is what was last set, is undone with its block, and can be forgotten."""
        assert database.checkpoint("a b!") is None
        database.set_checkpoint("a b!", 5)
        database.set_checkpoint("a b", 7)
        with pytest.raises(ZeroDivisionError), database.transaction():
            database.set_checkpoint("a b!", 6)
            database.delete_checkpoint("a b")
            assert (database.checkpoint("a b!"), database.checkpoint("a b")) == (6, None)
            raise ZeroDivisionError
        assert (database.checkpoint("a b!"), database.checkpoint("a b")) == (5, 7)
        database.set_checkpoint("a b!", 0)
        database.delete_checkpoint("a b")
        database.delete_checkpoint("never set")
        assert (database.checkpoint("a b!"), database.checkpoint("a b")) == (0, None)
        assert database.sequence() == 0
        assert jobs.count() == 0

    @pytest.mark.parametrize("name", ["", "a\0b", "x" * 129, 5, "\ud800"])
    def test_bad_checkpoint_names(self, database: Database, name: str) -> None:
        """What cannot be a key cannot be a checkpoint's name."""
        calls: Calls = (
            lambda: database.set_checkpoint(name, 1),
            lambda: database.checkpoint(name),
            lambda: database.delete_checkpoint(name),
        )
        for call in calls:
            with pytest.raises(InvalidRecordError):
                call()

    def test_events_and_checkpoints_stay(self, harness: BackendHarness) -> None:
        """Events, their numbers and checkpoints are there after closing and opening."""
        harness.require_persistent()
        with open_at(harness) as database:
            JobStore(database).create(Job(id="j"))
            told = list(database.events())
            database.set_checkpoint("reader", 1)
        with open_at(harness) as database:
            assert list(database.events()) == told
            assert database.checkpoint("reader") == 1
            JobStore(database).delete("j")
            assert [event.sequence for event in database.events()] == [1, 2]
