"""Recovery: what becomes of executions whose owner is gone. The policy is a table, as data."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, get_args

import msgspec
from msgspec import Raw

from storebridge.errors import (
    ConfigurationError,
    CorruptStoreError,
    RecordError,
    RecordNotFoundError,
    TransactionError,
)
from storebridge.jobs import JOB, Job, JobStore
from storebridge.leases import pages
from storebridge.spec import layout_of

if TYPE_CHECKING:
    from storebridge.database import Database
    from storebridge.executions import Execution, ExecutionStore


class RecoveryAction(enum.StrEnum):
    """What is done with an execution whose owner is gone."""

    FAIL = "fail"
    """It ends as failed, with the reason; so does its job, unless another execution of it is
    live."""
    REQUEUE = "requeue"
    """It ends as failed, with the reason. A new execution of the same job follows it, in the
    initial state and held by nobody; the job goes back to its initial state."""
    LEAVE = "leave"
    """It stays as it is, and is reported."""


FAIL, REQUEUE, LEAVE = RecoveryAction.FAIL, RecoveryAction.REQUEUE, RecoveryAction.LEAVE
Cell = tuple[str, str]
"""A state and a job type."""


@dataclass(frozen=True)
class RecoveryPolicy:
    """What is done with executions whose owner is gone: by their state and the type of their
    job."""

    cells: Mapping[Cell, RecoveryAction]
    """Whatever has no cell is left."""
    type_unless_known: str = "batch"
    """Where the job cannot be found."""
    ownerless: bool = False
    """Whether executions that name no owner count as if theirs were gone: for a service whose
    processes never share a database, and set no owners."""
    failed: str = "Failed"
    """The state in which a failed one ends, and its job."""

    def __post_init__(self) -> None:
        try:
            cells = {cell: RecoveryAction(action) for cell, action in self.cells.items()}
        except ValueError as error:
            raise ConfigurationError(f"recovery policy: {error}") from None
        object.__setattr__(self, "cells", MappingProxyType(cells))

    def with_(self, *, state: str, type: str, action: RecoveryAction) -> RecoveryPolicy:
        """The same policy but for one cell."""
        return replace(self, cells={**self.cells, (state, type): action})

    def decide(self, execution: Execution, job: Job | None) -> RecoveryAction:
        """What is to be done with an execution. The job is None where it cannot be found."""
        return self.cells.get((execution.state, self.type_of(job)), LEAVE)

    def type_of(self, job: Job | None) -> str:
        """The type of a job."""
        return self.type_unless_known if job is None else job.type


Decide = Callable[["Execution", Job | None], RecoveryAction]
"""A policy as a function, asked for every execution whose owner is gone. It is called within the
transaction: it may read the stores of the database, and should be quick."""

DEFAULT_POLICY = RecoveryPolicy(
    {
        ("Running", "batch"): FAIL,
        ("Running", "ops"): FAIL,
        ("Running", "service"): REQUEUE,
        ("Running", "daemon"): REQUEUE,
    }
    | {
        (state, job_type): LEAVE
        for state in (
            "Created",
            "BidAccepted",
            "WaitingVerification",
            "ResultAccepted",
            "Publishing",
        )
        for job_type in ("batch", "ops", "service", "daemon")
    }
)
"""What ran once is failed, what is to run always runs again, and what waits goes on waiting."""


@dataclass(frozen=True)
class Recovered:
    """An execution that recovery has dealt with, or has left for a reason."""

    id: str
    job_id: str
    job_type: str
    state: str
    """As it was found."""
    action: RecoveryAction
    reason: str
    next_id: str | None = None
    """The execution that follows, of a requeued one."""
    job_state: str | None = None
    """What the job has become, if it was changed."""


@dataclass(frozen=True)
class RecoveryReport:
    """What a recovery found and did."""

    found: tuple[Recovered, ...]
    """Executions whose owner is gone, and those that name none although their state needs one; in
    order of creation."""
    held: int
    """Live executions whose owner lives, or has a lease."""
    unseen: int
    """Live executions whose owner cannot be seen, mostly on another node, and has no lease: it may
    live."""
    waiting: Mapping[str, int]
    """Live executions, by state, that need no owner and have none."""
    unreadable: tuple[str, ...]
    """Ids of live executions whose bodies cannot be read."""
    dry_run: bool
    seconds: float

    @property
    def failed(self) -> list[Recovered]:
        """Those that were failed, and not requeued."""
        return [each for each in self.found if each.action is FAIL]

    @property
    def requeued(self) -> list[Recovered]:
        """Those that were failed, and are followed by another."""
        return [each for each in self.found if each.action is REQUEUE]

    @property
    def left(self) -> list[Recovered]:
        """Those that stay as they were."""
        return [each for each in self.found if each.action is LEAVE]


class Recovery:
    """A recovery in progress."""

    def __init__(
        self,
        executions: ExecutionStore,
        policy: RecoveryPolicy | Decide,
        node_id: str | None,
        jobs: JobStore | None,
    ) -> None:
        self._executions = executions
        self._node_id = node_id
        self._policy, self._decide = _parts(policy)
        # What nobody gave is not written: its records may have fields that this process drops.
        self._may_settle = jobs is not None and jobs.database is executions.database
        self._jobs = _jobs_in(executions.database) if jobs is None else jobs
        self._found: list[Recovered] = []
        self._standings: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._made: set[str] = set()
        _check_words(self._policy, executions, self._jobs)

    def run(self, *, dry_run: bool) -> RecoveryReport:
        """Go through the live executions."""
        started = perf_counter()
        unreadable: list[str] = []
        for page in pages(self._executions, self._executions.machine.live):
            unreadable += page.quarantined
            new = [execution for execution in page if execution.id not in self._made]
            concerned = [execution for execution in new if self._concerns(execution)]
            if dry_run:
                self._found += [judged for e in concerned if (judged := self._judged(e))]
            elif concerned:
                self._found += self._recover_together(concerned)
        return RecoveryReport(
            found=tuple(self._found),
            held=self._standings["held"],
            unseen=self._standings["unseen"],
            waiting=dict(self._waiting),
            unreadable=tuple(unreadable),
            dry_run=dry_run,
            seconds=perf_counter() - started,
        )

    def _concerns(self, execution: Execution) -> bool:
        """Whether recovery has to look closer; else it is counted."""
        kind = self._executions.standing(execution, self._node_id).kind
        owned = execution.state in self._executions.machine.owned
        if kind == "gone" or (kind == "free" and (owned or self._policy.ownerless)):
            return True
        if kind == "free":
            self._waiting[execution.state] += 1
        else:
            self._standings[kind] += 1
        return False

    def _judged(self, execution: Execution) -> Recovered | None:
        """What is to be done with it, and why; None if it simply waits."""
        job = self._job_of(execution)
        standing = self._executions.standing(execution, self._node_id)
        reason, action = standing.reason, LEAVE
        if standing.kind == "gone" or (standing.kind == "free" and self._policy.ownerless):
            action = _action(self._decide(execution, job))
        owned = execution.state in self._executions.machine.owned
        if action is LEAVE and standing.kind == "free" and not owned:
            self._waiting[execution.state] += 1
            return None
        if action is REQUEUE and execution.next_id is not None:
            action, reason = FAIL, f"{reason}; {execution.next_id} follows already"
        job_type = self._policy.type_of(job)
        return Recovered(execution.id, execution.job_id, job_type, execution.state, action, reason)

    def _job_of(self, execution: Execution) -> Job | None:
        try:
            return None if self._jobs is None else self._jobs.get(execution.job_id)
        except (RecordNotFoundError, CorruptStoreError):
            return None

    # --- in a transaction: what is read there, nobody else can change ---

    def _recover_together(self, concerned: list[Execution]) -> list[Recovered]:
        with self._executions.database.transaction():
            recovered = [self._recover(execution.id) for execution in concerned]
        return [each for each in recovered if each is not None]

    def _recover(self, execution_id: str) -> Recovered | None:
        """Judge again: its owner may have ended it, another recovery may have been here."""
        try:
            execution = self._executions.get(execution_id)
        except (RecordNotFoundError, CorruptStoreError):
            return None
        terminal = execution.state in self._executions.machine.terminal
        judged = None if terminal or not self._concerns(execution) else self._judged(execution)
        if judged is None or judged.action is LEAVE:
            return judged
        try:
            with self._executions.database.transaction():
                return self._perform(execution, judged)
        except (RecordError, TransactionError) as error:
            return replace(judged, action=LEAVE, reason=f"{judged.reason}; but: {error}")

    def _perform(self, execution: Execution, judged: Recovered) -> Recovered:
        self._executions.set_state(execution.id, self._policy.failed, message=judged.reason)
        next_id = execution.next_id
        if judged.action is REQUEUE:
            next_id = self._executions.create(_successor(execution)).id
            self._made.add(next_id)
        job_state = self._settle(execution, judged, next_id)
        return replace(judged, next_id=next_id, job_state=job_state)

    def _settle(self, execution: Execution, judged: Recovered, next_id: str | None) -> str | None:
        """Bring the job to where its execution leaves it; None if it is left as it is."""
        job = self._job_of(execution)
        if self._jobs is None or job is None or not self._may_settle:
            return None
        if execution.next_id is not None:
            return None  # the attempt that followed decides
        machine = self._jobs.machine
        state = machine.initial if judged.action is REQUEUE else self._policy.failed
        if job.state == machine.initial or state not in machine.transitions.get(job.state, ()):
            return None
        if self._is_somebody_elses(job, execution, next_id):
            return None
        if judged.action is REQUEUE:
            self._jobs.release(job.id, message=judged.reason)
        else:
            self._jobs.set_state(job.id, state, message=judged.reason)
        return state

    def _is_somebody_elses(self, job: Job, execution: Execution, next_id: str | None) -> bool:
        """Whether another process, which may live, has claimed the job, or another execution of it
        is live."""
        assert self._jobs is not None
        standing = self._jobs.standing(job, self._node_id)
        if job.owner != execution.owner and standing.kind in ("held", "unseen"):
            return True
        others = self._executions.each(job_id=job.id, state=self._executions.machine.live)
        return any(other.id not in (execution.id, next_id) for other in others)


def _parts(policy: RecoveryPolicy | Decide) -> tuple[RecoveryPolicy, Decide]:
    if isinstance(policy, RecoveryPolicy):
        return policy, policy.decide
    return replace(DEFAULT_POLICY, cells={}), policy


def _successor(execution: Execution) -> Execution:
    """The same again, as it is before anybody has begun."""
    return msgspec.structs.replace(
        execution,
        id="",
        state="",
        result=Raw(b"null"),
        owner=None,
        lease_until=None,
        previous_id=execution.id,
        next_id=None,
        message="",
    )


def _action(decided: RecoveryAction) -> RecoveryAction:
    try:
        return RecoveryAction(decided)
    except ValueError:
        raise ConfigurationError(f"recovery policy: {decided!r} is no RecoveryAction") from None


def _jobs_in(database: Database) -> JobStore | None:
    """The jobs that are in the same database, to be read."""
    layout = database.refresh().get(JOB.name)
    if layout is None:
        return None
    if layout.shape != layout_of(JOB).shape:
        raise ConfigurationError(
            f"{database.location.text}: store {JOB.name!r} is not as storebridge declares it; give"
            " the recovery your own as jobs=…"
        )
    return JobStore(database)


def _check_words(policy: RecoveryPolicy, executions: ExecutionStore, jobs: JobStore | None) -> None:
    """ConfigurationError for a word that means nothing: what is misspelt would never be done."""
    states, types = executions.machine.live, _job_types(jobs)
    if policy.failed not in executions.machine.terminal:
        raise ConfigurationError(f"recovery policy: {policy.failed!r} is no terminal state")
    for (state, job_type), action in policy.cells.items():
        if action is not LEAVE and state not in states:
            raise ConfigurationError(
                f"recovery policy: {state!r} is none of the live states {', '.join(states)}"
            )
        if action is not LEAVE and types and job_type not in types:
            raise ConfigurationError(
                f"recovery policy: {job_type!r} is none of the job types {', '.join(types)}"
            )


def _job_types(jobs: JobStore | None) -> tuple[str, ...]:
    """Those that there are; empty where they may be any."""
    fields = msgspec.structs.fields(Job if jobs is None else jobs.spec.type)
    return next((get_args(each.type) for each in fields if each.name == "type"), ())
