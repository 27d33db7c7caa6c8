"""Thousands of random changes of a store against plain dicts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storebridge import (
    JOB_STATES,
    ConflictError,
    Execution,
    ExecutionStore,
    Expect,
    Job,
    JobStore,
    RecordExistsError,
    RecordNotFoundError,
)
from storebridge.labels import parse_selector
from storebridge.testing.harness import BackendHarness
from storebridge.testing.randomly import run_randomly
from storebridge.testing.stores.base import StoreTests, Ticks, assert_sound, ids, open_at

EXAMPLES = 40
STEPS = 25
IDS = ("a", "a b", "a!", "é", "b", "😀")
NAMES = ("", "n", "m")
SPACES = ("default", "other")
LABELS: tuple[dict[str, str], ...] = ({}, {"x": "1"}, {"x": "2"}, {"x": "1", "y": "1"})
SELECTORS = ("x=1", "x in (1, 2)", "x", "y", "!y", "x!=1", "x notin (2, 3)", "x,y=1")


class Thrown(Exception):
    """What a block is left by."""


@dataclass
class Known:
    """A job as it is to be."""

    name: str
    space: str
    labels: dict[str, str]
    state: str
    created_at: datetime
    modified_at: datetime
    revision: int = 1
    versions: int = 1


@dataclass
class Model:
    """What is to be there."""

    jobs: dict[str, Known] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, str, str, int]] = field(default_factory=list)

    def copy(self) -> Model:
        jobs = {name: replace(job) for name, job in self.jobs.items()}
        return Model(jobs, dict(self.executions), list(self.events))

    def taken(self, name: str, space: str, but: str | None = None) -> bool:
        return any(
            (job.name, job.space) == (name, space) for i, job in self.jobs.items() if i != but
        )


ids_ = st.sampled_from(IDS)
changes = st.one_of(
    st.tuples(
        st.just("create"),
        ids_,
        st.sampled_from(NAMES),
        st.sampled_from(SPACES),
        st.sampled_from(LABELS),
        st.sampled_from(("", "Running")),
    ),
    st.tuples(
        st.just("update"),
        ids_,
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(NAMES[1:]),
                "labels": st.sampled_from(LABELS),
                "priority": st.integers(0, 3),
            },
        ).filter(bool),
        st.none() | st.integers(1, 4),
    ),
    st.tuples(
        st.just("set_state"),
        ids_,
        st.sampled_from(JOB_STATES.states),
        st.none() | st.sampled_from(LABELS),
    ),
    st.tuples(st.just("delete"), ids_, st.none() | st.integers(1, 4)),
    st.tuples(st.just("execute"), ids_),
)
blocks = st.recursive(
    st.lists(changes, min_size=1, max_size=4),
    lambda inner: st.lists(changes | st.tuples(st.just("block"), inner, st.booleans()), max_size=4),
    max_leaves=3,
)
queries = st.fixed_dictionaries(
    {"descending": st.booleans(), "limit": st.sampled_from((1, 2, 3, 50))},
    optional={
        "state": st.sets(st.sampled_from(JOB_STATES.states), min_size=1),
        "namespace": st.sampled_from(SPACES) | st.just(list(SPACES)),
        "labels": st.sampled_from(SELECTORS),
        "sort": st.sampled_from(("created_at", "modified_at", "id")),
    },
)


class StoreMachine(RuleBasedStateMachine):
    """A database and its model, side by side."""

    def __init__(self, harness: BackendHarness) -> None:
        super().__init__()
        self.harness = harness
        self.target = harness.fresh()
        self.clock = Ticks()
        self.model = Model()
        self.open()

    def open(self) -> None:
        self.database = open_at(self.harness, self.target, clock=self.clock)
        self.jobs, self.executions = JobStore(self.database), ExecutionStore(self.database)

    @rule(change=changes)
    def alone(self, change: tuple[Any, ...]) -> None:
        """One change in a transaction of its own."""
        self.change(change)

    @rule(block=blocks, thrown=st.sampled_from((False, False, True)))
    def block(self, block: list[Any], thrown: bool) -> None:
        """Changes together, in blocks within blocks, some of which are left by an exception."""
        before = self.model.copy()
        try:
            with self.database.transaction():
                for change in block:
                    if change[0] == "block":
                        self.block(change[1], change[2])
                    else:
                        self.change(change)
                if thrown:
                    raise Thrown
        except Thrown:
            self.model = before

    def change(self, change: tuple[Any, ...]) -> None:
        """One change: both must agree on whether it can be made."""
        kind, *arguments = change
        error = getattr(self, f"{kind}_in_model")(*arguments)
        call = getattr(self, f"{kind}_in_store")
        try:
            call(*arguments)
        except (ConflictError, RecordExistsError, RecordNotFoundError) as caught:
            assert type(caught) is error, (change, caught)  # noqa: PT017 - both are judged
        else:
            assert error is None, (change, error)

    # --- the store ---

    def create_in_store(
        self, job_id: str, name: str, space: str, labels: dict[str, str], state: str
    ) -> None:
        job = Job(id=job_id, name=name, namespace=space, labels=labels, state=state)
        made = self.jobs.create(job)
        known = self.model.jobs[job_id]
        known.created_at, known.modified_at = made.created_at, made.modified_at

    def update_in_store(self, job_id: str, fields: dict[str, Any], revision: int | None) -> None:
        expect = None if revision is None else Expect(revision=revision)
        after = self.jobs.update(job_id, expect=expect, **fields)
        self.model.jobs[job_id].modified_at = after.modified_at

    def set_state_in_store(self, job_id: str, state: str, labels: dict[str, str] | None) -> None:
        fields: dict[str, Any] = {} if labels is None else {"labels": labels}
        after = self.jobs.set_state(job_id, state, **fields)
        self.model.jobs[job_id].modified_at = after.modified_at

    def delete_in_store(self, job_id: str, revision: int | None) -> None:
        self.jobs.delete(job_id, expect=None if revision is None else Expect(revision=revision))

    def execute_in_store(self, job_id: str) -> None:
        self.executions.create(Execution(id=f"of {job_id}", job_id=job_id))

    # --- the model: changes it, or says which error is due ---

    def create_in_model(
        self, job_id: str, name: str, space: str, labels: dict[str, str], state: str
    ) -> type[Exception] | None:
        name = name or job_id
        if job_id in self.model.jobs or self.model.taken(name, space):
            return RecordExistsError
        known = Known(name, space, labels, state or "Pending", self.clock.time, self.clock.time)
        self.model.jobs[job_id] = known
        self.model.events.append(("job", job_id, "created", 1))
        return None

    def update_in_model(
        self, job_id: str, fields: dict[str, Any], revision: int | None
    ) -> type[Exception] | None:
        known = self.model.jobs.get(job_id)
        if known is None:
            return RecordNotFoundError
        if revision not in (None, known.revision) or known.state in JOB_STATES.terminal:
            return ConflictError
        name = fields.get("name", known.name)
        if self.model.taken(name, known.space, but=job_id):
            return RecordExistsError
        known.name, known.labels = name, fields.get("labels", known.labels)
        known.revision += 1
        known.versions += 1
        self.model.events.append(("job", job_id, "updated", known.revision))
        return None

    def set_state_in_model(
        self, job_id: str, state: str, labels: dict[str, str] | None
    ) -> type[Exception] | None:
        known = self.model.jobs.get(job_id)
        if known is None:
            return RecordNotFoundError
        if state not in JOB_STATES.transitions[known.state]:
            return ConflictError
        known.state = state
        known.labels = known.labels if labels is None else labels
        known.revision += 1
        known.versions += labels is not None
        self.model.events.append(("job", job_id, "state", known.revision))
        return None

    def delete_in_model(self, job_id: str, revision: int | None) -> type[Exception] | None:
        known = self.model.jobs.get(job_id)
        if known is None:
            return RecordNotFoundError
        if revision not in (None, known.revision):
            return ConflictError
        del self.model.jobs[job_id]
        self.model.events.append(("job", job_id, "deleted", known.revision))
        return None

    def execute_in_model(self, job_id: str) -> type[Exception] | None:
        if f"of {job_id}" in self.model.executions:
            return RecordExistsError
        self.model.executions[f"of {job_id}"] = job_id
        self.model.events.append(("execution", f"of {job_id}", "created", 1))
        return None

    # --- asking ---

    @rule(query=queries)
    def find(self, query: dict[str, Any]) -> None:
        """A query, page by page, finds what the model finds, in its order, and counts as many."""
        expected = [name for name, job in self.model.jobs.items() if _meets(job, query)]
        keys = {
            "id": lambda name: name,
            "created_at": lambda name: (self.model.jobs[name].created_at, name),
            "modified_at": lambda name: (self.model.jobs[name].modified_at, name),
        }
        order: Any = keys[query.get("sort", "created_at")]
        expected.sort(key=order, reverse=query["descending"])
        assert ids(self.jobs.each(**query)) == expected
        asked = {k: v for k, v in query.items() if k not in ("descending", "limit")}
        assert self.jobs.count(**asked) == len(expected)

    @rule()
    def reopen(self) -> None:
        """Closing and opening changes nothing; without persistence, nothing is left."""
        self.database.close()
        if not self.database.driver.traits.persistent:
            self.model = Model()
        self.open()

    @invariant()
    def records_and_counters_agree(self) -> None:
        found = {job.id: job for job in self.jobs.each()}
        assert found.keys() == self.model.jobs.keys()
        for name, known in self.model.jobs.items():
            job = found[name]
            assert (job.state, job.revision, job.version, job.labels, job.name) == (
                known.state,
                known.revision,
                known.versions,
                known.labels,
                known.name,
            )
        for state, counted in self.jobs.counts().items():
            assert counted == sum(job.state == state for job in self.model.jobs.values()), state
        assert self.executions.count() == len(self.model.executions)

    @invariant()
    def events_agree(self) -> None:
        told = [(e.store, e.record_id, e.kind, e.revision) for e in self.database.events()]
        assert told == self.model.events

    def teardown(self) -> None:
        try:
            assert_sound(self.database)
        finally:
            self.database.close()


def _meets(job: Known, query: dict[str, Any]) -> bool:
    spaces = query.get("namespace", SPACES)
    return (
        job.state in query.get("state", JOB_STATES.states)
        and job.space in ([spaces] if isinstance(spaces, str) else spaces)
        and all(part.is_met_by(job.labels) for part in parse_selector(query.get("labels", "")))
    )


class StoreMachineTests(StoreTests):
    """Whatever is done, in whatever order."""

    def test_random_changes(self, harness: BackendHarness) -> None:
        """Thousands of random changes, alone and in blocks within blocks, some left by exceptions,
        found both ways by random queries, over reopening, leave what plain dicts say; counters
        equal the records after every step.
        """
        run_randomly(StoreMachine, harness, EXAMPLES, STEPS)
