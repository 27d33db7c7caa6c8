"""Writes of many threads: they share commits, and nobody notices but by the speed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from storebridge.errors import ConflictError, RecordExistsError, StoreLockedError
from storebridge.events import Event
from storebridge.expect import Expect
from storebridge.jobs import Job, JobStore
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import StoreTests, assert_sound, open_at

THREADS = 8


class Broken(Exception):
    """What a write raises that nobody foresaw."""


def run_threads(work: Callable[[int], None], count: int = THREADS) -> None:
    """Run `work(number)` in threads to their end; what one of them raises is raised here."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class SharingTests(StoreTests):
    """Concurrent writes of threads."""

    def test_each_change_once(self, harness: BackendHarness) -> None:
        """Nothing is lost, done twice or out of order, and every event has a number of its own."""
        with open_at(harness) as database:
            jobs = JobStore(database)

            def work(number: int) -> None:
                for step in range(25):
                    job = jobs.create(Job(id=f"j-{number}-{step}"))
                    assert jobs.set_state(job.id, "Running").revision == 2

            run_threads(work)
            assert jobs.counts()["Running"] == jobs.count() == THREADS * 25
            events = list(database.events())
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert set(_by_record(events).values()) == {("created", "state")}
            assert_sound(database)

    def test_they_share_commits(self, harness: BackendHarness) -> None:
        """Who waits while another one writes is taken along into one transaction."""
        with open_at(harness) as database:
            jobs = JobStore(database)
            jobs.create(Job(id="first"))
            line = database._turn.line
            before = database.statistics.transactions
            threads = [
                threading.Thread(target=jobs.create, args=(Job(id=f"j-{number}"),))
                for number in range(THREADS)
            ]
            with database.transaction():
                for thread in threads:
                    thread.start()
                while len(line) < THREADS:
                    time.sleep(0.001)
            for thread in threads:
                thread.join()
            assert jobs.count() == THREADS + 1
            assert database.statistics.transactions - before <= 3

    def test_who_is_alone_waits_for_nobody(self, harness: BackendHarness) -> None:
        """Each of its changes is a commit of its own: nobody is collected for."""
        with open_at(harness) as database:
            jobs = JobStore(database)
            before = database.statistics.transactions
            for _ in range(20):
                jobs.create(Job())
            assert database.statistics.transactions == before + 20

    def test_one_that_fails_is_undone_alone(self, harness: BackendHarness) -> None:
        """Its neighbours in the same transaction are as if it had not been."""
        with open_at(harness) as database:
            jobs = JobStore(database)
            jobs.create(Job(id="taken"))
            refused: list[str] = []

            def work(number: int) -> None:
                for step in range(20):
                    jobs.create(Job(id=f"j-{number}-{step}"))
                    try:
                        jobs.create(Job(id="taken"))
                    except RecordExistsError:
                        refused.append("exists")
                    try:
                        jobs.set_state("taken", "Running", expect=Expect(revision=99))
                    except ConflictError:
                        refused.append("conflict")

            run_threads(work)
            assert jobs.count() == THREADS * 20 + 1
            assert Counter(refused) == {"exists": THREADS * 20, "conflict": THREADS * 20}
            assert jobs.get("taken").revision == 1
            assert database.sequence() == THREADS * 20 + 1

    def test_of_rivals_one_wins(self, harness: BackendHarness) -> None:
        """Expectations hold against what neighbours in the same transaction have done."""
        with open_at(harness) as database:
            jobs = JobStore(database)
            ids = [jobs.create(Job()).id for _ in range(20)]
            won: Counter[str] = Counter()

            def work(number: int) -> None:
                for job_id in ids:
                    try:
                        jobs.set_state(job_id, "Running", expect=Expect(states=["Pending"]))
                        won[job_id] += 1
                    except ConflictError:
                        pass

            run_threads(work)
            assert won == dict.fromkeys(ids, 1)

    def test_one_that_breaks_down_takes_nobody_along(self, harness: BackendHarness) -> None:
        """An exception that nobody foresaw reaches its caller alone; the others are done again."""
        with open_at(harness) as database:
            jobs = JobStore(database)
            broke: Counter[int] = Counter()

            def break_down(unit: Any, number: int) -> None:
                jobs._write.create(unit, Job(id=f"lost-{number}"))
                raise Broken(number)

            def work(number: int) -> None:
                for step in range(10):
                    jobs.create(Job(id=f"j-{number}-{step}"))
                    if number % 4 == 0:
                        with pytest.raises(Broken, match=str(number)):
                            database.write(break_down, number)
                        broke[number] += 1

            run_threads(work)
            assert jobs.count() == THREADS * 10
            assert not list(jobs.find(prefix="lost-"))
            assert set(broke.values()) == {10}

    def test_blocks_and_single_writes(self, harness: BackendHarness) -> None:
        """A thread's transaction is its own, whoever waits meanwhile."""
        with open_at(harness) as database:
            jobs = JobStore(database)
            jobs.create(Job(id="a", meta={"n": "0"}))
            chance = random.Random(3)

            def work(number: int) -> None:
                for _ in range(15):
                    if chance.random() < 0.5:
                        with database.transaction():
                            n = int(jobs.get("a").meta["n"])
                            jobs.update("a", meta={"n": str(n + 1)})
                    else:
                        jobs.create(Job())

            run_threads(work)
            created = jobs.count() - 1
            assert int(jobs.get("a").meta["n"]) == THREADS * 15 - created

    def test_who_waits_too_long_gives_up(self, harness: BackendHarness) -> None:
        """After `lock_timeout` the write is refused and will not be done later."""
        with open_at(harness, lock_timeout=0.2) as database:
            jobs = JobStore(database)
            jobs.create(Job())

            def work(_: int) -> None:
                with pytest.raises(StoreLockedError, match="another thread"):
                    jobs.create(Job(id="late"))

            with database.transaction():
                run_threads(work)
            assert not list(jobs.find(prefix="late"))
            jobs.create(Job(id="late"))


def _by_record(events: list[Event]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for event in events:
        found[event.record_id] = (*found.get(event.record_id, ()), event.kind)
    return found
