"""Three months of a parallel computer, job for job, through both stores on every backend: whatever
the stores then say must be what the trace's own file says, counted by code of its own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain

import pytest

from storebridge import Event, Execution, Job, RecordStore
from storebridge.check import check
from storebridge.owner import this_process
from tests.real.data import real_data
from tests.real.replay import HOUR, Replay
from tests.real.trace import Trace, TraceJob, read_trace

BACKENDS = (
    "memory",
    "sqlite",
    "lmdb",
    *(pytest.param(name, marks=pytest.mark.attack) for name in ("bolt", "tinydb")),
)
"""The last two take as long as the others together."""
WEEK = 7 * 24 * HOUR
JOBS = 18_239
STEPS_OF_A_JOB = ["created", "Running", "Completed"]


class Moment:
    """What both stores said in the middle of the replay, at the end of an hour."""

    def __init__(self, hour: int, replay: Replay, trace: Trace) -> None:
        self.last_second = hour * HOUR + HOUR - 1
        self.counts = replay.jobs.counts()
        self.counted = {
            state: replay.jobs.count(state=state, created_from=trace.began)
            for state in ("Pending", "Running", "Completed")
        }
        self.live = [job.id for job in replay.jobs.live()]
        self.executions = [execution.job_id for execution in replay.executions.live()]


class Replayed:
    """A replay that has come to its end, and the moments noted on the way."""

    def __init__(self, replay: Replay, moments: list[Moment]) -> None:
        self.replay = replay
        self.moments = moments
        self.database = replay.database
        self.jobs = replay.jobs
        self.executions = replay.executions


@pytest.fixture(scope="module")
def trace() -> Trace:
    return read_trace(real_data("jobs", "NASA-iPSC-1993-3.1-cln.swf.gz"))


@pytest.fixture(scope="module", params=BACKENDS)
def replayed(
    request: pytest.FixtureRequest, trace: Trace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replayed]:
    """The whole trace in a database, which was closed and opened again where it outlives that."""
    place = tmp_path_factory.mktemp("trace") / "ipsc"
    replay = Replay(f"{request.param}://{place}?durability=off", trace)
    moments, next_look = [], WEEK
    for hour in replay.run(trace.steps()):
        if hour * HOUR >= next_look:
            moments.append(Moment(hour, replay, trace))
            next_look += WEEK
    if replay.database.driver.traits.persistent:
        replay.database.close()
        replay.open()
    yield Replayed(replay, moments)
    replay.database.close()


def pages(
    store: RecordStore[Job] | RecordStore[Execution], limit: int, **query: object
) -> list[list[str]]:
    """The ids of a query, page by page."""
    found, cursor = [], None
    while True:
        page = store.find(limit=limit, cursor=cursor, **query)  # type: ignore[arg-type]
        assert page.quarantined == []
        found.append([record.id for record in page])
        cursor = page.cursor
        if cursor is None:
            return found


def found(
    store: RecordStore[Job] | RecordStore[Execution], limit: int, **query: object
) -> list[str]:
    """The ids of a query."""
    return list(chain.from_iterable(pages(store, limit, **query)))


def ids(jobs: list[TraceJob]) -> list[str]:
    return [job.id for job in jobs]


def test_trace_is_whole(trace: Trace) -> None:
    """The figures that all others rest on are those of the archive."""
    assert len(trace.jobs) == JOBS
    assert trace.began.isoformat() == "1993-10-01T07:00:03+00:00"
    assert len({job.user for job in trace.jobs}) == 69


def test_counts_week_by_week(replayed: Replayed, trace: Trace) -> None:
    """At the end of each week, in the middle of the replay, counters, index and list say of each
    state what the trace says.
    """
    assert len(replayed.moments) == 13
    assert any(moment.live for moment in replayed.moments)
    for moment in replayed.moments:
        expected = trace.states_at(moment.last_second)
        sizes = {state: len(found) for state, found in expected.items()}
        assert {state: n for state, n in moment.counts.items() if n or state in sizes} == sizes
        assert moment.counted == sizes
        assert moment.live == expected["Running"]
        assert moment.executions == expected["Running"]


def test_counts_at_the_end(replayed: Replayed) -> None:
    """Every job of the log ended."""
    for store in (replayed.jobs, replayed.executions):
        counts = store.counts()
        assert counts.pop("Completed") == store.count() == JOBS
        assert set(counts.values()) == {0}
        assert list(store.live()) == []


@pytest.mark.parametrize("limit", [997, 10_000])
def test_order_of_creation(replayed: Replayed, trace: Trace, limit: int) -> None:
    """By creation the jobs stand in the trace's own order, page after page, both ways."""
    expected = ids(trace.by_submission())
    there = pages(replayed.jobs, limit)
    assert [len(page) for page in there[:-1]] == [limit] * (JOBS // limit)
    assert list(chain.from_iterable(there)) == expected
    assert found(replayed.jobs, limit, descending=True) == expected[::-1]


def test_order_of_other_sorts(replayed: Replayed, trace: Trace) -> None:
    """The last change of a job is its end, and ids are in order of their text."""
    by_end = ids(trace.by_end())
    assert found(replayed.jobs, 5000, sort="modified_at") == by_end
    assert found(replayed.jobs, 5000, sort="modified_at", descending=True) == by_end[::-1]
    assert found(replayed.jobs, 5000, sort="id") == sorted(by_end)


def test_executions_stand_in_order_of_start(replayed: Replayed, trace: Trace) -> None:
    expected = sorted(trace.jobs, key=lambda job: (job.start, job.attempt))
    assert found(replayed.executions, 4000) == [job.attempt for job in expected]


def test_times_of_every_job(replayed: Replayed, trace: Trace) -> None:
    """Each record's times are the trace's."""
    jobs = {job.id: job for job in replayed.jobs.each(limit=5000)}
    for expected in trace.jobs:
        job = jobs[expected.id]
        assert job.created_at == trace.time(expected.submit)
        assert job.modified_at == trace.time(expected.end)
        assert (job.state, job.revision, job.labels) == ("Completed", 3, expected.labels)


def test_weeks(replayed: Replayed, trace: Trace) -> None:
    """What was created in each week, found and counted by bounds of time; upper bounds exclude."""
    starts = range(0, trace.jobs[-1].submit, WEEK)
    for start in starts:
        bounds = {
            "created_from": trace.time(start),
            "created_until": trace.time(start + WEEK),
        }
        expected = [job.id for job in trace.by_submission() if start <= job.submit < start + WEEK]
        assert found(replayed.jobs, 1000, **bounds) == expected
        assert replayed.jobs.count(**bounds) == len(expected)


def test_users(replayed: Replayed, trace: Trace) -> None:
    """Each user's jobs and executions, by namespace."""
    for user, count in Counter(job.user for job in trace.jobs).items():
        expected = [job for job in trace.by_submission() if job.user == user]
        namespace = expected[0].namespace
        assert replayed.jobs.count(namespace=namespace) == count
        assert replayed.executions.count(namespace=namespace) == count
        assert found(replayed.jobs, 500, namespace=namespace) == ids(expected)


def test_executions_by_node_and_job(replayed: Replayed, trace: Trace) -> None:
    sizes = Counter(job.processors for job in trace.jobs)
    for processors, count in sizes.items():
        assert replayed.executions.count(node_id=f"cube-{processors}") == count
    for job in random.Random(1993).sample(trace.jobs, 50):
        (execution,) = replayed.executions.find(job_id=job.id)
        assert execution.id == job.attempt


Test = Callable[[TraceJob], bool]
SELECTORS: dict[str, Test] = {
    "group=2": lambda job: job.group == 2,
    "group!=2": lambda job: job.group != 2,
    "processors in (64, 128)": lambda job: job.processors in (64, 128),
    "processors notin (1, 2, 4)": lambda job: job.processors not in (1, 2, 4),
    "app": lambda job: job.application >= 0,
    "!app": lambda job: job.application < 0,
    "app=2,processors!=32": lambda job: job.application == 2 and job.processors != 32,
    "processors=128,group in (1, 2),!app": lambda job: (
        job.processors == 128 and job.application < 0
    ),
    "app=none-such": lambda job: False,
}


@pytest.mark.parametrize("selector", SELECTORS)
def test_labels(replayed: Replayed, trace: Trace, selector: str) -> None:
    """Label selectors find, in the trace's order both ways, what the trace's own fields say."""
    expected = [job.id for job in trace.by_submission() if SELECTORS[selector](job)]
    assert found(replayed.jobs, 1500, labels=selector) == expected
    backwards = found(replayed.jobs, 1500, labels=selector, descending=True)
    assert backwards == expected[::-1]
    assert replayed.jobs.count(labels=selector) == len(expected)


def test_filters_together(replayed: Replayed, trace: Trace) -> None:
    """A user's jobs of one size within a month."""
    user = Counter(job.user for job in trace.jobs).most_common(1)[0][0]
    until = 30 * 24 * HOUR
    query = {"labels": "processors in (8, 32)", "created_until": trace.time(until)}
    expected = [
        job.id
        for job in trace.by_submission()
        if job.user == user and job.processors in (8, 32) and job.submit < until
    ]
    assert expected
    assert found(replayed.jobs, 100, namespace=f"user-{user}", **query) == expected


def steps(events: list[Event]) -> list[str | None]:
    return [event.kind if event.kind == "created" else event.state for event in events]


def test_history_of_random_jobs(replayed: Replayed, trace: Trace) -> None:
    """What happened to a job and its execution, and when, is what the trace says."""
    for job in random.Random(860).sample(trace.jobs, 300):
        history = replayed.jobs.history(job.id)
        assert steps(history) == STEPS_OF_A_JOB
        expected = [trace.time(at) for at in (job.submit, job.start, job.end)]
        assert [event.at for event in history] == expected
        assert [event.previous_state for event in history] == [None, "Pending", "Running"]
        attempt = replayed.executions.history(job.attempt)
        assert steps(attempt) == STEPS_OF_A_JOB
        assert [event.at for event in attempt] == [expected[1], expected[1], expected[2]]


def test_events_of_everything(replayed: Replayed, trace: Trace) -> None:
    """Sequence numbers only grow, without a gap as nothing was ever rolled back; in their order
    stands the trace, step by step.
    """
    events = list(replayed.database.events())
    assert [event.sequence for event in events] == list(range(1, 6 * JOBS + 1))
    assert replayed.database.sequence() == events[-1].sequence
    of_jobs = [(event.at, event.record_id) for event in events if event.store == "job"]
    assert of_jobs == [(trace.time(step.at), step.job.id) for step in trace.steps()]
    assert sum(event.store == "execution" for event in events) == 3 * JOBS


def test_nothing_to_mend(replayed: Replayed) -> None:
    """Engine, bodies, columns, indexes, labels and counters agree."""
    assert list(check(replayed.database)) == []
    assert this_process() not in replayed.database.stopped_uncleanly
