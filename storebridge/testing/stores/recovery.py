"""Recovery: what becomes of executions whose owner is gone, and who counts as gone."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from storebridge import (
    DEFAULT_POLICY,
    EXECUTION,
    EXECUTION_STATES,
    ConfigurationError,
    ConflictError,
    Database,
    Execution,
    ExecutionStore,
    Expect,
    InvalidRecordError,
    Job,
    JobStore,
    Owner,
    RecoveryAction,
    RecoveryPolicy,
    StateMachine,
    this_process,
    to_json,
)
from storebridge.jobs import JobType
from storebridge.spec import RecordSpec
from storebridge.testing.harness import BackendHarness, attack
from storebridge.testing.stores.base import (
    START,
    StoreTests,
    another_target,
    assert_sound,
    contents,
    edit_body,
    ids,
    open_at,
)
from storebridge.testing.stores.holders import (
    BROKEN_OFF,
    NODE,
    assert_all_or_nothing,
    break_off,
    ended,
    holder,
    kill_recoveries,
    process,
)

FAIL, REQUEUE, LEAVE = RecoveryAction.FAIL, RecoveryAction.REQUEUE, RecoveryAction.LEAVE
LEASE = timedelta(seconds=30)
ELSEWHERE = Owner("there", 1, "another boot", "1")

AT_RESTART: dict[str, tuple[RecoveryAction | None, RecoveryAction | None, str]] = {
    "Created": (LEAVE, LEAVE, "nobody has begun it, so nothing is lost: it waits for a worker"),
    "BidAccepted": (LEAVE, LEAVE, "it is promised but not begun: whoever schedules it decides"),
    "Running": (
        FAIL,
        REQUEUE,
        "its work died with the process: a batch may not be safe to repeat, a service must run on",
    ),
    "WaitingVerification": (LEAVE, LEAVE, "its work is done, and somebody else is to judge it"),
    "ResultAccepted": (LEAVE, LEAVE, "its work is done and accepted: it waits to be published"),
    "Publishing": (LEAVE, LEAVE, "its work is done: the service knows whether publishing may be"
                   " repeated"),
    "Completed": (None, None, "it has ended: terminal states are final"),
    "Failed": (None, None, "it has ended: terminal states are final"),
    "Cancelled": (None, None, "it has ended: terminal states are final"),
}  # fmt: skip
"""By state: what the default does where the owner is gone with an execution of a batch (or ops) job
and with one of a service (or daemon); None: not even reported. And why."""


class Clock:
    """A clock that stands still until it is set; the leases of a database go by it."""

    def __init__(self, database: Database) -> None:
        self.now = START
        database.clock = self

    def __call__(self) -> datetime:
        return self.now


def add(
    database: Database,
    name: str = "1",
    type: JobType = "batch",
    state: str = "Running",
    owner: Owner | None = None,
    **more: Any,
) -> Execution:
    """A running job and its execution, by default of a process that was killed."""
    JobStore(database).create(Job(id=f"j{name}", type=type, state="Running"))
    owner = ended() if owner is None else owner
    execution = Execution(id=f"e{name}", job_id=f"j{name}", state=state, owner=owner, **more)
    return ExecutionStore(database).create(execution)


class PolicyTests(StoreTests):
    """What is done."""

    @pytest.mark.parametrize("type", ["batch", "ops", "service", "daemon"])
    @pytest.mark.parametrize("state", EXECUTION_STATES.states)
    def test_at_restart(
        self,
        database: Database,
        jobs: JobStore,
        executions: ExecutionStore,
        state: str,
        type: JobType,
    ) -> None:
        """Each of the nine states, for each type of job: what is done where the owner is gone, as
        the table above says, and why.
        """
        before = add(database, state=state, type=type)
        action = AT_RESTART[state][type in ("service", "daemon")]
        report = executions.recover(node_id=NODE, jobs=jobs)
        after, job = executions.get("e1"), jobs.get("j1")
        if action is None:
            assert report.found == ()
        else:
            (found,) = report.found
            assert (found.id, found.job_id, found.job_type) == ("e1", "j1", type)
            assert (found.state, found.action) == (state, action)
            assert before.owner is not None
            assert f"process {before.owner.pid} of node {NODE} has ended" in found.reason
        if action in (None, LEAVE):
            assert (after, job.state, executions.count()) == (before, "Running", 1)
        else:
            assert (after.state, after.message) == ("Failed", found.reason)
            assert job.message == found.reason
        if action is FAIL:
            assert (job.state, found.job_state, after.next_id) == ("Failed", "Failed", None)
        if action is REQUEUE:
            assert (job.state, found.job_state, after.next_id) == (
                "Pending",
                "Pending",
                found.next_id,
            )
        assert_sound(database)

    def test_what_follows_a_requeued_one(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """The new execution asks for the same, is in the initial state, held by nobody, and linked
        both ways; the job waits again, claimed by nobody, and can be claimed.
        """
        asked: dict[str, Any] = {
            "node_id": "n",
            "desired_state": "Running",
            "spec": to_json({"a": 1}),
        }
        add(database, type="service", namespace="x", result=to_json(1), **asked)
        jobs.update("j1", owner=ended(), lease_until=START, priority=3)
        (found,) = executions.recover(node_id=NODE, jobs=jobs).requeued
        assert found.next_id is not None
        old, new = executions.get("e1"), executions.get(found.next_id)
        assert (old.next_id, new.previous_id) == (new.id, old.id)
        assert (new.state, new.owner, new.lease_until, new.next_id) == ("Created", None, None, None)
        assert (new.job_id, new.namespace, new.message, new.revision) == ("j1", "x", "", 1)
        assert {name: getattr(new, name) for name in asked} == asked
        assert (bytes(old.result), bytes(new.result)) == (b"1", b"null")
        job = jobs.get("j1")
        assert (job.state, job.owner, job.lease_until, job.priority) == ("Pending", None, None, 3)
        assert ids(jobs.claim(owner=this_process(NODE))) == ["j1"]
        assert [e.message for e in executions.history("e1")][1] == found.reason

    def test_recovering_again(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """A second recovery finds nothing to do and changes nothing."""
        for number, kind in enumerate(("batch", "service")):
            add(database, str(number), type=kind)  # type: ignore[arg-type]
        assert len(executions.recover(node_id=NODE, jobs=jobs).found) == 2
        before = contents(database)
        report = executions.recover(node_id=NODE, jobs=jobs)
        assert (report.found, report.waiting, contents(database)) == ((), {"Created": 1}, before)

    def test_many_recovered(self, database: Database, executions: ExecutionStore) -> None:
        """More than go into one transaction are all recovered, in order of creation; what was made
        meanwhile is not taken for what was found.
        """
        break_off(database)
        report = executions.recover(node_id=NODE, jobs=JobStore(database))
        assert [found.id for found in report.found] == [f"e-{n:04}" for n in range(BROKEN_OFF)]
        assert report.waiting == {}
        assert assert_all_or_nothing(database) == BROKEN_OFF
        assert len(report.failed) == len(report.requeued) == BROKEN_OFF // 2

    def test_dry_recovery(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """A dry run says what would be done, and changes nothing."""
        add(database)
        add(database, "2", type="daemon")
        before = contents(database)
        planned = executions.recover(node_id=NODE, jobs=jobs, dry_run=True)
        assert contents(database) == before
        done = executions.recover(node_id=NODE, jobs=jobs)
        assert (planned.dry_run, done.dry_run) == (True, False)
        told = [[(f.id, f.action, f.reason) for f in each.found] for each in (planned, done)]
        assert told[0] == told[1]
        assert [f.action for f in planned.found] == [FAIL, REQUEUE]

    def test_another_cell_of_the_policy(
        self, database: Database, executions: ExecutionStore
    ) -> None:
        """A service changes a cell of the table; all others stay, the default table too."""
        policy = DEFAULT_POLICY.with_(state="Publishing", type="ops", action=FAIL)
        add(database, "1", state="Publishing", type="ops")
        add(database, "2", state="Publishing", type="batch")
        report = executions.recover(policy, node_id=NODE)
        assert [found.action for found in report.found] == [FAIL, LEAVE]
        assert executions.get("e1").state == "Failed"
        assert DEFAULT_POLICY.cells["Publishing", "ops"] is LEAVE

    def test_a_policy_function(self, database: Database, executions: ExecutionStore) -> None:
        """A function is asked for each execution whose owner is gone, with its job; it may read in
        the database. One that raises leaves everything as it was.
        """
        add(database, "1")
        add(database, "2", state="Publishing", owner=ended())
        add(database, "3", owner=this_process(NODE))
        asked: list[tuple[str, str | None]] = []

        def decide(execution: Execution, job: Job | None) -> RecoveryAction:
            asked.append((execution.id, None if job is None else job.id))
            if executions.count(job_id=execution.job_id) > 1:
                raise ZeroDivisionError
            return REQUEUE

        executions.create(Execution(id="other", job_id="j2"))
        before = contents(database)
        with pytest.raises(ZeroDivisionError):
            executions.recover(decide, node_id=NODE)
        assert contents(database) == before
        executions.delete("other")
        asked.clear()
        report = executions.recover(decide, node_id=NODE)
        assert asked == [("e1", "j1"), ("e2", "j2")]
        assert [found.action for found in report.found] == [REQUEUE, REQUEUE]

    def test_words_that_mean_nothing(self, database: Database, executions: ExecutionStore) -> None:
        """A policy with a state, type or action that there is not is refused, before anything is
        done: what is misspelt would never happen.
        """
        add(database)
        before = contents(database)
        bad: list[Any] = [
            DEFAULT_POLICY.with_(state="Runing", type="batch", action=FAIL),
            DEFAULT_POLICY.with_(state="Completed", type="batch", action=FAIL),
            DEFAULT_POLICY.with_(state="Running", type="bach", action=FAIL),
            RecoveryPolicy({}, failed="Running"),
            lambda execution, job: "give up",
        ]
        for policy in bad:
            with pytest.raises(ConfigurationError, match="recovery policy"):
                executions.recover(policy, node_id=NODE)
        with pytest.raises(ConfigurationError, match="give up"):
            DEFAULT_POLICY.with_(state="Running", type="batch", action="give up")  # type: ignore[arg-type]
        assert contents(database) == before

    def test_states_of_ones_own(self, database: Database) -> None:
        """A service's own states are recovered by its own policy; a change that its machine does
        not allow is left, and told.
        """
        machine = StateMachine(
            {"New": ("Brewing",), "Brewing": ("Spoilt",), "Cooling": ("New",), "Spoilt": ()},
            owned=frozenset({"Brewing"}),
        )
        spec = RecordSpec(
            name="brew", type=Execution, machine=machine, filters=("job_id", "state"),
            upgrades=EXECUTION.upgrades, added_when_terminal=("next_id",),
        )  # fmt: skip
        brews = ExecutionStore(database, spec)
        for state in ("Brewing", "Cooling"):
            brews.create(Execution(id=state, job_id="j", state=state, owner=ended()))
        with pytest.raises(ConfigurationError, match="no terminal state"):
            brews.recover(node_id=NODE)
        cells = {("Brewing", "batch"): REQUEUE, ("Cooling", "batch"): FAIL}
        report = brews.recover(RecoveryPolicy(cells, failed="Spoilt"), node_id=NODE)
        assert [found.action for found in report.found] == [REQUEUE, LEAVE]
        assert "cannot become Spoilt" in report.found[1].reason
        assert [e.state for e in brews.each()] == ["Spoilt", "Cooling", "New"]
        assert_sound(database)


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
        """A job that was deleted, or cannot be read, does not keep its execution."""
        for number in "12":
            add(database, number)
        jobs.delete("j1")
        edit_body(jobs, "j2", lambda _: b"{")
        report = executions.recover(node_id=NODE, jobs=jobs)
        assert [(f.action, f.job_state) for f in report.found] == [(FAIL, None), (FAIL, None)]

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


class OwnerTests(StoreTests):
    """Who counts as gone."""

    def test_a_killed_owner(self, database: Database, executions: ExecutionStore) -> None:
        """An execution is its owner's as long as that lives, and recovered once it is killed."""
        with process() as (owner, started):
            add(database, owner=owner)
            report = executions.recover(node_id=NODE)
            assert (report.found, report.held, executions.orphans(NODE)) == ((), 1, [])
            started.kill()
            started.wait()
            assert ids(executions.orphans(NODE)) == ["e1"]
            assert len(executions.recover(node_id=NODE).failed) == 1

    def test_a_number_used_again(self, database: Database, executions: ExecutionStore) -> None:
        """A process with the owner's number that started at another time is not the owner."""
        with process() as (other, _):
            gone = ended()
            while gone.started == other.started:  # in the same tick of the system's clock
                gone = ended()
            add(database, owner=msgspec.structs.replace(gone, pid=other.pid))
            add(database, "2", owner=other)
            assert [f.id for f in executions.recover(node_id=NODE).failed] == ["e1"]

    def test_another_boot(self, database: Database, executions: ExecutionStore) -> None:
        """A process with the owner's number and start time, counted since another boot, is not the
        owner.
        """
        with process() as (other, _):
            add(database, owner=msgspec.structs.replace(other, boot_id="before"))
            (found,) = executions.recover(node_id=NODE).failed
            assert "before the machine was started" in found.reason

    @pytest.mark.parametrize("jump", [timedelta(days=3650), timedelta(days=-3650)])
    def test_a_clock_that_jumps(
        self, database: Database, executions: ExecutionStore, jump: timedelta
    ) -> None:
        """What can be seen of a process counts before its lease: however the clock jumps, a living
        one of this node keeps what it holds, and a dead one's is found at once.
        """
        clock = Clock(database)
        with process() as (owner, started):
            add(database, owner=owner, lease_until=START + LEASE)
            clock.now += jump
            report = executions.recover(node_id=NODE)
            assert (report.found, report.held, executions.get("e1").revision) == ((), 1, 1)
            assert (
                executions.set_state("e1", "Publishing", expect=Expect(owner=owner)).revision == 2
            )
            executions.create(Execution(id="e2", job_id="j1", state="Running", owner=owner))
            started.kill()
            started.wait()
            assert [f.id for f in executions.recover(node_id=NODE).failed] == ["e2"]

    def test_leases(self, database: Database, executions: ExecutionStore) -> None:
        """A process of another node holds what its lease covers, for as long as it extends it."""
        clock = Clock(database)
        add(database, owner=ELSEWHERE, state="Created")
        executions.set_state("e1", "Running", lease=LEASE)
        for _ in range(3):
            clock.now += LEASE - timedelta(seconds=1)
            report = executions.recover(node_id=NODE)
            assert (report.found, report.held) == ((), 1)
            executions.heartbeat("e1", ELSEWHERE, LEASE)
        clock.now += LEASE
        assert ids(executions.orphans(NODE)) == ["e1"]
        (found,) = executions.recover(node_id=NODE).failed
        assert found.reason == "owner is gone: the lease of process 1 of node there has run out"

    def test_unseen_owners(self, database: Database, executions: ExecutionStore) -> None:
        """A process of another node without a lease may live: its executions are counted, and stay
        its own.
        """
        add(database, owner=ELSEWHERE)
        report = executions.recover(lambda *_: FAIL, node_id=NODE)
        assert (report.found, report.unseen, executions.get("e1").revision) == ((), 1, 1)

    def test_without_an_owner(self, database: Database, executions: ExecutionStore) -> None:
        """An execution that names no owner, though its state needs one, is left and reported, as
        nobody knows who works on it; one that needs none is counted. Only a policy that says so
        takes their owners to be gone.
        """
        for state in ("Running", "Created", "Publishing"):
            executions.create(Execution(id=state, job_id="j", state=state))
        report = executions.recover(node_id=NODE)
        assert [(f.id, f.action) for f in report.found] == [("Running", LEAVE)]
        assert report.found[0].reason == "names no owner"
        assert report.waiting == {"Created": 1, "Publishing": 1}
        cells = {**DEFAULT_POLICY.cells, ("Publishing", "batch"): FAIL}
        policy = RecoveryPolicy(cells, ownerless=True)
        report = executions.recover(policy, node_id=NODE)
        assert sorted(f.id for f in report.failed) == ["Publishing", "Running"]
        assert report.waiting == {"Created": 1}

    def test_heartbeat(self, database: Database, executions: ExecutionStore) -> None:
        """A heartbeat changes the lease and nothing else: no event, no revision, no time."""
        me, clock = this_process(NODE), Clock(database)
        made = executions.create(Execution(id="e1", job_id="j", owner=me), lease=LEASE)
        assert made.lease_until == START + LEASE
        before = contents(database)
        clock.now += timedelta(seconds=10)
        after = executions.heartbeat("e1", me, LEASE)
        assert after.lease_until == clock.now + LEASE
        assert executions.get("e1") == after == msgspec.structs.replace(
            made, lease_until=clock.now + LEASE
        )  # fmt: skip
        contents_now = contents(database)
        assert {name for name in before if before[name] != contents_now[name]} == {"execution"}
        with pytest.raises(ZeroDivisionError), database.transaction():
            executions.heartbeat("e1", me, 2 * LEASE)
            raise ZeroDivisionError
        assert executions.get("e1") == after
        assert_sound(database)

    def test_a_late_owner(self, database: Database, executions: ExecutionStore) -> None:
        """A former owner that comes back late learns by a ConflictError, which carries what was
        found, that it has lost its execution: to another, or altogether.
        """
        me, other = this_process(NODE), ended()
        add(database, owner=me)
        mine = Expect(owner=me)
        assert executions.update("e1", owner=other, expect=mine).owner == other
        calls = (
            lambda: executions.heartbeat("e1", me, LEASE),
            lambda: executions.set_state("e1", "Completed", expect=mine),
            lambda: executions.update("e1", message="x", expect=mine),
            lambda: executions.delete("e1", expect=mine),
        )
        for call in calls:
            with pytest.raises(ConflictError, match="is held by process") as caught:
                call()
            assert caught.value.found.owner == other
        executions.recover(node_id=NODE)
        with pytest.raises(ConflictError, match="final") as caught:
            executions.heartbeat("e1", other, LEASE)
        assert caught.value.found.state == "Failed"
        with pytest.raises(ConflictError):
            executions.set_state("e1", "Completed", expect=Expect(owner=other))
        executions.create(Execution(id="free", job_id="j"))
        with pytest.raises(ConflictError, match="is held by nobody"):
            executions.heartbeat("free", me, LEASE)

    def test_senseless_leases(self, executions: ExecutionStore) -> None:
        """A lease that is no time to come, and an owner that is none, are refused."""
        me = this_process(NODE)
        executions.create(Execution(id="e1", job_id="j", owner=me))
        bad: tuple[Any, ...] = (timedelta(0), -LEASE, 30, "30s", None, timedelta.max)
        for lease in bad:
            with pytest.raises(InvalidRecordError, match="lease"):
                executions.heartbeat("e1", me, lease)
        bad_owners: tuple[Any, ...] = (None, "me", 5)
        for owner in bad_owners:
            with pytest.raises(InvalidRecordError, match="owner"):
                executions.heartbeat("e1", owner, LEASE)
        with pytest.raises(InvalidRecordError, match="owner"):
            Expect(owner="me")  # type: ignore[arg-type]
        assert executions.get("e1").lease_until is None


