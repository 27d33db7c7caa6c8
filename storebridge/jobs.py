"""Jobs: what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Raw

from storebridge.database import Database
from storebridge.driver import Key, Position, Range
from storebridge.errors import (
    ConfigurationError,
    ConflictError,
    CorruptStoreError,
    InvalidQueryError,
    InvalidRecordError,
    NewerRecordError,
    RecordNotFoundError,
)
from storebridge.expect import Expect
from storebridge.leases import LeasedStore, lease_end, pages
from storebridge.machine import StateMachine
from storebridge.owner import Owner
from storebridge.query import MAX_LIMIT, test_field
from storebridge.record import Record
from storebridge.spec import QUEUE, RecordSpec
from storebridge.transaction import Unit

JobType = Literal["batch", "ops", "service", "daemon"]
_CHUNK = 64

JOB_STATES = StateMachine(
    {
        "Pending": ("Queued", "Running", "Completed", "Failed", "Stopped"),
        "Queued": ("Pending", "Running", "Failed", "Stopped"),
        "Running": ("Pending", "Queued", "Completed", "Failed", "Stopped"),
        "Completed": (),
        "Failed": (),
        "Stopped": (),
    },
    owned=frozenset({"Queued"}),
)


class Job(Record, kw_only=True, tag=2):
    """What was asked for. A name is unique in its namespace until the job is deleted; a job that is
    given none is called by its id.

    `labels` are what selectors find it by, `meta` is whatever else you note; `spec` is any JSON,
    made by `to_json` and read by `from_json`. A new job is Pending unless `state` says otherwise;
    `message` is what was last said of it. `owner` and `lease_until` are those of its claim.
    `version`, and what every `Record` has, are set by the store.
    """

    namespace: str = "default"
    name: str = ""
    type: JobType = "batch"
    priority: int = 0
    """Jobs of a higher one are claimed first."""
    labels: dict[str, str] = {}
    meta: dict[str, str] = {}
    spec: Raw = Raw(b"{}")
    """Any JSON, made by `to_json`; kept undecoded until `from_json(job.spec)`."""
    state: str = ""
    message: str = ""
    owner: Owner | None = None
    """The process that has claimed it."""
    lease_until: datetime | None = None
    """Until when the claim holds, seen from other nodes."""
    version: int = 0
    """Counts the updates of what was asked for, from 1; set by the store."""


def with_claim(members: dict[str, Any]) -> dict[str, Any]:
    """From version 1, which knew no claims, to 2."""
    return members | {"owner": None, "lease_until": None}


JOB = RecordSpec(
    name="job",
    type=Job,
    machine=JOB_STATES,
    filters=("state", "type", "namespace"),
    unique=("namespace", "name"),
    upgrades={1: with_claim},
    default_to_id="name",
    labelled=True,
    versioned=True,
    unversioned=("owner", "lease_until"),
    queue="priority",
)


class JobStore(LeasedStore[Job]):
    """The jobs of a database. Each update makes a version; old versions stay readable."""

    def __init__(self, database: Database, spec: RecordSpec[Job] = JOB) -> None:
        super().__init__(database, spec)

    def claim(
        self,
        limit: int = 1,
        *,
        owner: Owner,
        lease: timedelta | None = None,
        state: str = "Queued",
        **filters: Any,
    ) -> list[Job]:
        """Take up to `limit` jobs out of the initial state for an owner, the highest priority
        first, then the oldest, and pass them into a state, all in one transaction: no job is
        claimed twice. Fewer, perhaps none, where fewer wait.

        `lease`: how long the claim holds, seen from other nodes; longer by `heartbeat`. `state`:
        one in which `recover` looks for claims, unless an execution is made in the same
        transaction. `filters` as in `find`: jobs that do not meet them are read and passed over,
        each time.
        """
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise InvalidQueryError(f"limit {limit!r}: accepted are 1 to {MAX_LIMIT}")
        if not isinstance(owner, Owner):
            raise InvalidRecordError(f"owner: expected an Owner, got {owner!r}")
        tests = [
            test_field(name, self._filter(name, value), self.layout)
            for name, value in filters.items()
        ]
        until = None if lease is None else lease_end(self.database.clock, lease)
        self._check_claims(state)
        return self.database.write(self._claim, limit, state, owner, until, tests)

    def _check_claims(self, state: str) -> None:
        machine = self.machine
        if self.spec.queue is None:
            raise ConfigurationError(
                f"store {self.spec.name!r} has no queue: name a field for it in its specification"
            )
        if state not in machine.live or state not in machine.transitions[machine.initial]:
            raise InvalidQueryError(f"state {state!r}: no job can be claimed into it")

    def _claim(
        self,
        unit: Unit,
        limit: int,
        state: str,
        owner: Owner,
        until: datetime | None,
        tests: list[Callable[[Any], bool]],
    ) -> list[Job]:
        claimed: list[Job] = []
        expect = Expect(states=(self.machine.initial,))
        changes = {"owner": owner, "lease_until": until}

        def wanted() -> int:
            # Where some are passed over, the last one must not be sought row by row.
            return max(limit - len(claimed), _CHUNK if tests else 1)

        for key, body in self._in_turn(unit, wanted):
            if tests and not self._passes(body, tests):
                continue
            try:
                job = self._write.set_state(unit, str(key[0]), state, None, expect, changes)
            except (ConflictError, RecordNotFoundError, NewerRecordError, CorruptStoreError):
                continue  # another took it meanwhile, or this process cannot write it
            claimed.append(job)
            if len(claimed) == limit:
                break
        return claimed

    def _passes(self, body: bytes, tests: list[Callable[[Any], bool]]) -> bool:
        try:
            job = self.codec.decode(body)
        except CorruptStoreError:
            return False
        return all(test(job) for test in tests)

    def _in_turn(self, unit: Unit, wanted: Callable[[], int]) -> Iterator[tuple[Key, bytes]]:
        """The rows of the initial state, by priority, each priority's by age; read in parts of the
        size that is wanted then. The index says which priorities there are: a body may have been
        edited by hand, or be unreadable."""
        first = self.machine.initial
        below: str | int | None = None
        while True:
            top = Range(by=QUEUE, prefix=(first,), upper=below, limit=1, reverse=True)
            rows, position = unit.scan(self._table, top)
            if position is None:
                yield from rows
                return
            below = position[1]
            after: Position | None = None
            while True:
                part = Range(by=QUEUE, prefix=(first, below), after=after, limit=wanted())
                rows, after = unit.scan(self._table, part)
                yield from rows
                if after is None:
                    break

    def release(
        self, record_id: str, *, message: str | None = None, expect: Expect | None = None
    ) -> Job:
        """Give a claimed job back: to the initial state, held by nobody. A claimer does so with
        `expect=Expect(owner=…)`. ConflictError from a state that cannot go back."""
        first = self.machine.initial
        return self.set_state(
            record_id, first, message=message, expect=expect, owner=None, lease_until=None
        )

    def recover(self, *, node_id: str | None = None, dry_run: bool = False) -> list[Job]:
        """Release the jobs whose claimer is gone, and return them; with `dry_run`, those that
        would be.

        Claims of this node's processes end with them, those of others with their lease. Looks at
        the states that need a living owner (Queued): a job that runs is recovered with its
        execution, by `ExecutionStore.recover`.
        """
        owned = tuple(state for state in self.machine.states if state in self.machine.owned)
        released: list[Job] = []
        for page in pages(self, owned):
            gone = [job for job in page if self._is_abandoned(job, owned, node_id)]
            if dry_run:
                released += gone
            elif gone:
                with self.database.transaction():
                    again = [self._release_abandoned(job.id, owned, node_id) for job in gone]
                released += [job for job in again if job is not None]
        return released

    def _is_abandoned(self, job: Job, owned: tuple[str, ...], node_id: str | None) -> bool:
        return job.state in owned and self.standing(job, node_id).kind == "gone"

    def _release_abandoned(
        self, job_id: str, owned: tuple[str, ...], node_id: str | None
    ) -> Job | None:
        """In a transaction, in which nobody else can change what is read: judge again, as it may be
        held anew, or released by another."""
        try:
            job = self.get(job_id)
            if not self._is_abandoned(job, owned, node_id):
                return None
            return self.release(job_id, message=self.standing(job, node_id).reason)
        except (ConflictError, RecordNotFoundError, NewerRecordError, CorruptStoreError):
            return None
