"""A random story of changes that a process tells and another can retell: what a killed process did
is known from its seed and the number of changes it acknowledged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

from storebridge import JOB_STATES, Database, Job, JobStore


@dataclass(frozen=True)
class Kept:
    """What is to be there of a job."""

    state: str
    revision: int
    priority: int
    label: str


class Action(NamedTuple):
    """One change of one job."""

    kind: str
    job: str
    state: str = ""
    priority: int = 0
    label: str = ""


class Script:
    """Transactions of one to four changes, and what is there after each."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._made = 0
        self.told = 0
        self.jobs: dict[str, Kept] = {}

    def go_on(self) -> list[Action]:
        """The next transaction."""
        self.told += 1
        return [self._next() for _ in range(self._random.choice((1, 1, 2, 4)))]

    def skip(self, transactions: int) -> None:
        """Tell up to here what somebody else has done."""
        while self.told < transactions:
            self.go_on()

    def _next(self) -> Action:
        chance = self._random.random()
        if chance < 0.3 or not self.jobs:
            return self._create()
        job = self._random.choice(sorted(self.jobs))
        kept = self.jobs[job]
        following = JOB_STATES.transitions[kept.state]
        if chance < 0.15 + 0.3 or len(self.jobs) > 30:
            del self.jobs[job]
            return Action("delete", job)
        if not following:
            return self._create()
        priority, label = self._random.randrange(100), self._random.choice("abc")
        kept = replace(kept, revision=kept.revision + 1)
        if chance < 0.7:
            self.jobs[job] = replace(kept, priority=priority, label=label)
            return Action("update", job, priority=priority, label=label)
        state = self._random.choice(following)
        self.jobs[job] = replace(kept, state=state)
        return Action("set_state", job, state=state)

    def _create(self) -> Action:
        self._made += 1
        job, label = f"job-{self._made}", self._random.choice("abc")
        self.jobs[job] = Kept("Pending", 1, 0, label)
        return Action("create", job, label=label)


def perform(jobs: JobStore, actions: list[Action]) -> None:
    """Do a transaction of a script; one change alone without a block around it."""
    if len(actions) == 1:
        _perform(jobs, actions[0])
        return
    with jobs.database.transaction():
        for action in actions:
            _perform(jobs, action)


def _perform(jobs: JobStore, action: Action) -> None:
    if action.kind == "create":
        jobs.create(Job(id=action.job, labels={"label": action.label}))
    elif action.kind == "update":
        jobs.update(action.job, priority=action.priority, labels={"label": action.label})
    elif action.kind == "set_state":
        jobs.set_state(action.job, action.state, message="x" * 300)
    else:
        jobs.delete(action.job)


def found(database: Database) -> dict[str, Kept]:
    """What is there, as a script tells it."""
    return {
        job.id: Kept(job.state, job.revision, job.priority, job.labels["label"])
        for job in JobStore(database).each()
    }
