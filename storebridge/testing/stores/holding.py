"""Who holds an execution, who counts as gone, and what recovery meets that it must not change."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from storebridge import (
    DEFAULT_POLICY,
    ConflictError,
    Database,
    Execution,
    ExecutionStore,
    Expect,
    InvalidRecordError,
    Job,
    JobStore,
    RecoveryAction,
    RecoveryPolicy,
    this_process,
)
from storebridge.testing.stores.base import (
    START,
    StoreTests,
    assert_sound,
    contents,
    edit_body,
    ids,
)
from storebridge.testing.stores.holders import (
    ELSEWHERE,
    LEASE,
    NODE,
    add,
    ended,
    process,
)

FAIL, REQUEUE, LEAVE = RecoveryAction.FAIL, RecoveryAction.REQUEUE, RecoveryAction.LEAVE


class Clock:
    """A clock that stands still until it is set; the leases of a database go by it."""

    def __init__(self, database: Database) -> None:
        self.now = START
        database.clock = self

    def __call__(self) -> datetime:
        return self.now


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
    def test_owners_while_the_clock_jumps(
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
