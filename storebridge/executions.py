"""Executions: each attempt to run a job."""

from __future__ import annotations

from msgspec import Raw

from storebridge.database import Database
from storebridge.machine import StateMachine
from storebridge.owner import Owner
from storebridge.record import Record
from storebridge.spec import RecordSpec
from storebridge.store import RecordStore

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


class Execution(Record, kw_only=True, tag=1):
    """An attempt to run a job on a node."""

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
    previous_id: str | None = None
    """The attempt that this one follows."""
    next_id: str | None = None
    """The attempt that followed; may be added even when the state is terminal."""
    message: str = ""


EXECUTION = RecordSpec(
    name="execution",
    type=Execution,
    machine=EXECUTION_STATES,
    filters=("job_id", "state", "node_id", "namespace"),
    added_when_terminal=("next_id",),
)


class ExecutionStore(RecordStore[Execution]):
    """The executions of a database."""

    def __init__(self, database: Database, spec: RecordSpec[Execution] = EXECUTION) -> None:
        super().__init__(database, spec)

    def create(self, record: Execution) -> Execution:
        """As every store's; an attempt with a `previous_id` is noted there as its `next_id`, in the
        same transaction."""
        if record.previous_id is None:
            return super().create(record)
        with self.database.transaction():
            created = super().create(record)
            self.update(record.previous_id, next_id=created.id)
        return created

    def orphans(self, node_id: str | None = None) -> list[Execution]:
        """Executions in a state that needs a living owner, whose owner, a process of this node, is
        gone."""
        machine = self.spec.machine
        assert machine is not None
        return [
            execution
            for state in machine.states
            if state in machine.owned
            for execution in self.each(state=state)
            if execution.owner is not None and execution.owner.is_alive(node_id) is False
        ]
