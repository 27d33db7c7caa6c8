"""The NASA iPSC trace, and figures from it that owe nothing to storebridge.

Standard Workload Format: a line a job, fields by position, -1 where nothing is known. The log says
nothing of waiting (what it calls submit is the start) and of status.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

_UNIX_START = "; UnixStartTime:"


class TraceJob(NamedTuple):
    """A line of the trace. Times are in seconds since the log began."""

    number: int
    submit: int
    start: int
    end: int
    processors: int
    user: int
    group: int
    application: int

    @property
    def id(self) -> str:
        """Not padded: text order is not the order of the numbers."""
        return f"ipsc-{self.number}"

    @property
    def attempt(self) -> str:
        """The id of the job's only execution."""
        return f"ipsc-{self.number}/1"

    @property
    def namespace(self) -> str:
        return f"user-{self.user}"

    @property
    def labels(self) -> dict[str, str]:
        """What a job is selected by; an unknown application is no label."""
        labels = {"group": str(self.group), "processors": str(self.processors)}
        return labels if self.application < 0 else labels | {"app": str(self.application)}


class Step(NamedTuple):
    """Something that happens to a job: it is submitted, starts or ends."""

    at: int
    what: str
    job: TraceJob


class Trace(NamedTuple):
    began: datetime
    jobs: list[TraceJob]

    def time(self, seconds: int) -> datetime:
        """A time of the trace as a time of day."""
        return self.began + timedelta(seconds=seconds)

    def steps(self) -> list[Step]:
        """Everything that happens, in order; at one time in the order of the file."""
        steps = [step for job in self.jobs for step in _steps_of(job)]
        return sorted(steps, key=lambda step: step.at)

    def by_submission(self) -> list[TraceJob]:
        """In order of time; at one time in order of the ids as text."""
        return sorted(self.jobs, key=lambda job: (job.submit, job.id))

    def by_end(self) -> list[TraceJob]:
        return sorted(self.jobs, key=lambda job: (job.end, job.id))

    def states_at(self, moment: int) -> dict[str, list[str]]:
        """The ids of the jobs in each state when everything up to this second has happened."""
        here = [job for job in self.by_submission() if job.submit <= moment]
        return {
            "Pending": [job.id for job in here if job.start > moment],
            "Running": [job.id for job in here if job.start <= moment < job.end],
            "Completed": [job.id for job in here if job.end <= moment],
        }


def read_trace(path: Path) -> Trace:
    """All jobs of a trace."""
    with gzip.open(path, "rt", encoding="ascii") as file:
        lines = file.read().splitlines()
    began = next(line for line in lines if line.startswith(_UNIX_START))
    seconds = int(began.removeprefix(_UNIX_START))
    jobs = [_job(line) for line in lines if not line.startswith(";")]
    return Trace(datetime.fromtimestamp(seconds, UTC), jobs)


def _job(line: str) -> TraceJob:
    fields = [int(field) for field in line.split()]
    number, submit, wait, run, processors = fields[:5]
    start = submit + max(wait, 0)
    user, group, application = fields[11:14]
    return TraceJob(
        number, submit, start, start + max(run, 0), processors, user, group, application
    )


def _steps_of(job: TraceJob) -> Iterator[Step]:
    yield Step(job.submit, "submit", job)
    yield Step(job.start, "start", job)
    yield Step(job.end, "end", job)
