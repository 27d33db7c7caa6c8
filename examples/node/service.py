"""A node: takes pending jobs and runs their commands, several at once, as executions.

    JOB_STORE_PATH=node.db EXECUTION_STORE_PATH=node.db NODE_ID=pi4 python service.py

Where the records live is up to these variables alone; `NODE_SLOTS` says how many commands run at
once. It runs until SIGTERM, and can be killed at any moment: the next start recovers the executions
whose owner is gone. Several can share the stores. A job's spec says what to run:

    {"command": ["sort", "words.txt"], "timeout": 60, "rerun": true}

Each line that it prints is one change that the stores have acknowledged.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext

from storebridge import (
    JOB_STATES,
    Execution,
    ExecutionStore,
    Expect,
    Job,
    JobStore,
    RecoveryAction,
    from_json,
    open_execution_store,
    open_job_store,
    this_process,
    to_json,
)

MAX_ATTEMPTS = 3
OUTPUT_KEPT = 500


def say(event: str, subject: str, text: str = "") -> None:
    """One line for people and programs, written at once."""
    line = "\t".join((event, subject, " ".join(text.split())))
    # In one piece: several threads say something.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Node:
    """Runs the jobs of a job store, and keeps each attempt in an execution store."""

    def __init__(
        self,
        jobs: JobStore,
        executions: ExecutionStore,
        node_id: str,
        slots: int = 4,
        say: Callable[[str, str, str], None] = say,
    ) -> None:
        self.jobs, self.executions = jobs, executions
        self.node_id, self.slots, self.say = node_id, slots, say
        self.owner = this_process(node_id)
        self.stopping = threading.Event()

    # --- after a restart ---

    def recover(self) -> None:
        """Bring to order what an earlier process of this node left behind."""
        stopped = {
            owner.pid: owner for s in self._stores() for owner in s.database.stopped_uncleanly
        }
        for pid in stopped:
            self.say("unclean", str(pid), "ended without closing")
        for report in {r.store: r for s in self._stores() for r in s.database.recounted}.values():
            self.say("recount", report.store, f"{sum(map(abs, report.drift.values()))} off")
        recovery = self.executions.recover(self._what_next, node_id=self.node_id, jobs=self.jobs)
        for found in recovery.failed + recovery.requeued:
            self.say("orphan", found.id, found.reason)
            if found.next_id:
                self.say("requeued", found.id, found.next_id)
            if found.job_state == "Failed":
                self.say("job-failed", found.job_id, found.reason)
        for job in self.jobs.recover(node_id=self.node_id):
            self.say("job-pending", job.id, job.message)
        for job in self.jobs.each(state="Running"):
            if self.jobs.standing(job, self.node_id).kind == "gone":
                self._settle(job)
        left = self.jobs.count(state=JOB_STATES.live)
        self.say("ready", self.node_id, f"{left} jobs to run")

    def _what_next(self, execution: Execution, job: Job | None) -> RecoveryAction:
        """The policy for an execution whose owner is gone: again what may run again, unless it
        would only kill the next node too."""
        may_run_again = job is not None and from_json(job.spec).get("rerun", True)
        if may_run_again and self.executions.count(job_id=execution.job_id) < MAX_ATTEMPTS:
            return RecoveryAction.REQUEUE
        return RecoveryAction.FAIL

    def _settle(self, job: Job) -> None:
        """A job whose claimer is gone is as far as its last execution says: where the stores are
        two databases, a kill can come between them."""
        last = next(iter(self.executions.find(job_id=job.id, descending=True, limit=1)), None)
        if last is None or last.state == "Created":
            self.jobs.release(job.id, message="to be tried again")
            self.say("job-pending", job.id, "to be tried again")
        elif last.state in ("Completed", "Failed"):
            self.jobs.set_state(job.id, last.state, message=last.message)
            self.say(f"job-{last.state.lower()}", job.id, last.message)

    def _stores(self) -> tuple[JobStore, ExecutionStore]:
        return self.jobs, self.executions

    def _together(self) -> AbstractContextManager[object]:
        """One transaction, where both stores are in one database. Where they are not, a kill can
        come between two changes: `recover` goes by the execution then."""
        if self.jobs.database is self.executions.database:
            return self.jobs.database.transaction()
        return nullcontext()

    # --- running ---

    def run(self) -> None:
        """Take pending jobs, the oldest first, until told to stop; then let running ones end."""
        with ThreadPoolExecutor(self.slots) as pool:
            busy: set[Future[None]] = set()
            while not self.stopping.is_set():
                free = self.slots - len(busy)
                for job in self.jobs.claim(free, owner=self.owner) if free else ():
                    busy.add(pool.submit(self._run, job, self._begin(job)))
                finished, busy = wait(busy, timeout=0.02)
                for future in finished:
                    future.result()
                if not busy:
                    self.stopping.wait(0.05)

    def _begin(self, job: Job) -> Execution:
        """Begin the attempt that waits for it, as recovery leaves it, or a new one."""
        with self._together():
            self.jobs.set_state(job.id, "Running", expect=Expect(owner=self.owner))
            waiting = self.executions.find(job_id=job.id, state="Created", limit=1).records
            if waiting:
                execution = self.executions.set_state(
                    waiting[0].id, "Running", owner=self.owner, node_id=self.node_id
                )
            else:
                execution = self.executions.create(
                    Execution(
                        job_id=job.id,
                        node_id=self.node_id,
                        state="Running",
                        spec=job.spec,
                        owner=self.owner,
                    )
                )
        again = f"again, after {execution.previous_id}" if execution.previous_id else ""
        self.say("running", execution.id, f"{job.name} {again}")
        return execution

    def _run(self, job: Job, execution: Execution) -> None:
        spec = from_json(job.spec)
        try:
            done = subprocess.run(
                spec["command"],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=spec.get("timeout", 60),
            )
        except subprocess.TimeoutExpired as error:
            self._finish(job, execution, "Failed", f"no end after {error.timeout:g} s", None)
        except OSError as error:
            self._finish(job, execution, "Failed", f"cannot be run: {error.strerror}", None)
        else:
            state = "Failed" if done.returncode else "Completed"
            self._finish(job, execution, state, f"exit code {done.returncode}", done)

    def _finish(
        self,
        job: Job,
        execution: Execution,
        state: str,
        message: str,
        done: subprocess.CompletedProcess[bytes] | None,
    ) -> None:
        result = {} if done is None else {"exit_code": done.returncode} | {
            name: stream[:OUTPUT_KEPT].decode(errors="replace")
            for name, stream in (("stdout", done.stdout), ("stderr", done.stderr))
        }  # fmt: skip
        with self._together():
            self.executions.set_state(execution.id, state, message=message, result=to_json(result))
            self.jobs.set_state(job.id, state, message=message)
        self.say(state.lower(), execution.id, f"{job.name}: {message}")


def main() -> int:
    """Run the node that the environment describes."""
    node_id = os.environ["NODE_ID"]
    with open_job_store() as jobs, open_execution_store() as executions:
        node = Node(jobs, executions, node_id, int(os.environ.get("NODE_SLOTS", "4")))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: node.stopping.set())
        say("started", node_id, f"process {os.getpid()}")
        node.recover()
        node.run()
    say("stopped", node_id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
