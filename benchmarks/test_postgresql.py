"""Executions on PostgreSQL beside the same work written by hand on psycopg: same records, indexes,
event rows, counters and durability, prepared and in pipeline mode, on one server.

To create, a store asks whether the key is free, where the hand-written code lets it fail: that is
one round trip more. Round trips themselves are counted by the tests.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.contenders.base import PATH, execution
from benchmarks.postgres_by_hand import PostgresByHand
from benchmarks.race import race
from storebridge import ExecutionStore, open_execution_store
from tests.postgres_server import Server, own_server

RECORDS = 5_000
_ALLOWED = {to: frozenset({at}) for at, to in itertools.pairwise(PATH)}


class Pair:
    """Our store and the one by hand, on one server."""

    def __init__(self, server: Server, url: str) -> None:
        self.ours: ExecutionStore = open_execution_store(f"{url}?schema=ours")
        self.hand = PostgresByHand(url)
        with self.ours.database.transaction():
            self.our_ids = [self.ours.create(execution(i)).id for i in range(RECORDS)]
        self.hand_ids = self.hand.create_all([execution(i) for i in range(RECORDS)])
        for ids in (self.our_ids, self.hand_ids):
            random.Random(RECORDS).shuffle(ids)
        with server.connect() as connection:
            connection.execute("VACUUM ANALYZE")

    def close(self) -> None:
        self.ours.close()
        self.hand.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from own_server(durable=True)


@pytest.fixture(scope="module")
def pair(server: Server) -> Iterator[Pair]:
    made = Pair(server, server.url)
    yield made
    made.close()


def test_set_state(pair: Pair, benchmark: BenchmarkFixture) -> None:
    """One change a transaction, as services make them."""
    operations = 300
    rounds = iter(range(100))
    at = [0]

    def prepare() -> None:
        at[0] = next(rounds)

    def part(ids: list[str]) -> list[str]:
        first = at[0] * operations % len(ids)
        return ids[first : first + operations]

    def step() -> str:
        return PATH[1 + at[0] * operations // RECORDS]

    def ours() -> None:
        for record_id in part(pair.our_ids):
            pair.ours.set_state(record_id, step())

    def theirs() -> None:
        for record_id in part(pair.hand_ids):
            pair.hand.set_state(record_id, step(), _ALLOWED[step()])

    race(
        benchmark,
        ours=ours,
        theirs=theirs,
        operations=operations,
        rounds=15,
        target="postgresql.set_state",
        prepare=prepare,
    )


def test_create(pair: Pair, benchmark: BenchmarkFixture) -> None:
    """One new execution a transaction."""
    operations = 200

    def ours() -> None:
        for number in range(operations):
            pair.ours.create(execution(number))

    def theirs() -> None:
        for number in range(operations):
            pair.hand.create(execution(number))

    race(
        benchmark,
        ours=ours,
        theirs=theirs,
        operations=operations,
        rounds=10,
        target="postgresql.create",
    )


def test_get(pair: Pair, benchmark: BenchmarkFixture) -> None:
    """By id, in random order."""
    operations = 1000

    def ours() -> None:
        for record_id in pair.our_ids[:operations]:
            pair.ours.get(record_id)

    def theirs() -> None:
        for record_id in pair.hand_ids[:operations]:
            pair.hand.get(record_id)

    race(
        benchmark,
        ours=ours,
        theirs=theirs,
        operations=operations,
        rounds=10,
        target="postgresql.get",
    )


def test_find(pair: Pair, benchmark: BenchmarkFixture) -> None:
    """The oldest hundred of a state."""
    operations = 50

    def ours() -> None:
        for _ in range(operations):
            assert len(pair.ours.find(state="Created", limit=100)) == 100

    def theirs() -> None:
        for _ in range(operations):
            assert len(pair.hand.find("Created", 100)) == 100

    race(
        benchmark,
        ours=ours,
        theirs=theirs,
        operations=operations,
        rounds=10,
        target="postgresql.find",
    )
