"""Whether the stores say what the node acknowledged, and agree with themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from storebridge.check import check
from storebridge.cli.demo.nodes import NODE_ID
from storebridge.cli.demo.scenario import Story
from storebridge.errors import RecordNotFoundError
from storebridge.executions import Execution, ExecutionStore
from storebridge.jobs import JobStore
from storebridge.store import RecordStore


def problems(story: Story, jobs: JobStore, executions: ExecutionStore) -> list[str]:
    """What is wrong, one line each."""
    return [
        *_lost(story, executions),
        *_jobs(story, jobs),
        *_orphans(story, executions),
        *_counters(jobs),
        *_counters(executions),
        *(f"check: {fault.table} {fault.key}: {fault.problem}" for fault in check(jobs.database)),
    ]


def _lost(story: Story, executions: ExecutionStore) -> Iterator[str]:
    """Every acknowledged change must be in the history, and the last one in the record."""
    last = dict(story.acknowledged)
    for record_id, state in story.acknowledged:
        if state not in [event.state for event in executions.history(record_id)]:
            yield f"execution {record_id}: was acknowledged as {state}, which is lost"
    for record_id, state in last.items():
        try:
            found = executions.get(record_id).state
        except RecordNotFoundError:
            yield f"execution {record_id}: was acknowledged, and is lost"
            continue
        # One that was killed may have come further than its last line says.
        if found != state and record_id not in story.interrupted:
            yield f"execution {record_id}: is {found}, was acknowledged as {state}"


def _jobs(story: Story, jobs: JobStore) -> Iterator[str]:
    found = {job.id: job.state for job in jobs.each()}
    for job_id, name in story.jobs.items():
        if found.get(job_id) not in ("Completed", "Failed"):
            yield f"job {job_id} ({name}): is {found.get(job_id, 'lost')}"


def _orphans(story: Story, executions: ExecutionStore) -> Iterator[str]:
    for record_id, reason in story.orphans.items():
        orphan = executions.get(record_id)
        if orphan.message != reason:
            yield f"execution {record_id}: failed as {orphan.message!r}, not {reason!r}"
        if orphan.next_id != story.requeued.get(record_id):
            yield f"execution {record_id}: is followed by {orphan.next_id}, which was not said"
        if orphan.next_id is not None and not _follows(executions, orphan):
            yield f"execution {record_id}: its next attempt does not name it"
    for orphan in executions.orphans(NODE_ID):
        yield f"execution {orphan.id}: has no living owner"


def _follows(executions: ExecutionStore, orphan: Execution) -> bool:
    assert orphan.next_id is not None
    return executions.get(orphan.next_id).previous_id == orphan.id


def _counters(store: RecordStore[Execution] | JobStore) -> Iterator[str]:
    """Counted one by one, from the records themselves."""
    counted = Counter(record.state for record in store.each())
    for state, said in store.counts().items():
        if said != counted[state]:
            yield f"{store.spec.name}s {state}: the counter says {said}, there are {counted[state]}"
