"""What recovery costs, and what claims cost."""

from __future__ import annotations

from typing import Any

import pytest

from storebridge import (
    DEFAULT_POLICY,
    JOB,
    ConfigurationError,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    Record,
    RecordSpec,
    RecoveryAction,
    open_database,
)
from storebridge.spec import layout_of
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.claiming import CountingDriver, share_jobs
from storebridge.testing.stores.holders import NODE, ended

ENDED, LIVE, BROKEN_OFF = 3_000, 30, 10


def test_recovery_reads_what_lives() -> None:
    """However many executions have ended, recovery reads the live ones, and a few times those that
    it recovers: each state once at the least.
    """
    owner = ended()
    with open_database("memory:cost") as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        with database.transaction():
            for number in range(ENDED):
                executions.create(Execution(job_id=f"j{number}", state="Failed", owner=owner))
            for number in range(LIVE):
                executions.create(Execution(job_id=f"w{number}"))
            for number in range(BROKEN_OFF):
                job = jobs.create(Job(id=f"r{number}", type="service", state="Running"))
                executions.create(Execution(job_id=job.id, state="Running", owner=owner))
        counting: Any = CountingDriver(database.driver)
        database.driver = counting
        report = executions.recover(node_id=NODE, jobs=jobs)
        assert len(report.requeued) == BROKEN_OFF
        assert counting.rows <= LIVE + 14 * BROKEN_OFF


@pytest.mark.parametrize("backend", ["sqlite", "lmdb"])
def test_eight_workers_share_2000_jobs(backend: str, tmp_path: Any) -> None:
    """Eight processes at once, three of which are killed: each job is claimed by one, and what the
    killed had claimed comes back and is claimed again.
    """
    share_jobs(BackendHarness(backend, tmp_path), count=2_000, workers=8, killed=3)


def test_the_table_is_data() -> None:
    """The default policy has a cell for each live state and type of job; it cannot be changed in
    place.
    """
    table = dict(DEFAULT_POLICY.cells)
    assert len(table) == 6 * 4
    changed = {cell for cell, action in table.items() if action is not RecoveryAction.LEAVE}
    assert changed == {("Running", kind) for kind in ("batch", "ops", "service", "daemon")}
    with pytest.raises(TypeError):
        DEFAULT_POLICY.cells["Running", "batch"] = RecoveryAction.LEAVE  # type: ignore[index]


class Ticket(Record, kw_only=True, tag=1):
    state: str = ""
    queue: int = 0
    place: int | None = None


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": "colour"},
        {"queue": "place"},
        {"queue": "queue"},
        {"queue": "state"},
        {"filters": (), "queue": "queue"},
        {"unversioned": ("colour",)},
    ],
)
def test_queues_that_cannot_be(wrong: dict[str, Any]) -> None:
    """A store's queue is a whole-number field that is always there, and a state to take from."""
    asked: dict[str, Any] = {"name": "ticket", "type": Ticket, "filters": ("state",), **wrong}
    with pytest.raises(ConfigurationError):
        layout_of(RecordSpec[Ticket](**asked))


def test_where_another_store_is_called_job() -> None:
    """A store of this name that is not storebridge's own is not guessed at."""
    with open_database("memory:others") as database:
        own = RecordSpec(name="job", type=Job, machine=JOB.machine, filters=("state",))
        JobStore(database, RecordSpec(**(own.__dict__ | {"upgrades": JOB.upgrades})))
        executions = ExecutionStore(database)
        with pytest.raises(ConfigurationError, match="jobs=…"):
            executions.recover(node_id=NODE)
