"""Writes that share a commit, of which something that was only sent fails: the server tells of it
with a later answer, perhaps a neighbour's, and each write has its own outcome all the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from storebridge_sqlalchemy import backend

from storebridge import (
    ConflictError,
    Database,
    Expect,
    Job,
    JobStore,
    RecordNotFoundError,
    StorageError,
    aio,
    open_database,
)
from storebridge.testing.stores.base import assert_sound
from storebridge.transaction import Unit
from tests.unit.sqlalchemy.proxy import proxy_to

assert backend
IDS = [f"job-{number}" for number in range(6)]
CHECK = """
CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.body LIKE '%bad%' THEN RAISE EXCEPTION 'no room for %', NEW.id; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.job FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()
"""


@pytest.fixture
def jobs(target: str, schema: str, sql: psycopg.Connection) -> Iterator[JobStore]:
    """Jobs, of which the server refuses an UPDATE with `bad` in it."""
    with open_database(f"{target}&lock_timeout=20") as database:
        store = JobStore(database)
        store.create_many([Job(id=each) for each in IDS])
        sql.execute(CHECK.format(schema=schema))
        sql.commit()
        yield store


class Together:
    """Writes of threads that share one transaction, in their order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._calls: list[tuple[Any, ...]] = []
        self._begun = threading.Event()
        self.outcomes: dict[int, object] = {}

    def add(self, operation: Any, *args: object) -> None:
        self._calls.append((operation, *args))

    def run(self) -> None:
        threads = []
        for number in range(len(self._calls)):
            threads.append(threading.Thread(target=self._work, args=(number,)))
            threads[-1].start()
            while number and len(self._database._turn.line) < number:
                time.sleep(0.001)
            if not number:
                self._begun.wait(10)
        for thread in threads:
            thread.join(60)

    def _work(self, number: int) -> None:
        operation, *args = self._calls[number]
        waited = False

        def first(unit: Unit, *args: object) -> object:
            nonlocal waited
            self._begun.set()
            while not waited and len(self._database._turn.line) < len(self._calls) - 1:
                time.sleep(0.001)
            waited = True
            return operation(unit, *args)

        outcome: object
        try:
            outcome = self._database.write(operation if number else first, *args)
        except Exception as error:
            outcome = error
        self.outcomes[number] = outcome


@pytest.mark.parametrize("bad", [{0}, {1}, {3}, {5}, {0, 3}, {1, 2, 5}, set(range(6))], ids=str)
def test_threads(jobs: JobStore, bad: set[int]) -> None:
    """Whichever of them fail: they, and no others, are told so, in the words that are theirs; what
    the others did is kept, once."""
    together = Together(jobs.database)
    for number, each in enumerate(IDS):
        message = f"bad {number}" if number in bad else f"good {number}"
        together.add(jobs._write.update, each, None, {"message": message})
    together.run()
    for number, each in enumerate(IDS):
        outcome = together.outcomes[number]
        if number in bad:
            assert isinstance(outcome, StorageError)
            assert f"no room for {each}" in str(outcome)
        else:
            assert isinstance(outcome, Job), outcome
        assert jobs.get(each).message == ("" if number in bad else f"good {number}")
        assert len(jobs.history(each)) == (1 if number in bad else 2)
    assert_sound(jobs.database)


def test_outcomes_that_rested_on_what_failed(jobs: JobStore) -> None:
    """A conflict with a change that was not kept is none."""
    together = Together(jobs.database)
    first = Expect(revision=1)
    together.add(jobs._write.update, "job-0", None, {"message": "bad"})
    together.add(jobs._write.update, "job-0", first, {"message": "good"})
    together.add(jobs._write.update, "job-0", first, {"message": "late"})
    together.add(jobs._write.delete, "nobody", None)
    together.run()
    assert isinstance(together.outcomes[0], StorageError)
    assert isinstance(together.outcomes[1], Job)
    assert isinstance(together.outcomes[2], ConflictError)
    assert isinstance(together.outcomes[3], RecordNotFoundError)
    assert jobs.get("job-0").message == "good"


@pytest.mark.parametrize("bad", [{0}, {2}, {5}, {1, 4}], ids=str)
def test_tasks(jobs: JobStore, bad: set[int]) -> None:
    """The same of tasks."""

    async def work() -> list[object]:
        async with await aio.open_job_store(jobs.database.location.text) as store:
            begun, go_on = threading.Event(), threading.Event()

            def hold() -> None:
                begun.set()
                go_on.wait(60)

            holding = asyncio.ensure_future(store.database.run(hold))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            calls = [
                asyncio.ensure_future(
                    store.update(each, message=f"{'bad' if number in bad else 'good'} {number}")
                )
                for number, each in enumerate(IDS)
            ]
            await asyncio.sleep(0)
            go_on.set()
            await holding
            return list(await asyncio.gather(*calls, return_exceptions=True))

    outcomes = asyncio.run(work())
    for number, (each, outcome) in enumerate(zip(IDS, outcomes, strict=True)):
        if number in bad:
            assert isinstance(outcome, StorageError)
            assert f"no room for {each}" in str(outcome)
        else:
            assert isinstance(outcome, Job), outcome
    assert_sound(jobs.database)


def test_a_connection_that_was_lost(target: str) -> None:
    """Is nobody's own fault: each is told so, and none is done again behind their backs."""
    with proxy_to(target) as proxy, open_database(f"{proxy.url(target)}&lock_timeout=20") as base:
        jobs = JobStore(base)
        jobs.create_many([Job(id=each) for each in IDS])
        together = Together(base)
        for each in IDS:
            together.add(jobs._write.update, each, None, {"message": "new"})
        proxy.cut_when, proxy.deliver = (lambda piece: b"COMMIT\0" in piece), False
        together.run()
        for number, each in enumerate(IDS):
            assert "connection to the server was lost" in str(together.outcomes[number])
            assert jobs.get(each).message == ""
