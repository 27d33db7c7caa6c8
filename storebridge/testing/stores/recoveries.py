"""What becomes of the jobs of recovered executions; recoveries at once, and killed ones."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import timedelta

import pytest

from storebridge import (
    DEFAULT_POLICY,
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    RecoveryAction,
    RecoveryPolicy,
    this_process,
)
from storebridge.jobs import JobType
from storebridge.leases import Standing
from storebridge.testing.harness import BackendHarness, attack
from storebridge.testing.stores.base import (
    START,
    StoreTests,
    another_target,
    edit_body,
    open_at,
)
from storebridge.testing.stores.holders import (
    BROKEN_OFF,
    ELSEWHERE,
    NODE,
    add,
    assert_all_or_nothing,
    break_off,
    ended,
    holder,
    kill_recoveries,
)

FAIL, REQUEUE = RecoveryAction.FAIL, RecoveryAction.REQUEUE


class RecoveredJobTests(StoreTests):
    """What becomes of the job."""

    def test_without_the_jobs(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """Jobs that were not given are read for their types, and not changed."""
        add(database, "1")
        add(database, "2", type="service")
        report = executions.recover(node_id=NODE)
        assert [found.action for found in report.found] == [FAIL, REQUEUE]
        assert [found.job_state for found in report.found] == [None, None]
        assert {job.revision for job in jobs.each()} == {1}

    def test_jobs_elsewhere(
        self, harness: BackendHarness, database: Database, executions: ExecutionStore
    ) -> None:
        """Jobs in another database are read for their types, and not changed."""
        executions.create(Execution(id="e1", job_id="j1", state="Running", owner=ended()))
        with open_at(harness, another_target(harness)) as other:
            jobs = JobStore(other)
            jobs.create(Job(id="j1", type="service", state="Running"))
            report = executions.recover(node_id=NODE, jobs=jobs)
            assert [(f.action, f.job_type) for f in report.found] == [(REQUEUE, "service")]
            assert jobs.get("j1").revision == 1

    def test_no_jobs_at_all(self, executions: ExecutionStore) -> None:
        """Where there are no jobs, an execution counts as one of a batch, or as the policy says."""
        for number in "12":
            executions.create(Execution(id=number, job_id="j", state="Running", owner=ended()))
        (first, _) = executions.recover(node_id=NODE, dry_run=True).found
        assert (first.job_type, first.action) == ("batch", FAIL)
        policy = RecoveryPolicy(DEFAULT_POLICY.cells, type_unless_known="daemon")
        assert len(executions.recover(policy, node_id=NODE).requeued) == 2

    def test_a_job_that_is_not_there(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """A job that was deleted, cannot be read, or is in a state that nobody knows, does not keep
        its execution.
        """
        for number in "123":
            add(database, number)
        jobs.delete("j1")
        edit_body(jobs, "j2", lambda _: b"{")
        edit_body(jobs, "j3", lambda body: body.replace(b'"Running"', b'"Rumming"'))
        report = executions.recover(node_id=NODE, jobs=jobs)
        assert [(f.action, f.job_state) for f in report.found] == [(FAIL, None)] * 3

    @pytest.mark.parametrize("type", ["batch", "service"])
    def test_jobs_that_others_work_on(
        self, database: Database, jobs: JobStore, executions: ExecutionStore, type: JobType
    ) -> None:
        """A job with another live execution, one that a living process has claimed, and one that
        has ended or waits already, stay as they are; the executions are recovered.
        """
        for number in "12345":
            add(database, number, type=type)
        executions.create(Execution(job_id="j1", state="BidAccepted"))
        jobs.update("j2", owner=this_process(NODE))
        jobs.update("j3", owner=ELSEWHERE)
        jobs.set_state("j4", "Completed")
        jobs.set_state("j5", "Pending")
        before = list(jobs.each())
        report = executions.recover(node_id=NODE, jobs=jobs)
        assert len(report.failed + report.requeued) == 5
        assert {found.job_state for found in report.found} == {None}
        assert list(jobs.each()) == before

    def test_the_last_of_several(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """Of a job whose executions have all lost their owners, the last one decides."""
        add(database)
        executions.create(Execution(id="e2", job_id="j1", state="Running", owner=ended()))
        report = executions.recover(node_id=NODE, jobs=jobs)
        assert [found.job_state for found in report.found] == [None, "Failed"]

    def test_a_claim_that_died_with_the_execution(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """The claim of the process whose execution is recovered goes with it, also where its own
        lease has not run out.
        """
        far = START + timedelta(days=365)
        add(database, owner=ELSEWHERE, type="service", lease_until=START)
        jobs.update("j1", owner=ELSEWHERE, lease_until=far)
        assert executions.recover(node_id=NODE, jobs=jobs).requeued[0].job_state == "Pending"

    def test_one_that_is_followed_already(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """Where a worker has begun the next attempt, a requeued one makes no third."""
        add(database, type="service")
        executions.create(Execution(id="e2", job_id="j1", previous_id="e1"))
        (found,) = executions.recover(node_id=NODE, jobs=jobs).found
        assert (found.action, found.next_id, found.job_state) == (FAIL, "e2", None)
        assert "e2 follows already" in found.reason
        assert executions.count() == 2


class RecoveriesTests(StoreTests):
    """Recoveries at once, and recoveries that are killed."""

    def test_recoveries_at_once(self, harness: BackendHarness) -> None:
        """Of recoveries at the same time, by threads or processes, each execution is recovered by
        one, once.
        """
        with open_at(harness, lock_timeout=30.0) as database:
            break_off(database)
            if harness.traits.processes == "many":
                done = _by_processes(harness, 2)
            else:
                done = _by_threads(database, 3)
            assert sorted(done) == [f"e-{n:04}" for n in range(BROKEN_OFF)]
            assert assert_all_or_nothing(database) == BROKEN_OFF

    def test_an_owner_that_comes_first(
        self, database: Database, executions: ExecutionStore
    ) -> None:
        """An execution that another takes over between a recovery's look and its transaction is
        that one's.
        """
        add(database)
        me = this_process(NODE)

        class Interrupted(ExecutionStore):
            def standing(self, record: Execution, node_id: str | None = None) -> Standing:
                standing = super().standing(record, node_id)
                if record.revision == 1:
                    executions.update("e1", owner=me)
                return standing

        report = Interrupted(database).recover(node_id=NODE)
        assert (report.found, report.held, executions.get("e1").owner) == ((), 1, me)

    def test_recovery_killed_halfway(self, harness: BackendHarness) -> None:
        """A recovery that is killed with a part of it done leaves each execution recovered or not
        touched, and the next one finishes it.
        """
        harness.require_persistent()
        with open_at(harness) as database:
            break_off(database)
        with holder(harness, "recover_and_die", after=BROKEN_OFF // 3) as worker:
            assert worker.process.wait() != 0
        with open_at(harness, lock_timeout=30.0) as database:
            done = assert_all_or_nothing(database)
            assert 0 < done < BROKEN_OFF
            report = ExecutionStore(database).recover(node_id=NODE, jobs=JobStore(database))
            assert len(report.failed + report.requeued) == BROKEN_OFF - done
            assert assert_all_or_nothing(database) == BROKEN_OFF

    def test_recoveries_killed_at_random(self, harness: BackendHarness) -> None:
        """As well at any other moment."""
        harness.require_persistent()
        kill_recoveries(harness, 2 * attack())


def _by_processes(harness: BackendHarness, count: int) -> list[str]:
    with ExitStack() as stack:
        workers = [stack.enter_context(holder(harness, "recover")) for _ in range(count)]
        for worker in workers:
            assert worker.hear() == "ready"
        for worker in workers:
            worker.go()
        return [done for worker in workers for done in worker.hear()]


def _by_threads(database: Database, count: int) -> list[str]:
    done: list[str] = []

    def recover() -> None:
        report = ExecutionStore(database).recover(node_id=NODE, jobs=JobStore(database))
        done.extend(found.id for found in report.found)

    threads = [threading.Thread(target=recover) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done
