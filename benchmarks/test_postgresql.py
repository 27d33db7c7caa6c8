"""Executions on PostgreSQL beside the same work written by hand on psycopg: same records, indexes,
event rows, counters and durability, prepared and in pipeline mode, on one server.

The hand-written code numbers an event in the statement that inserts it, where a store is told the
number first: that is one round trip less. Round trips themselves are counted by the tests.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator

import psycopg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.by_hand import _decode, _encode, _EventBody
from benchmarks.race import race
from storebridge import Execution, ExecutionStore, open_execution_store, to_json
from storebridge.times import microseconds, now
from tests.postgres_server import Server, own_server

RECORDS = 5_000
_PATH = ("Created", "BidAccepted", "Running", "WaitingVerification", "ResultAccepted", "Publishing")
_SPEC = to_json(
    {"engine": {"type": "docker", "params": {"image": "ubuntu", "cmd": ["x" * 40] * 8}}}
)
_ALLOWED = {to: frozenset({at}) for at, to in itertools.pairwise(_PATH)}
_FILTERS = ("job_id", "state", "node_id", "namespace")
_COUNT = (
    "INSERT INTO hand.counter VALUES (%s, %s)"
    " ON CONFLICT (name) DO UPDATE SET value = counter.value + excluded.value"
)


class PostgresByHand:
    """Executions on psycopg."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        run = self._connection.execute
        run("CREATE SCHEMA hand")
        run(
            'CREATE TABLE hand.execution (id text COLLATE "C" PRIMARY KEY, created_at bigint,'
            ' modified_at bigint, job_id text COLLATE "C", state text COLLATE "C",'
            ' node_id text COLLATE "C", namespace text COLLATE "C", body text NOT NULL)'
        )
        run("CREATE INDEX created ON hand.execution (created_at, id)")
        run("CREATE INDEX modified ON hand.execution (modified_at, id)")
        for name in _FILTERS:
            run(f"CREATE INDEX by_{name} ON hand.execution ({name}, created_at, id)")
        run(
            'CREATE TABLE hand.history (record_id text COLLATE "C", sequence bigint UNIQUE,'
            " body text NOT NULL, PRIMARY KEY (record_id, sequence))"
        )
        run(
            "CREATE TABLE hand.counter (name text PRIMARY KEY, value bigint) WITH (fillfactor = 20)"
        )
        run("INSERT INTO hand.counter VALUES ('sequence', 0)")
        self._send = self._connection.cursor()
        self._ask = self._connection.cursor()

    def create_all(self, executions: list[Execution]) -> list[str]:
        """In one transaction; not measured."""
        with self._connection.transaction(), self._connection.pipeline():
            for execution in executions:
                self._create(execution)
        return [execution.id for execution in executions]

    def create(self, execution: Execution) -> None:
        with self._connection.pipeline():
            self._send.execute("BEGIN")
            self._create(execution)
            self._send.execute("COMMIT")

    def _create(self, execution: Execution) -> None:
        execution.id = f"e-{os.urandom(16).hex()}"
        execution.revision = 1
        execution.state = "Created"
        execution.created_at = execution.modified_at = at = now()
        time = microseconds(at)
        self._send.execute(
            "INSERT INTO hand.execution VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                execution.id,
                time,
                time,
                execution.job_id,
                execution.state,
                execution.node_id,
                execution.namespace,
                _encode(execution).decode(),
            ),
        )
        self._event(execution, "created", None)

    def set_state(self, record_id: str, state: str, allowed: frozenset[str]) -> None:
        with self._connection.pipeline():
            self._send.execute("BEGIN")
            query = "SELECT body FROM hand.execution WHERE id = %s FOR UPDATE"
            row = self._ask.execute(query, (record_id,)).fetchone()
            assert row is not None
            execution = _decode(row[0])
            previous = execution.state
            if previous not in allowed:
                raise ValueError(previous)
            execution.state = state
            execution.revision += 1
            execution.modified_at = at = now()
            self._send.execute(
                "UPDATE hand.execution SET state = %s, modified_at = %s, body = %s WHERE id = %s",
                (state, microseconds(at), _encode(execution).decode(), record_id),
            )
            self._event(execution, "state", previous)
            self._send.execute("COMMIT")

    def _event(self, execution: Execution, kind: str, previous: str | None) -> None:
        state = execution.state
        body = _encode(_EventBody(kind, execution.modified_at, execution.revision, state, previous))
        if previous is not None:
            self._send.execute(_COUNT, (previous, -1))
        self._send.execute(_COUNT, (state, 1))
        self._send.execute(
            "WITH number AS (UPDATE hand.counter SET value = value + 1 WHERE name = 'sequence'"
            " RETURNING value) INSERT INTO hand.history SELECT %s, value, %s FROM number",
            (execution.id, body.decode()),
        )

    def get(self, record_id: str) -> Execution:
        query = "SELECT body FROM hand.execution WHERE id = %s"
        row = self._ask.execute(query, (record_id,)).fetchone()
        assert row is not None
        return _decode(row[0])

    def find(self, state: str, limit: int) -> list[Execution]:
        query = (
            "SELECT body FROM hand.execution WHERE state = %s"
            " ORDER BY state, created_at, id LIMIT %s"
        )
        return [_decode(body) for (body,) in self._ask.execute(query, (state, limit)).fetchall()]

    def close(self) -> None:
        self._connection.close()


class Pair:
    """Our store and the one by hand, on one server."""

    def __init__(self, server: Server, url: str) -> None:
        self.ours: ExecutionStore = open_execution_store(f"{url}?schema=ours")
        self.hand = PostgresByHand(url)
        with self.ours.database.transaction():
            self.our_ids = [self.ours.create(_execution(i)).id for i in range(RECORDS)]
        self.hand_ids = self.hand.create_all([_execution(i) for i in range(RECORDS)])
        for ids in (self.our_ids, self.hand_ids):
            random.Random(RECORDS).shuffle(ids)
        with server.connect() as connection:
            connection.execute("VACUUM ANALYZE")

    def close(self) -> None:
        self.ours.close()
        self.hand.close()


def _execution(number: int) -> Execution:
    return Execution(
        job_id=f"j-{number % 400}",
        node_id=f"node-{number % 20}",
        desired_state="Running",
        namespace="default",
        spec=_SPEC,
    )


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
        return _PATH[1 + at[0] * operations // RECORDS]

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
            pair.ours.create(_execution(number))

    def theirs() -> None:
        for number in range(operations):
            pair.hand.create(_execution(number))

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
