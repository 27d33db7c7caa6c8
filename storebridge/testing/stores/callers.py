"""Many callers at once: tasks of an event loop and threads, on the same records, some cancelled and
some broken down, and a judge who has written down what each was told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NoReturn

from storebridge import aio
from storebridge.database import Database
from storebridge.errors import ConflictError
from storebridge.events import Event
from storebridge.expect import Expect
from storebridge.jobs import Job, JobStore
from storebridge.location import Location
from storebridge.testing.harness import BackendHarness, attack
from storebridge.testing.stores.base import StoreTests, assert_sound, open_at, store_location
from storebridge.testing.stores.workers import store_worker

TASKS = 64
THREADS = 16
RECORDS = [f"r{number}" for number in range(6)]


class Broken(Exception):
    """What a caller's own code raises in the middle of it all."""


@dataclass
class Told:
    """What a caller was told of a record: its revision, as written or as read, at some moment
    between `begun` and `ended`."""

    record_id: str
    token: str
    """By whom; what was read is not by anybody."""
    revision: int
    begun: float
    ended: float

    @property
    def place(self) -> int:
        """Among all that happened to the record: a revision is read after it was written."""
        return 2 * self.revision + (not self.token)


@dataclass
class History:
    """What was told, and by whom what was tried; `list.append` needs no lock."""

    told: list[Told] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Must have left no trace."""
    unknown: list[str] = field(default_factory=list)
    """Cancelled: done once, or not."""
    pairs: list[str] = field(default_factory=list)
    """Changes of two records at once."""

    @contextlib.contextmanager
    def judged(self, token: str, *record_ids: str, on: int | None = None) -> Iterator[list[Job]]:
        """Note down what becomes of a change, which may expect to come on top of a revision: the
        block puts in the list what it was answered."""
        begun = perf_counter()
        answer: list[Job] = []
        try:
            yield answer
        except ConflictError as error:
            self.failed.append(token)
            found: Job = error.found
            assert found.revision != on
            self._note(found, "", begun)
        except Broken:
            self.failed.append(token)
        except (TimeoutError, asyncio.CancelledError):
            self.unknown.append(token)
        else:
            assert [job.id for job in answer] == list(record_ids)
            assert on is None or answer[0].revision == on + 1, "an update was lost"
            for job in answer:
                self._note(job, token, begun)

    def note_read(self, job: Job, begun: float) -> None:
        self._note(job, "", begun)

    def _note(self, job: Job, token: str, begun: float) -> None:
        self.told.append(Told(job.id, token, job.revision, begun, perf_counter()))


class Caller:
    """One who calls: what it does next is up to chance."""

    def __init__(self, name: str, chance: random.Random, history: History) -> None:
        self.name = name
        self.chance = chance
        self.history = history
        self._made = 0

    def token(self) -> dict[str, Any]:
        """A change that tells whose it is."""
        self._made += 1
        return {"meta": {"by": f"{self.name}-{self._made}"}}


def by(changes: dict[str, Any]) -> str:
    """Whose a change is."""
    token: str = changes["meta"]["by"]
    return token


def call_as_thread(caller: Caller, jobs: JobStore) -> None:
    """One call: a read, a change, one with an expectation, two at once, or one that breaks down."""
    chance, history = caller.chance, caller.history
    one, two = chance.sample(RECORDS, 2)
    changes, kind = caller.token(), chance.random()
    if kind < 0.2:
        begun = perf_counter()
        history.note_read(jobs.get(one), begun)
    elif kind < 0.5:
        with history.judged(by(changes), one) as answer:
            answer.append(jobs.update(one, **changes))
    elif kind < 0.7:
        begun = perf_counter()
        found = jobs.get(one)
        history.note_read(found, begun)
        with history.judged(by(changes), one, on=found.revision) as answer:
            expect = Expect(revision=found.revision)
            answer.append(jobs.update(one, expect=expect, **changes))
    elif kind < 0.8:
        with history.judged(by(changes)):
            jobs.database.write(break_down, jobs, one, changes)
    else:
        with history.judged(by(changes), one, two) as answer:
            answer += change_two(jobs, one, two, changes, chance.random() < 0.3)
            history.pairs.append(by(changes))


def change_two(
    jobs: JobStore, one: str, two: str, changes: dict[str, Any], breaks: bool
) -> list[Job]:
    """Both or none."""
    with jobs.database.transaction():
        answer = [jobs.update(one, **changes), jobs.update(two, **changes)]
        if breaks:
            raise Broken
        return answer


def break_down(unit: Any, jobs: JobStore, record_id: str, changes: dict[str, Any]) -> NoReturn:
    """Out of the middle of a change: nobody can tell what it has done."""
    jobs._write.update(unit, record_id, None, changes)
    raise Broken


async def call_as_task(caller: Caller, jobs: aio.JobStore) -> None:
    """The same, awaited, and cancelled now and then."""
    chance, history = caller.chance, caller.history
    one, two = chance.sample(RECORDS, 2)
    changes, kind = caller.token(), chance.random()
    if kind < 0.2:
        begun = perf_counter()
        history.note_read(await jobs.get(one), begun)
    elif kind < 0.4:
        with history.judged(by(changes), one) as answer:
            answer.append(await jobs.update(one, **changes))
    elif kind < 0.6:
        begun = perf_counter()
        found = await jobs.get(one)
        history.note_read(found, begun)
        with history.judged(by(changes), one, on=found.revision) as answer:
            expect = Expect(revision=found.revision)
            answer.append(await jobs.update(one, expect=expect, **changes))
    elif kind < 0.7:
        with history.judged(by(changes)):
            await jobs.database.write(jobs.sync.database.write, break_down, jobs.sync, one, changes)
    elif kind < 0.85:
        with history.judged(by(changes), one) as answer:
            patience = chance.choice((0.0, 0.0005, 0.005, 0.05))
            answer.append(await asyncio.wait_for(jobs.update(one, **changes), patience))
    else:
        with history.judged(by(changes), one, two) as answer:
            breaks = chance.random() < 0.3
            answer += await jobs.database.run(change_two, jobs.sync, one, two, changes, breaks)
            history.pairs.append(by(changes))


def storm(harness: BackendHarness, rounds: int, seed: str, target: str | None = None) -> None:
    """Let 64 tasks and 16 threads call, each so many times, and judge what they were told."""
    print(f"again with STOREBRIDGE_SEED={seed}")  # noqa: T201 - shown with a failure
    location = store_location(harness, target, lock_timeout=60.0)
    asyncio.run(_storm(location, rounds, seed))


async def _storm(location: Location, rounds: int, seed: str) -> None:
    history = History()
    async with await aio.open_database(location) as database:
        jobs = aio.JobStore(database, JobStore(database.sync))
        for record_id in RECORDS:
            await jobs.create(Job(id=record_id, meta={"by": "made"}))
        watched: list[int] = []
        watching = asyncio.create_task(_watch(jobs, watched))

        def thread(number: int) -> None:
            caller = Caller(f"thread{number}", random.Random(f"{seed} {number}"), history)
            for _ in range(rounds):
                call_as_thread(caller, jobs.sync)

        async def task(number: int) -> None:
            caller = Caller(f"task{number}", random.Random(f"{seed} -{number}"), history)
            for _ in range(rounds):
                await call_as_task(caller, jobs)

        await asyncio.wait_for(
            asyncio.gather(
                *(_in_thread(thread, number) for number in range(THREADS)),
                *(task(number) for number in range(TASKS)),
            ),
            timeout=300,
        )
        last = await jobs.create(Job(id="last"))
        await asyncio.wait_for(watching, 30)
        judge(database.sync, history, watched, last)


async def _watch(jobs: aio.JobStore, watched: list[int]) -> None:
    async for event in jobs.watch(after=0):
        watched.append(event.sequence)
        if event.record_id == "last":
            return


def _in_thread(work: Callable[[int], None], number: int) -> Awaitable[None]:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def run() -> None:
        try:
            work(number)
        except BaseException as error:
            loop.call_soon_threadsafe(done.set_exception, error)
        else:
            loop.call_soon_threadsafe(done.set_result, None)

    threading.Thread(target=run, daemon=True).start()
    return done


def judge(database: Database, history: History, watched: list[int], last: Job) -> None:
    """Compare what was told with what is there."""
    jobs = JobStore(database)
    events = list(database.events())
    assert watched == [event.sequence for event in events], "an event missed or met twice"
    assert len({event.sequence for event in events}) == len(events)
    written: Counter[str] = Counter()
    for record_id in RECORDS:
        tokens = _tokens(jobs, record_id)
        written.update(tokens)
        assert _revisions(events, record_id) == list(range(1, len(tokens) + 1))
        told = [each for each in history.told if each.record_id == record_id]
        for each in told:
            if each.token:
                assert tokens[each.revision - 1] == each.token, "an acknowledged change was lost"
        assert_one_after_another(told)
    acknowledged = Counter(each.token for each in history.told if each.token)
    assert all(written[token] == count for token, count in acknowledged.items())
    assert [token for token in history.failed if written[token]] == []
    assert all(written[token] in (0, 1) for token in history.unknown)
    assert all(written[token] == 2 for token in history.pairs)
    others = set(written) - {"made", *acknowledged, *history.unknown}
    assert others == set(), "changes of nobody"
    assert history.failed
    assert history.unknown
    assert history.pairs
    assert jobs.get("last") == last
    assert_sound(database)


def _tokens(jobs: JobStore, record_id: str) -> list[str]:
    """Who wrote each revision of a record, which is a version, too."""
    versions = [*jobs.versions(record_id), jobs.get(record_id)]
    assert [job.revision for job in versions] == list(range(1, len(versions) + 1))
    return [str(job.meta["by"]) for job in versions]


def _revisions(events: list[Event], record_id: str) -> list[int]:
    return [event.revision for event in events if event.record_id == record_id]


def assert_one_after_another(told: list[Told]) -> None:
    """A record behaves as if one caller came after the other: whoever began after another one had
    ended was told of the same or a later moment.

    Revisions put all that happened in an order, so this is all that linearisability asks for: an
    order that agrees with theirs and with the clock exists if no two contradict each other.
    """
    ended = sorted(told, key=lambda each: each.ended)
    latest, place = 0, 0
    for each in sorted(told, key=lambda each: each.begun):
        while latest < len(ended) and ended[latest].ended < each.begun:
            place = max(place, ended[latest].place)
            latest += 1
        assert each.place >= place + bool(each.token), f"{each} is of a moment before it began"


def seed_of_run() -> str:
    return os.environ.get("STOREBRIDGE_SEED", "1")


class CallersTests(StoreTests):
    """Tasks and threads that write at once."""

    def test_a_storm_of_callers(self, harness: BackendHarness) -> None:
        """64 tasks and 16 threads, some cancelled, some broken down: each record is linearisable,
        no change is lost, done twice or half done, and a watcher meets each event once."""
        storm(harness, 10 * attack(), seed_of_run())

    def test_killed_under_load(self, harness: BackendHarness) -> None:
        """After SIGKILL every change that any task or thread was told of is there."""
        harness.require_persistent()
        kill_callers(harness, attack())


def kill_callers(harness: BackendHarness, rounds: int) -> None:
    """Kill a process in which tasks and threads make jobs and change them, again and again."""
    chance = random.Random(seed_of_run())
    print(f"again with STOREBRIDGE_SEED={seed_of_run()}")  # noqa: T201 - shown with a failure
    for round_ in range(rounds):
        durability = chance.choice(("off", "relaxed", "full"))
        with store_worker(harness, "call", round=round_, durability=durability) as worker:
            said = [worker.hear() for _ in range(chance.randrange(100, 300))]
            said += worker.kill()
        revisions: dict[str, int] = {}
        for job_id, revision in said:
            revisions[job_id] = max(revision, revisions.get(job_id, 0))
        with open_at(harness, lock_timeout=30.0) as database:
            jobs = JobStore(database)
            for job_id, revision in revisions.items():
                assert jobs.get(job_id).revision >= revision
            assert_sound(database)
