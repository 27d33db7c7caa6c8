"""Executions on PostgreSQL by psycopg, as an expert would write them by hand: prepared statements,
in pipeline mode."""

from __future__ import annotations

import os

import psycopg

from benchmarks.by_hand import FILTERS, EventBody, decode, decode_event, encode
from storebridge import Execution
from storebridge.times import microseconds, now

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
        for name in FILTERS:
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
                encode(execution).decode(),
            ),
        )
        self._event(execution, "created", None)

    def set_state(self, record_id: str, state: str, allowed: frozenset[str]) -> None:
        with self._connection.pipeline():
            self._send.execute("BEGIN")
            query = "SELECT body FROM hand.execution WHERE id = %s FOR UPDATE"
            row = self._ask.execute(query, (record_id,)).fetchone()
            assert row is not None
            execution = decode(row[0])
            previous = execution.state
            if previous not in allowed:
                raise ValueError(previous)
            execution.state = state
            execution.revision += 1
            execution.modified_at = at = now()
            self._send.execute(
                "UPDATE hand.execution SET state = %s, modified_at = %s, body = %s WHERE id = %s",
                (state, microseconds(at), encode(execution).decode(), record_id),
            )
            self._event(execution, "state", previous)
            self._send.execute("COMMIT")

    def _event(self, execution: Execution, kind: str, previous: str | None) -> None:
        state = execution.state
        body = encode(EventBody(kind, execution.modified_at, execution.revision, state, previous))
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
        return decode(row[0])

    def find(self, state: str, limit: int) -> list[Execution]:
        query = (
            "SELECT body FROM hand.execution WHERE state = %s"
            " ORDER BY state, created_at, id LIMIT %s"
        )
        return [decode(body) for (body,) in self._ask.execute(query, (state, limit)).fetchall()]

    def history(self, record_id: str) -> list[EventBody]:
        query = "SELECT body FROM hand.history WHERE record_id = %s ORDER BY sequence"
        return [decode_event(body) for (body,) in self._ask.execute(query, (record_id,)).fetchall()]

    def counts(self) -> dict[str, int]:
        query = "SELECT state, count(*) FROM hand.execution GROUP BY state"
        return dict(self._ask.execute(query).fetchall())

    def scan(self) -> int:
        query = "SELECT body FROM hand.execution ORDER BY created_at, id"
        with self._connection.transaction(), self._connection.cursor("scan") as cursor:
            cursor.itersize = 500
            return sum(len(decode(body).id) > 0 for (body,) in cursor.execute(query))

    def close(self) -> None:
        self._connection.close()
