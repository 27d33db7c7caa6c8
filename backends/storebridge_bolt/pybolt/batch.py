"""Sharing one commit among the threads that want one at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .db import DB
    from .tx import Tx

Result = TypeVar("Result")

_MOST = 1000  # functions in one transaction


class _Job:
    """One thread's function, and how it went."""

    def __init__(self, function: Callable[[Tx], Any]) -> None:
        self.function = function
        self.done = False
        self.alone = False  # it failed beside others, and is tried again by itself
        self.result: Any = None
        self.error: BaseException | None = None


class Batcher:
    """Functions wait in a queue; whoever gets its turn runs all that wait, in one transaction.

    While one commit waits for the disk the queue fills up, so the busier it is the more share a
    commit, without any timer.
    """

    def __init__(self, db: DB) -> None:
        self._db = db
        self._queue: list[_Job] = []
        self._turn = threading.Lock()

    def run(self, function: Callable[[Tx], Result]) -> Result:
        """Run a function as `DB.batch` says."""
        job = _Job(function)
        self._queue.append(job)
        while not job.done:
            with self._turn:
                if not job.done:
                    self._run_waiting()
        if job.alone:
            with self._db.update() as tx:
                return function(tx)
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[no-any-return]

    def _run_waiting(self) -> None:
        jobs, self._queue[:_MOST] = self._queue[:_MOST], []
        while jobs:
            failed = self._try(jobs)
            if failed is None:
                return
            jobs.remove(failed)
            failed.alone = failed.done = True

    def _try(self, jobs: list[_Job]) -> _Job | None:
        """Run jobs in one transaction; the one that raised, if one did, with nothing committed."""
        job = None
        try:
            with self._db.update() as tx:
                for job in jobs:
                    job.result = job.function(tx)
                job = None
        except BaseException as error:
            if job is not None:
                return job
            for job in jobs:
                job.error, job.done = error, True
            return None
        for job in jobs:
            job.done = True
        return None
