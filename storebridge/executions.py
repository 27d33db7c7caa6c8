"""Executions: each attempt to run a job."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec import Raw

from storebridge.database import Database
from storebridge.jobs import JobStore
from storebridge.leases import LeasedStore, pages
from storebridge.machine import StateMachine
from storebridge.owner import Owner
from storebridge.record import Record
from storebridge.recovery import DEFAULT_POLICY, Decide, Recovery, RecoveryPolicy, RecoveryReport
from storebridge.spec import RecordSpec

EXECUTION_STATES = StateMachine(
    {
        "Created": ("BidAccepted", "Running", "Failed", "Cancelled"),
        "BidAccepted": ("Running", "Failed", "Cancelled"),
        "Running": ("WaitingVerification", "Publishing", "Completed", "Failed", "Cancelled"),
        "WaitingVerification": ("ResultAccepted", "Failed", "Cancelled"),
        "ResultAccepted": ("Publishing", "Completed", "Failed", "Cancelled"),
        "Publishing": ("Completed", "Failed", "Cancelled"),
        "Completed": (),
        "Failed": (),
        "Cancelled": (),
    },
    owned=frozenset({"Running"}),
)


class Execution(Record, kw_only=True, tag=2):
    """An attempt to run a job on a node.

    `spec` and `result` are any JSON, made by `to_json` and read by `from_json`. A new execution is
    Created unless `state` says otherwise; `desired_state` is what you want it to come to, which the
    store keeps and does nothing about; `message` is what was last said of it. `owner` and
    `lease_until` say who works on it. `previous_id` and `next_id` are the attempts before and after
    it. What every `Record` has is set by the store.
    """

    job_id: str
    namespace: str = "default"
    node_id: str | None = None
    state: str = ""
    desired_state: str | None = None
    spec: Raw = Raw(b"{}")
    """Any JSON, made by `to_json`."""
    result: Raw = Raw(b"null")
    """Any JSON, made by `to_json`."""
    owner: Owner | None = None
    """The process that works on it."""
    lease_until: datetime | None = None
    """Until when the owner holds it, seen from other nodes."""
    previous_id: str | None = None
    """The attempt that this one follows."""
    next_id: str | None = None
    """The attempt that followed; may be added even when the state is terminal."""
    message: str = ""


def with_lease(members: dict[str, Any]) -> dict[str, Any]:
    """From version 1, which knew no leases, to 2."""
    return members | {"lease_until": None}


EXECUTION = RecordSpec(
    name="execution",
    type=Execution,
    machine=EXECUTION_STATES,
    filters=("job_id", "state", "node_id", "namespace"),
    upgrades={1: with_lease},
    added_when_terminal=("next_id",),
)


class ExecutionStore(LeasedStore[Execution]):
    """The executions of a database."""

    def __init__(self, database: Database, spec: RecordSpec[Execution] = EXECUTION) -> None:
        super().__init__(database, spec)

    def create(self, record: Execution, *, lease: timedelta | None = None) -> Execution:
        """As every store's; an attempt with a `previous_id` is noted there as its `next_id`, in the
        same transaction. `lease`: the record's owner holds it for so long."""
        if record.previous_id is None:
            return super().create(record, lease=lease)
        with self.database.transaction():
            created = super().create(record, lease=lease)
            self.update(record.previous_id, next_id=created.id)
        return created

    def orphans(self, node_id: str | None = None) -> list[Execution]:
        """Executions in a state that needs a living owner, whose owner is gone: a process of this
        node that has ended, or one of another node whose lease has run out."""
        owned = tuple(state for state in self.machine.states if state in self.machine.owned)
        return [
            execution
            for page in pages(self, owned)
            for execution in page
            if self.standing(execution, node_id).kind == "gone"
        ]

    def recover(
        self,
        policy: RecoveryPolicy | Decide = DEFAULT_POLICY,
        *,
        node_id: str | None = None,
        jobs: JobStore | None = None,
        dry_run: bool = False,
    ) -> RecoveryReport:
        """Do with the live executions whose owner is gone what the policy says.

        Call it when a service starts, and from time to time where others share the database. It
        costs what the live executions cost, however many have ended. It takes a few executions in
        a transaction, and each of them whole: one that is killed is finished by the next, and two
        at once never deal with an execution twice. Who is gone: a process of `node_id`, the node
        that this runs on, that has ended; a process of another node whose lease has run out.

        `jobs`: their store. In the same database, a job is changed together with its execution
        (see `RecoveryAction`), unless another process has claimed it or another execution of it
        is live; in another database it is only read, for its type. Without, jobs are read that
        are in the same database, and none is changed. `dry_run`: says what it would do.

        An execution that cannot be changed, for one because a newer version of the service wrote
        it, is left and reported; the others go on.
        """
        return Recovery(self, policy, node_id, jobs).run(dry_run=dry_run)
