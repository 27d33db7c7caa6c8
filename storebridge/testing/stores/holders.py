"""Processes that hold records, and others that recover and claim them:
`python -m storebridge.testing.stores.holders`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from storebridge import (
    DEFAULT_POLICY,
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    Owner,
    RecoveryAction,
    leases,
    this_process,
)
from storebridge.jobs import JobType
from storebridge.owner import boot_id, start_time
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import assert_sound, open_at
from storebridge.testing.stores.workers import StoreWorker, open_asked
from storebridge.testing.workers import say, wait

NODE = "here"
LEASE = timedelta(seconds=30)
ELSEWHERE = Owner("there", 1, "another boot", "1")
KINDS: tuple[JobType, ...] = ("batch", "ops", "service", "daemon")
BROKEN_OFF, SOME = 248, 60


class Holder(StoreWorker):
    """A process that runs one of the tasks below."""

    module = "storebridge.testing.stores.holders"


@contextmanager
def holder(harness: BackendHarness, task: str, **arguments: Any) -> Iterator[Holder]:
    started = Holder(harness, task, **arguments)
    try:
        yield started
    finally:
        started.dispose()


@contextmanager
def process(node_id: str | None = NODE) -> Iterator[tuple[Owner, subprocess.Popen[bytes]]]:
    """A process that lives until it is killed, or the block ends; and the owner that it is."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        try:
            born = start_time(started.pid)
            assert born is not None
            yield Owner(node_id, started.pid, boot_id(), born), started
        finally:
            started.kill()


def ended(node_id: str | None = NODE) -> Owner:
    """The owner that a process was which has been killed."""
    with process(node_id) as (owner, _):
        return owner


def claim(asked: dict[str, Any]) -> None:
    """Claim jobs until none waits, say which, and stay alive until told to go on or killed."""
    jobs = JobStore(open_asked(asked))
    say("ready")
    wait()
    while claimed := jobs.claim(asked["limit"], owner=this_process(NODE)):
        say([job.id for job in claimed])
    say([])
    wait()
    jobs.close()


def recover(asked: dict[str, Any]) -> None:
    """Recover at once with others, and say what was done."""
    with open_asked(asked) as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        say("ready")
        wait()
        report = executions.recover(node_id=NODE, jobs=jobs)
        say([each.id for each in report.found])


class DeadlyJobs(JobStore):
    """Kills its process when so many jobs were released, before the next one is."""

    left = 0

    def release(self, record_id: str, **more: Any) -> Job:
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super().release(record_id, **more)


def recover_and_die(asked: dict[str, Any]) -> None:
    """Be killed in the middle of a recovery, with some executions done and one begun."""
    with open_asked(asked) as database:
        jobs = DeadlyJobs(database)
        jobs.left = asked["after"]
        ExecutionStore(database).recover(node_id=NODE, jobs=jobs)


def recover_telling(asked: dict[str, Any]) -> None:
    """Recover a few at a time, and say of each execution that its turn has come."""
    leases.PAGE = asked["page"]

    def decide(execution: Execution, job: Job | None) -> RecoveryAction:
        say(execution.id)
        return DEFAULT_POLICY.decide(execution, job)

    with open_asked(asked) as database:
        ExecutionStore(database).recover(decide, node_id=NODE, jobs=JobStore(database))


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


def break_off(database: Database, count: int = BROKEN_OFF) -> None:
    """Jobs of each type that run, in executions of a process that has been killed."""
    jobs, executions = JobStore(database), ExecutionStore(database)
    owner = ended()
    with database.transaction():
        for number in range(count):
            job_id, kind = f"j-{number:04}", KINDS[number % len(KINDS)]
            jobs.create(Job(id=job_id, type=kind, state="Running", owner=owner))
            executions.create(
                Execution(id=f"e-{number:04}", job_id=job_id, state="Running", owner=owner)
            )


def assert_all_or_nothing(database: Database, count: int = BROKEN_OFF) -> int:
    """Each execution was recovered whole, once, or not touched. Returns how many were."""
    jobs, executions = JobStore(database), ExecutionStore(database)
    followers = [e.previous_id for e in executions.each() if e.previous_id is not None]
    assert len(followers) == len(set(followers))
    recovered = 0
    for number in range(count):
        job, execution = jobs.get(f"j-{number:04}"), executions.get(f"e-{number:04}")
        if execution.state == "Running":
            assert (job.state, execution.revision, execution.next_id) == ("Running", 1, None)
            continue
        recovered += 1
        assert execution.state == "Failed"
        if job.type in ("batch", "ops"):
            assert (job.state, execution.revision, execution.next_id) == ("Failed", 2, None)
            continue
        assert (job.state, job.owner, execution.revision) == ("Pending", None, 3)
        assert execution.next_id is not None
        assert executions.get(execution.next_id).previous_id == execution.id
    assert_sound(database)
    return recovered


def kill_recoveries(harness: BackendHarness, rounds: int) -> int:
    """Kill recoveries at random moments, and have the next one finish. Returns how many of them
    were killed with a part of it done."""
    seed = os.environ.get("STOREBRIDGE_SEED", "1")
    print(f"again with STOREBRIDGE_SEED={seed}")  # noqa: T201 - shown with a failure
    chance = random.Random(f"recovery {seed}")
    halfway = 0
    for _ in range(rounds):
        target = harness.fresh()
        with open_at(harness, target) as database:
            break_off(database, SOME)
        durability = chance.choice(("off", "relaxed", "full"))
        with holder(
            harness, "recover_telling", target=target, durability=durability, page=5
        ) as worker:
            for _ in range(chance.randint(1, SOME)):
                worker.hear()
            time.sleep(chance.random() * 0.005)
            worker.kill()
        with open_at(harness, target, lock_timeout=30.0) as database:
            done = assert_all_or_nothing(database, SOME)
            halfway += 0 < done < SOME
            report = ExecutionStore(database).recover(node_id=NODE, jobs=JobStore(database))
            assert len(report.failed) + len(report.requeued) == SOME - done
            assert assert_all_or_nothing(database, SOME) == SOME
    return halfway


TASKS = {
    "claim": claim,
    "recover": recover,
    "recover_and_die": recover_and_die,
    "recover_telling": recover_telling,
}

if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    TASKS[told["task"]](told)
