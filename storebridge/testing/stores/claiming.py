"""Claims: several workers share the jobs of a store."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from storebridge import (
    ConfigurationError,
    ConflictError,
    Database,
    Expect,
    InvalidQueryError,
    InvalidRecordError,
    Job,
    JobStore,
    Owner,
    this_process,
)
from storebridge.canonical import MAX_INTEGER, MIN_INTEGER
from storebridge.jobs import JOB, JobType
from storebridge.testing.harness import BackendHarness, attack
from storebridge.testing.stores.base import (
    START,
    Calls,
    StoreTests,
    Ticks,
    assert_sound,
    contents,
    edit_body,
    ids,
    open_at,
)
from storebridge.testing.stores.finding import Steps
from storebridge.testing.stores.holders import ELSEWHERE, LEASE, NODE, ended, holder, process

PRIORITIES = (MIN_INTEGER, MIN_INTEGER + 1, -7, -1, 0, 1, 5, MAX_INTEGER - 1, MAX_INTEGER)


def fill(jobs: JobStore, count: int) -> list[Job]:
    """Jobs of mixed priorities, several created at one time; in the order of claims."""
    jobs._write._clock = Steps()
    chance = random.Random("claims")
    kinds: tuple[JobType, ...] = ("batch", "ops", "service")
    with jobs.database.transaction():
        made = [
            jobs.create(
                Job(
                    id=f"{n * 7919 % 1000:03}",
                    priority=chance.choice(PRIORITIES),
                    type=chance.choice(kinds),
                    namespace=chance.choice(("default", "other")),
                )
            )
            for n in range(count)
        ]
    return sorted(made, key=lambda job: (-job.priority, job.created_at, job.id))


class ClaimTests(StoreTests):
    """`claim`, `release`, `recover` of jobs."""

    @pytest.mark.parametrize("limit", [1, 4, 7, 1000])
    def test_order_of_claims(self, jobs: JobStore, limit: int) -> None:
        """The highest priority comes first, then the oldest, then the least id; each waiting job
        once, in claims of any size, and none that does not wait.
        """
        expected = ids(fill(jobs, 40))
        for taken in (3, 20):
            jobs.set_state(expected.pop(taken), "Running")
        claimed: list[str] = []
        while part := jobs.claim(limit, owner=this_process()):
            assert len(part) == min(limit, len(expected) - len(claimed))
            claimed += ids(part)
        assert claimed == expected
        assert_sound(jobs.database)

    def test_what_a_claim_changes(self, database: Database, jobs: JobStore) -> None:
        """A claimed job is Queued, with its owner and lease, by a change like any other; it makes
        no version, as what was asked for is the same.
        """
        jobs.create(Job(id="1", labels={"a": "b"}))
        me = this_process(NODE)
        (job,) = jobs.claim(5, owner=me, lease=LEASE)
        assert job == jobs.get("1")
        assert (job.state, job.owner, job.revision, job.version) == ("Queued", me, 2, 1)
        assert job.lease_until is not None
        assert timedelta(0) < job.lease_until - job.created_at < 2 * LEASE
        assert (jobs.versions("1"), ids(jobs.find(labels="a=b"))) == ([], ["1"])
        assert [(e.kind, e.state) for e in jobs.history("1")] == [
            ("created", "Pending"),
            ("state", "Queued"),
        ]
        assert jobs.claim(owner=me) == []
        assert jobs.update("1", priority=3).version == 2
        assert [old.owner for old in jobs.versions("1")] == [me]
        assert_sound(database)

    def test_claims_into_another_state(self, jobs: JobStore) -> None:
        """A service may claim into a state of its choice."""
        jobs.create(Job(id="1"))
        assert jobs.claim(owner=this_process(), state="Running")[0].state == "Running"

    def test_claims_of_some(self, jobs: JobStore) -> None:
        """Only jobs of a type or a namespace, or of one of several, are claimed, in the same
        order; the others still wait.
        """
        filled = fill(jobs, 300)
        queries: list[dict[str, Any]] = [
            {"type": "service", "namespace": ["other"]},
            {"type": ("batch", "ops"), "namespace": "other"},
            {"namespace": ["default", "nowhere"]},
        ]
        for query in queries:
            wanted = [job for job in filled if _meets(job, query)]
            claimed = jobs.claim(500, owner=this_process(), **query)
            assert ids(claimed) == ids(wanted)
            assert wanted
            filled = [job for job in filled if not _meets(job, query)]
            assert jobs.count(state="Pending") == len(filled)

    def test_claims_after_a_changed_priority(self, jobs: JobStore) -> None:
        """A job whose priority is changed while it waits is claimed in its new place."""
        for number in range(4):
            jobs.create(Job(id=str(number), priority=number))
        jobs.update("0", priority=9)
        jobs.update("3", priority=-9)
        assert ids(jobs.claim(9, owner=this_process())) == ["0", "2", "1", "3"]
        assert_sound(jobs.database)

    def test_claims_in_a_transaction(self, database: Database, jobs: JobStore) -> None:
        """A claim is part of the transaction around it, and undone with it."""
        fill(jobs, 10)
        before = contents(database)
        with pytest.raises(ZeroDivisionError), database.transaction():
            first = jobs.claim(4, owner=this_process())
            second = jobs.claim(4, owner=this_process())
            assert len({*ids(first), *ids(second)}) == 8
            raise ZeroDivisionError
        assert contents(database) == before

    def test_claims_read_little(self, database: Database, jobs: JobStore) -> None:
        """A claim reads about as many records as it returns, and one more for each priority, of
        however many wait.
        """
        fill(jobs, 600)
        driver = database.driver
        counting: Any = CountingDriver(driver)
        database.driver = counting
        try:
            for limit in (1, 10, 100):
                counting.rows = 0
                assert len(jobs.claim(limit, owner=this_process())) == limit
                assert counting.rows <= 2 * limit + 2 * len(PRIORITIES)
        finally:
            database.driver = driver

    def test_jobs_that_cannot_be_claimed(self, jobs: JobStore) -> None:
        """A job that cannot be read, and one that a newer version wrote, are passed over; they do
        not keep the others from being claimed.
        """
        for number in range(4):
            jobs.create(Job(id=str(number), priority=number))
        edit_body(jobs, "3", lambda _: b"{")
        edit_body(jobs, "2", lambda body: body.replace(b'{"v":2', b'{"v":3'))
        assert ids(jobs.claim(1, owner=this_process())) == ["1"]
        assert ids(jobs.claim(1, owner=this_process(), type="batch")) == ["0"]
        assert jobs.claim(1, owner=this_process(), type="batch") == []
        assert b'{"v":3' in (jobs.database.get("job", ("2",)) or b"")

    def test_a_priority_edited_by_hand(self, jobs: JobStore) -> None:
        """Bodies that say another priority than the index does are claimed once each."""
        for number in range(6):
            jobs.create(Job(id=str(number), priority=number % 3))
        for number in range(6):
            said, other = b'"priority":%d' % (number % 3), b'"priority":%d' % (5 - number)
            edit_body(jobs, str(number), _replacing(said, other))
        claimed = ids(jobs.claim(9, owner=this_process()))
        assert sorted(claimed) == ["0", "1", "2", "3", "4", "5"]

    def test_released_claims(self, jobs: JobStore) -> None:
        """A released job waits again, held by nobody; one that another has claimed since is not
        the former claimer's to release, to hold or to start.
        """
        me = this_process(NODE)
        jobs.create(Job(id="1"))
        jobs.claim(owner=me, lease=LEASE)
        job = jobs.release("1", message="no room", expect=Expect(owner=me))
        assert (job.state, job.owner, job.lease_until) == ("Pending", None, None)
        assert (job.message, job.version) == ("no room", 1)
        with pytest.raises(ConflictError, match="cannot become Pending"):
            jobs.release("1")
        jobs.claim(owner=ELSEWHERE)
        late: Calls = (
            lambda: jobs.release("1", expect=Expect(owner=me)),
            lambda: jobs.heartbeat("1", me, LEASE),
            lambda: jobs.set_state("1", "Running", expect=Expect(owner=me)),
        )
        for call in late:
            with pytest.raises(ConflictError, match="not by process") as caught:
                call()
            assert caught.value.found.owner == ELSEWHERE

    def test_claims_of_the_dead(self, database: Database, jobs: JobStore) -> None:
        """Claims of a killed process come back; those of a living one, those of another node that
        are under a lease or have none, jobs that run, and those that nobody has claimed, stay.
        """
        with process() as (living, _):
            claims: list[dict[str, Any]] = [
                {"owner": ended()},
                {"owner": living, "lease": LEASE},
                {"owner": ELSEWHERE, "lease": LEASE},
                {"owner": ELSEWHERE},
                {"owner": ended(), "state": "Running"},
            ]
            for number, made in enumerate(claims):
                jobs.create(Job(id=str(number)))
                assert len(jobs.claim(**made)) == 1
            jobs.create(Job(id="by hand", state="Queued"))
            before = contents(database)
            assert ids(jobs.recover(node_id=NODE, dry_run=True)) == ["0"]
            assert contents(database) == before
            (job,) = jobs.recover(node_id=NODE)
            assert (job.id, job.state, job.owner) == ("0", "Pending", None)
            assert job.message.startswith("owner is gone: process ")
            assert jobs.recover(node_id=NODE) == []
            database.clock = Ticks(start=START + 2 * LEASE)
            assert ids(jobs.recover(node_id=NODE)) == ["2"]
        assert ids(jobs.recover(node_id=NODE)) == ["1"]
        assert_sound(database)

    def test_what_cannot_be_claimed(self, jobs: JobStore) -> None:
        """What cannot be asked of a claim is refused, and says what can."""
        jobs.create(Job(id="1"))
        me = this_process()
        queries: list[dict[str, Any]] = [
            {"limit": 0},
            {"limit": True},
            {"limit": 10_001},
            {"state": "Pending"},
            {"state": "Failed"},
            {"state": "Nonsense"},
            {"type": []},
            {"colour": "red"},
        ]
        for query in queries:
            with pytest.raises(InvalidQueryError) as caught:
                jobs.claim(**({"owner": me} | query))
            assert "\n" not in str(caught.value)
        values: list[dict[str, Any]] = [{"owner": None}, {"owner": "me"}, {"owner": me, "lease": 5}]
        for value in values:
            with pytest.raises(InvalidRecordError):
                jobs.claim(**value)
        assert jobs.get("1").revision == 1
        plain = JobStore(jobs.database, replace(JOB, name="task", queue=None))
        with pytest.raises(ConfigurationError, match="no queue"):
            plain.claim(owner=me)

    def test_workers_at_once(self, harness: BackendHarness) -> None:
        """Workers at once, one of which is killed: each job is claimed by one, and what the killed
        one had claimed comes back and is claimed again.
        """
        share_jobs(harness, count=300 * attack(), workers=3, killed=1)


def share_jobs(harness: BackendHarness, count: int, workers: int, killed: int) -> None:
    """Have so many workers claim so many jobs, and kill some of them."""
    with open_at(harness, lock_timeout=60.0) as database:
        jobs = JobStore(database)
        with database.transaction():
            made = {jobs.create(Job(id=f"{n:04}", priority=n % 5)).id for n in range(count)}
        many = harness.traits.processes == "many"
        share = _by_processes(harness, workers, killed) if many else _by_threads(jobs, workers)
        with share as (kept, lost):
            released = ids(jobs.recover(node_id=NODE))
        assert Counter([*kept, *released]) == Counter(made)
        assert set(lost) <= set(released)
        assert sorted(ids(jobs.claim(count, owner=this_process(NODE)))) == sorted(released)
        for job_id in made:
            claims = [event for event in jobs.history(job_id) if event.state == "Queued"]
            assert len(claims) == 1 + (job_id in released)
        assert_sound(database)


@contextmanager
def _by_processes(
    harness: BackendHarness, count: int, killed: int
) -> Iterator[tuple[list[str], list[str]]]:
    """What those that live, for as long as the block lasts, have claimed, and what the killed have
    said that they had."""
    with ExitStack() as stack:
        workers = [stack.enter_context(holder(harness, "claim", limit=7)) for _ in range(count)]
        for worker in workers:
            assert worker.hear() == "ready"
        for worker in workers:
            worker.go()
        lost: list[str] = []
        for worker in workers[:killed]:
            said = [worker.hear(), worker.hear(), *worker.kill()]
            lost += [job_id for part in said for job_id in part]
        kept: list[str] = []
        for worker in workers[killed:]:
            while part := worker.hear():
                kept += part
        yield kept, lost


@contextmanager
def _by_threads(jobs: JobStore, count: int) -> Iterator[tuple[list[str], list[str]]]:
    """In one process nobody can be killed; the first thread claims in the name of a process that
    was."""
    owners = [ended(), *[this_process(NODE)] * (count - 1)]
    claimed: dict[Owner, list[str]] = {owner: [] for owner in owners}

    def claim(owner: Owner) -> None:
        while part := jobs.claim(7, owner=owner):
            claimed[owner] += ids(part)

    threads = [threading.Thread(target=claim, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = claimed.pop(owners[0])
    yield [job_id for part in claimed.values() for job_id in part], lost


def _replacing(said: bytes, other: bytes) -> Callable[[bytes], bytes]:
    return lambda body: body.replace(said, other)


def _meets(job: Job, query: dict[str, Any]) -> bool:
    return all(
        getattr(job, name) in ([wanted] if isinstance(wanted, str) else wanted)
        for name, wanted in query.items()
    )


class CountingDriver:
    """Counts the rows that are read through a driver."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def begin(self, *args: Any) -> Any:
        return CountingTransaction(self, self._driver.begin(*args))


class CountingTransaction:
    """Counts the rows that are read in a transaction."""

    def __init__(self, driver: CountingDriver, transaction: Any) -> None:
        self._driver = driver
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def get(self, *args: Any) -> Any:
        self._driver.rows += 1
        return self._transaction.get(*args)

    def scan(self, *args: Any) -> Any:
        rows, position = self._transaction.scan(*args)
        self._driver.rows += len(rows)
        return rows, position
