"""Transactions: all of a block or nothing of it, over any stores, and what they tell afterwards."""

from __future__ import annotations

import threading

import pytest

from storebridge import (
    ConfigurationError,
    ConflictError,
    Database,
    Execution,
    ExecutionStore,
    Expect,
    InvalidRecordError,
    Job,
    JobStore,
    RecordExistsError,
    RecordNotFoundError,
    StorebridgeError,
    StoreClosedError,
    StoreLockedError,
    TransactionError,
)
from storebridge.check import repair
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import (
    Calls,
    StoreTests,
    another_target,
    assert_sound,
    contents,
    ids,
    open_at,
)


class Boom(Exception):
    """What a caller's own code raises."""


class StoreTransactionTests(StoreTests):
    """`with database.transaction()`."""

    def test_a_block_spans_stores(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """Changes of several stores in one block take effect together, with all their events."""
        with database.transaction():
            jobs.create(Job(id="j"))
            executions.create(Execution(id="e", job_id="j"))
            executions.set_state("e", "Running")
            jobs.set_state("j", "Running")
        told = [(e.store, e.record_id, e.kind) for e in database.events()]
        assert told == [
            ("job", "j", "created"),
            ("execution", "e", "created"),
            ("execution", "e", "state"),
            ("job", "j", "state"),
        ]
        assert_sound(database)

    @pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, ConflictError])
    def test_a_block_that_raises_leaves_nothing(
        self, database: Database, jobs: JobStore, error: type[BaseException]
    ) -> None:
        """Whatever leaves a block by an exception undoes all of it: records, labels, versions,
        counters, events, checkpoints.
        """
        jobs.create(Job(id="old", labels={"a": "b"}))
        kept = contents(database)
        with pytest.raises(error), database.transaction():
            jobs.create(Job(id="new", labels={"a": "b"}))
            jobs.update("old", labels={"c": "d"}, name="other")
            jobs.set_state("old", "Running")
            jobs.delete("old")
            database.set_checkpoint("reader", 1)
            raise error("out")
        assert contents(database) == kept
        assert_sound(database)
        jobs.create(Job(id="new"))

    def test_a_block_sees_its_changes(self, database: Database, jobs: JobStore) -> None:
        """Inside a block reads see its changes, counters included; other threads do not."""
        jobs.create(Job(id="1"))
        with database.transaction():
            jobs.create(Job(id="2", labels={"a": "b"}))
            jobs.set_state("1", "Running")
            jobs.delete("1")
            assert ids(jobs.find()) == ids(jobs.find(labels="a")) == ["2"]
            assert (jobs.count(), jobs.counts()["Pending"], jobs.counts()["Running"]) == (1, 1, 0)
            if not database.driver.traits.readers_block:
                assert _in_thread(lambda: (ids(jobs.find()), jobs.count())) == (["1"], 1)
        assert ids(jobs.find()) == ["2"]

    def test_own_events_are_seen_after_it(self, database: Database, jobs: JobStore) -> None:
        """A block's own events have no numbers yet: they are seen once it is committed."""
        jobs.create(Job(id="1"))
        with database.transaction():
            jobs.create(Job(id="2"))
            jobs.set_state("1", "Running")
            assert [event.record_id for event in database.events()] == ["1"]
            assert len(jobs.history("2")) == 0
        assert [event.record_id for event in database.events()] == ["1", "2", "1"]

    def test_a_failed_step_is_undone_alone(self, database: Database, jobs: JobStore) -> None:
        """A call that raises one of our errors has done nothing, and the block goes on."""
        jobs.create(Job(id="j", name="n", labels={"a": "1"}))
        jobs.create(Job(id="k", name="m", labels={"a": "1"}))
        with database.transaction():
            jobs.update("k", priority=1)
            for call, error in (
                (lambda: jobs.create(Job(id="l", name="n", labels={"x": "y"})), RecordExistsError),
                (lambda: jobs.update("k", name="n", labels={"a": "2"}), RecordExistsError),
                (lambda: jobs.update("k", priority="high"), InvalidRecordError),
                (lambda: jobs.update("k", labels={"": "x"}), InvalidRecordError),
                (lambda: jobs.set_state("k", "Pending"), ConflictError),
                (lambda: jobs.set_state("k", "Running", name="n"), RecordExistsError),
                (lambda: jobs.delete("k", expect=Expect(revision=9)), ConflictError),
                (lambda: jobs.delete("none"), RecordNotFoundError),
            ):
                with pytest.raises(error):
                    call()
            jobs.set_state("j", "Running")
        assert [(j.id, j.priority, j.revision, j.state) for j in jobs.find()] == [
            ("j", 0, 2, "Running"),
            ("k", 1, 2, "Pending"),
        ]
        assert [job.version for job in jobs.versions("k")] == [1]
        assert len(list(database.events())) == 4
        assert_sound(database)

    def test_an_inner_block_is_undone_alone(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """A block inside a block is part of it; one that raises is undone, steps before it and
        behind it stay, and so do inner blocks that ended well before.
        """
        jobs.create(Job(id="0", labels={"a": "0"}))
        with database.transaction():
            jobs.create(Job(id="1"))
            with database.transaction():
                jobs.create(Job(id="2", labels={"a": "2"}))
            with pytest.raises(Boom), database.transaction():
                jobs.set_state("1", "Running")
                jobs.update("0", labels={"a": "changed"}, name="renamed")
                with database.transaction():
                    executions.create(Execution(id="e", job_id="0"))
                    jobs.delete("2")
                jobs.delete("0")
                jobs.create(Job(id="0", name="again"))
                raise Boom
            jobs.create(Job(id="3"))
        assert [(j.id, j.state, j.revision) for j in jobs.find()] == [
            (number, "Pending", 1) for number in "0123"
        ]
        assert ids(jobs.find(labels="a")) == ["0", "2"]
        assert jobs.get_unique(namespace="default", name="0").labels == {"a": "0"}
        assert executions.count() == 0
        assert [event.record_id for event in database.events()] == list("0123")
        assert_sound(database)

    def test_undo_reaches_over_inner_blocks(self, database: Database, jobs: JobStore) -> None:
        """A block that raises undoes what an inner one had ended well, and an outer one all."""
        jobs.create(Job(id="0"))
        kept = contents(database)
        with pytest.raises(Boom), database.transaction():
            jobs.create(Job(id="a"))
            with pytest.raises(Boom), database.transaction():
                with database.transaction():
                    jobs.update("0", priority=1)
                jobs.update("0", priority=2)
                with pytest.raises(InvalidRecordError):
                    jobs.update("0", priority=None)
                raise Boom
            assert jobs.get("0").priority == 0
            raise Boom
        assert contents(database) == kept

    def test_an_error_of_unknown_kind_fails_the_block(
        self, database: Database, jobs: JobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After an exception out of the middle of a change nobody knows what is done: the block
        cannot be committed, says why, and leaves nothing.
        """
        jobs.create(Job(id="0"))
        kept = contents(database)
        with pytest.raises(TransactionError, match="broken"), database.transaction():
            jobs.create(Job(id="1"))
            with monkeypatch.context() as patch:
                patch.setattr(jobs._write, "_note", _break)
                with pytest.raises(Boom):
                    jobs.create(Job(id="2"))
            with pytest.raises(TransactionError, match="broken"):
                jobs.create(Job(id="3"))
        assert contents(database) == kept
        jobs.create(Job(id="1"))
        assert_sound(database)

    def test_different_locations_share_nothing(
        self, harness: BackendHarness, database: Database, jobs: JobStore
    ) -> None:
        """A block of one database does not take part in another's: a store of the other writes a
        transaction of its own, which the block's end does not undo, and cannot be asked to join.
        """
        with open_at(harness, another_target(harness)) as other:
            others = ExecutionStore(other)
            with pytest.raises(ConfigurationError, match="location"), database.transaction():
                jobs.create(Job(id="j"))
                others.create(Execution(id="e", job_id="j"))
            assert (jobs.count(), others.count()) == (0, 0)
            others.create(Execution(id="e", job_id="j"))
            assert_sound(other)

    def test_one_location_is_one_database(self, harness: BackendHarness) -> None:
        """Opening a location twice in a process gives one database, which closes with its last
        opener; stores on both take part in one block.
        """
        first, second = open_at(harness), open_at(harness)
        jobs, executions = JobStore(first), ExecutionStore(second)
        assert first is second
        with pytest.raises(Boom), first.transaction():
            jobs.create(Job(id="j"))
            executions.create(Execution(job_id="j"))
            raise Boom
        assert executions.count() == jobs.count() == 0
        jobs.close()
        executions.create(Execution(id="e", job_id="j"))
        executions.close()
        for call in (lambda: jobs.get("j"), lambda: jobs.create(Job()), jobs.counts):
            with pytest.raises(StoreClosedError, match="closed"):
                call()
        executions.close()

    def test_other_options_are_refused(self, harness: BackendHarness, database: Database) -> None:
        """A location that is open cannot be opened with other options: nobody would get them."""
        with pytest.raises(ConfigurationError, match="other options"):
            open_at(harness, lock_timeout=1.0)
        with open_at(harness) as again:
            assert again is database

    def test_close_inside_a_block(self, database: Database, jobs: JobStore) -> None:
        """Closing inside a block is refused, changes nothing, and works afterwards."""
        with database.transaction():
            jobs.create(Job(id="j"))
            with pytest.raises(TransactionError):
                database.close()
            jobs.create(Job(id="k"))
        assert jobs.count() == 2
        with database.snapshot():
            with pytest.raises(TransactionError):
                database.close()
            assert jobs.count() == 2

    def test_close_waits_for_a_block(self, harness: BackendHarness) -> None:
        """Closing while another thread is inside a block waits for it; its changes are kept."""
        database = open_at(harness)
        target = JobStore(database)
        inside, go_on = threading.Event(), threading.Event()

        def block() -> None:
            with database.transaction():
                target.create(Job(id="j"))
                inside.set()
                go_on.wait(20)

        writer = threading.Thread(target=block)
        writer.start()
        inside.wait(20)
        closer = threading.Thread(target=database.close)
        closer.start()
        closer.join(0.1)
        assert closer.is_alive()
        go_on.set()
        closer.join(20)
        writer.join(20)
        with pytest.raises(StoreClosedError):
            target.get("j")
        if database.driver.traits.persistent:
            with open_at(harness) as again:
                assert JobStore(again).get("j").id == "j"

    def test_what_cannot_be_undone_is_refused_in_a_block(
        self, harness: BackendHarness, database: Database, jobs: JobStore
    ) -> None:
        """Discarding, repairing and making a new store's tables are refused inside a block, at
        once and in words, and the block goes on.
        """
        with database.transaction():
            jobs.create(Job(id="j"))
            calls: Calls = (
                lambda: jobs.discard("j"),
                lambda: repair(database),
                lambda: ExecutionStore(database),
            )
            for call in calls:
                with pytest.raises(TransactionError, match="transaction"):
                    call()
            JobStore(database).create(Job(id="k"))
        assert jobs.count() == 2
        assert_sound(database)

    def test_writes_in_a_snapshot(self, database: Database, jobs: JobStore) -> None:
        """A snapshot shows one moment, while other threads write, and refuses to write."""
        jobs.create(Job(id="1"))
        if database.driver.traits.readers_block:
            pytest.skip("trait readers_block: True")
        with database.snapshot():
            assert jobs.count() == 1
            _in_thread(lambda: jobs.create(Job(id="2")))
            assert ids(jobs.find()) == ["1"]
            assert (jobs.count(), len(list(database.events()))) == (1, 1)
            with pytest.raises(TransactionError, match="snapshot"):
                jobs.create(Job(id="3"))
            with pytest.raises(TransactionError, match="snapshot"), database.transaction():
                jobs.create(Job(id="3"))
        assert ids(jobs.find()) == ["1", "2"]

    def test_threads_wait_in_turn(self, harness: BackendHarness) -> None:
        """A thread that cannot write within lock_timeout gets a StoreLockedError; the transaction
        that held it up goes on, and waits are counted.
        """
        with open_at(harness, lock_timeout=0.1) as database:
            jobs = JobStore(database)
            with database.transaction():
                jobs.create(Job(id="1"))
                with pytest.raises(StoreLockedError, match="thread"):
                    _in_thread(lambda: jobs.create(Job(id="2")))
            assert ids(jobs.find()) == ["1"]
            assert database.statistics.lock_waits >= 1
            assert database.statistics.lock_wait_seconds >= 0.1

    def test_statistics(self, database: Database, jobs: JobStore) -> None:
        """Commits and rollbacks are counted."""
        before = database.statistics.transactions
        jobs.create(Job(id="1"))
        with pytest.raises(Boom), database.transaction():
            raise Boom
        assert database.statistics.transactions == before + 1
        assert database.statistics.rollbacks == 1
        assert database.statistics.longest_transaction_seconds > 0


def _break(*_: object) -> None:
    raise Boom("broken")


def _in_thread(call: object) -> object:
    """The result of a call in another thread, or its exception."""
    assert callable(call)
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except StorebridgeError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
