"""A client that changes what others change, too, and says what it is about to do and what was done:
`python -m tests.crash.postgresql_client JSON`.
"""

from __future__ import annotations

import json
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

from storebridge import (
    ConflictError,
    Expect,
    Job,
    JobStore,
    RecordNotFoundError,
    StorageError,
    open_database,
)

SHARED = 4


def say(*words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def count_up(jobs: JobStore, job_id: str) -> None:
    """Add one, on top of what was just read."""
    while True:
        job = jobs.get(job_id)
        try:
            jobs.update(job_id, priority=job.priority + 1, expect=Expect(revision=job.revision))
            return
        except ConflictError:
            continue


def count_up_together(jobs: JobStore) -> None:
    """Add one to two of them, or to none."""
    while True:
        try:
            with jobs.database.transaction():
                for job_id in ("together-0", "together-1"):
                    jobs.update(job_id, priority=jobs.get(job_id).priority + 1)
            return
        except ConflictError:
            continue


def take_one(jobs: JobStore, name: str) -> str | None:
    """Take a job that waits, if fewer than three are running: what was counted must hold."""
    while True:
        try:
            with jobs.database.transaction():
                if jobs.count(state="Running") >= 3:
                    return None
                for job in jobs.find(state="Pending", labels="queue", limit=1):
                    return jobs.set_state(job.id, "Running", message=name).id
            return None
        except ConflictError:
            continue


def act(jobs: JobStore, name: str, chance: random.Random, turn: int) -> None:
    kind = chance.random()
    if kind < 0.4:
        job_id = f"shared-{chance.randrange(SHARED)}"
        say("try", "up", job_id)
        count_up(jobs, job_id)
        say("done", "up", job_id)
    elif kind < 0.6:
        say("try", "together", "")
        count_up_together(jobs)
        say("done", "together", "")
    elif kind < 0.85:
        job_id = f"{name}-{turn}"
        say("try", "create", job_id)
        jobs.create(Job(id=job_id, labels={"queue": "yes"}))
        say("done", "create", job_id)
    else:
        taken = take_one(jobs, name)
        if taken is not None:
            jobs.set_state(taken, "Completed")
            say("try", "delete", taken)
            jobs.delete(taken)
            say("done", "delete", taken)


def main() -> None:
    asked = json.loads(sys.argv[1])
    name, chance = asked["name"], random.Random(f"{asked['seed']} {asked['name']}")
    stop = Path(asked["stop"])
    jobs: JobStore | None = None
    turn = 0
    while not stop.exists():
        try:
            if jobs is None:
                jobs = JobStore(open_database(asked["location"]))
                say("ready")
            turn += 1
            act(jobs, name, chance, turn)
        except RecordNotFoundError:
            say("gone")
        except StorageError as error:
            # Whatever was tried was not done, unless nobody knows.
            say("unknown" if "is not known" in str(error) else "failed", str(error))
            time.sleep(0.02)
    if jobs is not None:
        with suppress(StorageError):  # its connection may be cut like any other
            jobs.close()
    say("end")


if __name__ == "__main__":
    main()