class UnreadableTests(StoreTests):
    """What recovery meets that it must not change."""

    def test_unreadable_executions(self, database: Database, executions: ExecutionStore) -> None:
        """An execution that cannot be read is named, and does not keep the others."""
        for number in "123":
            add(database, number)
        edit_body(executions, "e2", lambda _: b"{")
        report = executions.recover(node_id=NODE)
        assert [found.id for found in report.failed] == ["e1", "e3"]
        assert report.unreadable == ("e2",)

    def test_executions_of_a_newer_version(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """An execution or a job that a newer version of the service wrote is left and reported, as
        it was, and does not keep the others.
        """
        for number in "123":
            add(database, number, type="service")
        newer = edit_body(executions, "e2", lambda body: body.replace(b'{"v":2', b'{"v":3'))
        edit_body(jobs, "j3", lambda body: body.replace(b'{"v":2', b'{"v":3'))
        report = executions.recover(node_id=NODE, jobs=jobs)
        assert [found.action for found in report.found] == [REQUEUE, LEAVE, LEAVE]
        for found in report.left:
            assert "upgrade the service" in found.reason
        assert executions.database.get("execution", ("e2",)) == newer
        assert (executions.get("e3").revision, executions.count()) == (1, 4)
        assert_sound(database)

    def test_records_of_the_first_version(
        self, database: Database, jobs: JobStore, executions: ExecutionStore
    ) -> None:
        """Records from before there were leases are read, claimed, held and recovered."""
        add(database)
        jobs.create(Job(id="waits", priority=5))
        for store, record_id in ((executions, "e1"), (jobs, "j1"), (jobs, "waits")):
            body = edit_body(store, record_id, _as_in_version_1)
            assert b"lease_until" not in body
        assert (executions.get("e1").lease_until, jobs.get("j1").owner) == (None, None)
        me = this_process(NODE)
        assert ids(jobs.claim(owner=me, lease=LEASE)) == ["waits"]
        assert jobs.heartbeat("waits", me, LEASE).revision == 2
        assert executions.recover(node_id=NODE, jobs=jobs).failed[0].job_state == "Failed"
        bodies = [database.get(name, (key,)) for name, key in (("execution", "e1"), ("job", "j1"))]
        assert all(body is not None and body.startswith(b'{"v":2') for body in bodies)
        assert_sound(database)


def _as_in_version_1(body: bytes) -> bytes:
    members = msgspec.json.decode(body)
    members["v"] = 1
    del members["lease_until"]
    if "job_id" not in members:
        del members["owner"]
    return msgspec.json.encode(members)


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

    def test_recovery_killed_halfway(self, harness: BackendHarness) -> None:
        """A recovery that is killed with a part of it done leaves each execution recovered or not
        touched, and the next one finishes it.
        """
        harness.require_persistent()
        with open_at(harness) as database:
            break_off(database)
        with holder(harness, "recover_and_die", after=BROKEN_OFF // 2) as worker:
            assert worker.process.wait() != 0
        with open_at(harness, lock_timeout=30.0) as database:
            done = assert_all_or_nothing(database)
            assert 0 < done < BROKEN_OFF // 2
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
        done.extend(found.id for found in report.failed + report.requeued)

    threads = [threading.Thread(target=recover) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


class RecoveryTests(PolicyTests, RecoveredJobTests, OwnerTests, UnreadableTests, RecoveriesTests):
    """Every promise of recovery and of leases."""
