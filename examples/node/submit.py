"""Put jobs into the store that JOB_STORE_PATH names: real commands, some of which fail, some long.

    JOB_STORE_PATH=node.db python submit.py

Prints the id and the name of each job that the store has acknowledged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from storebridge import Job, JobStore, open_job_store, to_json

PYTHON = sys.executable


class Task(NamedTuple):
    """A command, and what else the node is told about it."""

    name: str
    command: tuple[str, ...]
    more: dict[str, Any] = {}


def python(code: str) -> tuple[str, ...]:
    return PYTHON, "-I", "-S", "-c", code


def tasks() -> Iterator[Task]:
    """Short ones first; the long ones in the middle are what a kill halfway breaks off."""
    yield from _short("early", 18)
    yield Task("long: backup", ("sleep", "2.5"))
    yield Task("long: transcode", python("import time; time.sleep(2); print('done')"))
    yield Task("long: pay once", ("sleep", "2.5"), {"rerun": False})
    yield Task("long: index", ("sleep", "2"))
    yield from _short("late", 18)
    yield Task("fails: no such program", ("storebridge-no-such-program",))
    yield Task("fails: takes too long", ("sleep", "20"), {"timeout": 1})
    yield Task("fails: bad input", python("raise SystemExit('bad input')"))
    yield Task("last: report", ("date", "-u"))


def _short(when: str, count: int) -> Iterator[Task]:
    kinds = (
        Task("true", ("true",)),
        Task("fails: false", ("false",)),
        Task("sum", python("print(sum(range(100_000)))")),
        Task("sort", ("sh", "-c", "printf 'pear\\napple\\nfig\\n' | sort")),
        Task("digest", ("sh", "-c", "printf storebridge | sha256sum")),
        Task("wait", ("sleep", "0.3")),
        Task("fails: exit 3", ("sh", "-c", "echo broken >&2; exit 3")),
        Task("umlauts", python("print('grüße, 世界')")),
        Task("list", ("ls", "/")),
    )
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield kind._replace(name=f"{kind.name} ({when} {number + 1})")


def submit(jobs: JobStore) -> Iterator[Job]:
    """Put them all into a store."""
    for task in tasks():
        spec = to_json({"command": task.command, **task.more})
        yield jobs.create(Job(name=task.name, labels={"from": "submit.py"}, spec=spec))


def main() -> int:
    """Submit to the store that the environment names."""
    with open_job_store() as jobs:
        for job in submit(jobs):
            print(job.id, job.name, sep="\t", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
