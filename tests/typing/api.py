"""The public API as users write it: checked by mypy, never run."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_type

from msgspec import Raw

from storebridge import (
    DEFAULT_POLICY,
    JOB_STATES,
    Database,
    Event,
    Execution,
    ExecutionStore,
    Expect,
    Job,
    JobStore,
    Page,
    Record,
    RecordSpec,
    RecordStore,
    RecoveryAction,
    RecoveryReport,
    StateMachine,
    from_json,
    open_database,
    open_execution_store,
    open_job_store,
    this_process,
    to_json,
)
from storebridge.transfer import (
    MigrationReport,
    Progress,
    export_database,
    import_database,
    verify,
)


class Sample(Record, kw_only=True, tag=2):
    """A record type of a user's."""

    state: str = ""
    taken_at: datetime | None = None


SAMPLE = RecordSpec(
    name="sample",
    type=Sample,
    machine=StateMachine({"New": ("Read",), "Read": ()}),
    filters=("state", "taken_at"),
    upgrades={1: lambda members: members | {"taken_at": None}},
)


def stores() -> None:
    with open_job_store("sqlite:///jobs.db") as jobs:
        assert_type(jobs.create(Job(name="n", labels={"a": "b"}, spec=to_json({}))), Job)
    with open_database("memory:", read_only=False) as database:
        assert_type(database, Database)
        assert_type(ExecutionStore(database).get("e"), Execution)
        assert_type(RecordStore(database, SAMPLE), RecordStore[Sample])
    open_execution_store(env_prefix="NODE_", create=False).close()


def writing(jobs: JobStore, executions: ExecutionStore, samples: RecordStore[Sample]) -> None:
    with jobs.database.transaction():
        job = jobs.create(Job())
        execution = executions.create(Execution(job_id=job.id, owner=this_process("n")))
        assert_type(executions.set_state(execution.id, "Running", message="go"), Execution)
    expect = Expect(states=["Pending"], not_states=JOB_STATES.terminal, revision=1)
    assert_type(jobs.update(job.id, expect=expect, priority=5), Job)
    assert_type(samples.create(Sample()), Sample)
    assert_type(samples.delete("s", expect=Expect(revision=2)), None)


def recovering(jobs: JobStore, executions: ExecutionStore) -> None:
    lease = timedelta(seconds=30)
    policy = DEFAULT_POLICY.with_(state="Publishing", type="ops", action=RecoveryAction.FAIL)
    report = executions.recover(policy, node_id="n", jobs=jobs, dry_run=True)
    assert_type(report, RecoveryReport)
    assert_type(report.found[0].next_id, str | None)
    executions.recover(_what_next)
    assert_type(jobs.claim(5, owner=this_process("n"), lease=lease, type="batch"), list[Job])
    assert_type(executions.heartbeat("e", this_process("n"), lease), Execution)
    assert_type(executions.create(Execution(job_id="j"), lease=lease), Execution)
    assert_type(jobs.release("j", expect=Expect(owner=this_process("n"))), Job)
    assert_type(jobs.recover(node_id="n"), list[Job])


def _what_next(execution: Execution, job: Job | None) -> RecoveryAction:
    return RecoveryAction.LEAVE if job is None else RecoveryAction.REQUEUE


def moving(database: Database, other: Database) -> None:
    report = database.migrate_to("lmdb:there", dry_run=True, watch=_watch)
    assert_type(report, MigrationReport)
    assert_type(report.skipped[0].key[0], str | int)
    assert_type(report.replaces, Path | None)
    assert_type(report.digest.sha256, str)
    found = verify(database, other, most=5)
    assert_type(found.equal, bool)
    assert_type(found.differences[0].table, str)
    assert_type(export_database(database, "x.jsonl.gz", overwrite=True).bytes, int)
    assert_type(import_database("x.jsonl.gz", "bolt:here").added, int)


def _watch(progress: Progress) -> None:
    assert_type(progress.total, int | None)


def reading(jobs: JobStore, samples: RecordStore[Sample], database: Database) -> None:
    page = jobs.find(labels="app=web", state=["Pending", "Running"], limit=10, descending=True)
    assert_type(page, Page[Job])
    assert_type(page.cursor, str | None)
    assert_type([job.spec for job in page], list[Raw])
    assert_type(next(samples.each(state="New")).taken_at, datetime | None)
    assert_type(jobs.counts(), dict[str, int])
    assert_type(jobs.count(state="Running"), int)
    assert_type(jobs.history("j"), list[Event])
    assert_type(jobs.versions("j"), list[Job])
    assert_type(database.checkpoint("reader"), int | None)
    for event in database.events(after=5, stores=["job"]):
        assert_type(event.sequence, int)
    value: dict[str, int] = from_json(page[0].spec)
    print(value)
