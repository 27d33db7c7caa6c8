"""A trace driven through the stores by its own clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby

from storebridge import Database, Execution, ExecutionStore, Job, JobStore, open_database, to_json
from tests.real.trace import Step, Trace, TraceJob

HOUR = 3600


class Clock:
    """What time it is in the trace."""

    def __init__(self, start: datetime) -> None:
        self.now = start

    def __call__(self) -> datetime:
        return self.now


class Replay:
    """Both stores of a database that lives in the trace's time."""

    def __init__(self, location: str, trace: Trace) -> None:
        self._trace = trace
        self._clock = Clock(trace.began)
        self.location = location
        self.open()

    def open(self) -> None:
        self.database: Database = open_database(self.location, clock=self._clock)
        self.jobs = JobStore(self.database)
        self.executions = ExecutionStore(self.database)

    def run(self, steps: Iterable[Step]) -> Iterator[int]:
        """Apply the steps, those of an hour in one transaction; yields each hour that is done."""
        for hour, together in groupby(steps, key=lambda step: step.at // HOUR):
            with self.database.transaction():
                for step in together:
                    self._apply(step)
            yield hour

    def _apply(self, step: Step) -> None:
        self._clock.now = self._trace.time(step.at)
        if step.what == "submit":
            self._submit(step.job)
        elif step.what == "start":
            self._start(step.job)
        else:
            self.executions.set_state(step.job.attempt, "Completed")
            self.jobs.set_state(step.job.id, "Completed")

    def _submit(self, job: TraceJob) -> None:
        self.jobs.create(
            Job(
                id=job.id,
                namespace=job.namespace,
                labels=job.labels,
                meta={"user": str(job.user), "line": str(job.number)},
                spec=to_json({"processors": job.processors, "application": job.application}),
            )
        )

    def _start(self, job: TraceJob) -> None:
        self.jobs.set_state(job.id, "Running")
        self.executions.create(
            Execution(
                id=job.attempt,
                job_id=job.id,
                namespace=job.namespace,
                node_id=f"cube-{job.processors}",
            )
        )
        self.executions.set_state(job.attempt, "Running")
