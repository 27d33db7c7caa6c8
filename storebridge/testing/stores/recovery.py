"""Recovery: what becomes of executions whose owner is gone, and who counts as gone."""

from __future__ import annotations

from typing import Any

import pytest

from storebridge import (
    DEFAULT_POLICY,
    EXECUTION,
    EXECUTION_STATES,
    ConfigurationError,
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    RecoveryAction,
    RecoveryPolicy,
    StateMachine,
    this_process,
    to_json,
)
from storebridge.jobs import JobType
from storebridge.spec import RecordSpec
from storebridge.testing.stores.base import (
    START,
    StoreTests,
    assert_sound,
    contents,
    ids,
)
from storebridge.testing.stores.holders import (
    BROKEN_OFF,
    NODE,
    add,
    assert_all_or_nothing,
    break_off,
    ended,
)

FAIL, REQUEUE, LEAVE = RecoveryAction.FAIL, RecoveryAction.REQUEUE, RecoveryAction.LEAVE

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


class RecoveryPolicyTests(StoreTests):
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
