"""What an expert writes by hand on one engine, for the workloads."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

from benchmarks.by_hand import FILTERS, EventBody, LmdbByHand, SqliteByHand, decode, encode
from benchmarks.contenders.base import CALLERS, Contender, Pair, Threads
from storebridge import EXECUTION_STATES, Execution
from storebridge.times import microseconds, now

ALLOWED = {
    state: frozenset(s for s, then in EXECUTION_STATES.transitions.items() if state in then)
    for state in EXECUTION_STATES.states
}


class _ByHand(Contender):
    """On `by_hand`, whose two classes have the same methods."""

    hand: Any

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._threads = Threads()
        self._open()

    def _open(self) -> None:
        raise TypeError(f"{self.name} has no engine")

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        self.create_together(executions)
        return [each.id for each in executions]

    def create_each(self, executions: Sequence[Execution]) -> None:
        for each in executions:
            self.create_together((each,))

    def create_together(self, executions: Sequence[Execution]) -> None:
        self.hand.begin()
        for each in executions:
            self.hand.create(each)
        self.hand.commit()

    def _set_state(self, record_id: str, state: str) -> None:
        self.hand.begin()
        self.hand.set_state(record_id, state, ALLOWED[state])
        self.hand.commit()

    def set_state_each(self, pairs: Sequence[Pair]) -> None:
        for record_id, state in pairs:
            self._set_state(record_id, state)

    def set_state_together(self, pairs: Sequence[Pair]) -> None:
        self.hand.begin()
        for record_id, state in pairs:
            self.hand.set_state(record_id, state, ALLOWED[state])
        self.hand.commit()

    def set_state_callers(self, pairs: Sequence[Pair]) -> None:
        self._threads.change(self._set_state, pairs, one_at_a_time=True)

    def get(self, ids: Sequence[str]) -> None:
        for each in ids:
            self.hand.get(each)

    def find(self, times: int) -> None:
        for _ in range(times):
            self.hand.find("Created", 100)

    def history(self, ids: Sequence[str]) -> None:
        for each in ids:
            self.hand.history(each)

    def scan(self) -> int:
        return int(self.hand.scan())

    def recount(self) -> None:
        self.hand.counts()

    def shrink(self, ids: Sequence[str]) -> None:
        self.hand.begin()
        for each in ids:
            self.hand.delete(each)
        self.hand.commit()

    def compact(self) -> None:
        self.hand.compact()

    def reopen(self) -> None:
        self.hand.close()
        self._open()
        self.hand.find("Created", 1)

    def close(self) -> None:
        self._threads.close()
        self.hand.close()


class Sqlite3(_ByHand):
    name, engine = "sqlite3 by hand", "sqlite"

    @classmethod
    def promise_in(cls, workload: str) -> str:
        of_dicts = "no history, no expiry, no changes"
        return of_dicts if workload.startswith("key-value") else cls.promise

    def _open(self) -> None:
        self.hand = SqliteByHand(self.folder / "hand.db", "FULL")
        self._settings = sqlite3.connect(self.folder / "settings.db", isolation_level=None)
        self._settings.execute("PRAGMA journal_mode=WAL")
        self._settings.execute("PRAGMA synchronous=FULL")
        self._settings.execute(
            "CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"
        )

    def kv_fill(self, settings: dict[str, Any]) -> None:
        self.kv_set(settings)

    def kv_get(self, keys: Sequence[str]) -> None:
        for key in keys:
            query = "SELECT value FROM kv WHERE key = ?"
            json.loads(self._settings.execute(query, (key,)).fetchone()[0])

    def kv_set(self, settings: dict[str, Any]) -> None:
        for key, value in settings.items():
            row = (key, json.dumps(value))
            self._settings.execute("REPLACE INTO kv VALUES (?, ?)", row)

    def close(self) -> None:
        super().close()
        self._settings.close()


class PyLmdb(_ByHand):
    name, engine = "py-lmdb by hand", "lmdb"

    def _open(self) -> None:
        self.hand = LmdbByHand(self.folder / "hand", sync=True)


class Aiosqlite(Contender):
    """The same tables and statements as by hand, awaited one by one, as aiosqlite wants it."""

    name, engine = "aiosqlite by hand", "sqlite"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        path = folder / "hand.db"
        SqliteByHand(path, "FULL").close()  # makes the tables
        self._runner = asyncio.Runner()
        self._lock = asyncio.Lock()
        self._sequence = 0
        self._runner.run(self._open(path))

    async def _open(self, path: Path) -> None:
        self._connection = await aiosqlite.connect(path, isolation_level=None)
        await self._connection.execute("PRAGMA synchronous=FULL")
        await self._connection.execute("PRAGMA cache_size=-16384")

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        self._runner.run(self._create(executions))
        return [each.id for each in executions]

    async def _create(self, executions: Iterable[Execution]) -> None:
        run = self._connection.execute
        await run("BEGIN IMMEDIATE")
        for number, each in enumerate(executions, self._sequence):
            each.id, each.revision = f"e-{number:032x}", 1
            each.created_at = each.modified_at = at = now()
            row = (each.id, microseconds(at), microseconds(at))
            row += tuple(getattr(each, name) for name in FILTERS)
            await run(
                "INSERT INTO execution VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, encode(each).decode()),
            )
            await self._event(each, "created", None)
        await run("COMMIT")

    async def _set_state(self, record_id: str, state: str) -> None:
        async with self._lock:
            run = self._connection.execute
            await run("BEGIN IMMEDIATE")
            execution = await self._read(record_id)
            previous = execution.state
            if previous not in ALLOWED[state]:
                raise ValueError(previous)
            execution.state = state
            execution.revision += 1
            execution.modified_at = now()
            await run(
                "UPDATE execution SET state = ?, modified_at = ?, body = ? WHERE id = ?",
                (
                    state,
                    microseconds(execution.modified_at),
                    encode(execution).decode(),
                    record_id,
                ),
            )
            await self._event(execution, "state", previous)
            await run("COMMIT")

    async def _event(self, execution: Execution, kind: str, previous: str | None) -> None:
        self._sequence += 1
        state, at = execution.state, execution.modified_at
        assert at is not None
        body = encode(EventBody(kind, at, execution.revision, state, previous))
        run = self._connection.execute
        row = (execution.id, self._sequence, body.decode())
        await run("INSERT INTO history VALUES (?, ?, ?)", row)
        counted = {"sequence": 1, state: 1} | ({previous: -1} if previous else {})
        for name, by in counted.items():
            await run(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + ?",
                (name, by, by),
            )

    async def _read(self, record_id: str) -> Execution:
        cursor = await self._connection.execute(
            "SELECT body FROM execution WHERE id = ?", (record_id,)
        )
        row = await cursor.fetchone()
        assert row is not None
        return decode(row[0])

    def create_each(self, executions: Sequence[Execution]) -> None:
        async def work() -> None:
            for each in executions:
                await self._create((each,))

        self._runner.run(work())

    def set_state_each(self, pairs: Sequence[Pair]) -> None:
        async def work() -> None:
            for record_id, state in pairs:
                await self._set_state(record_id, state)

        self._runner.run(work())

    def set_state_callers(self, pairs: Sequence[Pair]) -> None:
        async def caller(part: Sequence[Pair]) -> None:
            for record_id, state in part:
                await self._set_state(record_id, state)

        async def work() -> None:
            await asyncio.gather(*(caller(pairs[n::CALLERS]) for n in range(CALLERS)))

        self._runner.run(work())

    def get(self, ids: Sequence[str]) -> None:
        async def work() -> None:
            for each in ids:
                await self._read(each)

        self._runner.run(work())

    def find(self, times: int) -> None:
        async def work() -> None:
            for _ in range(times):
                cursor = await self._connection.execute(
                    "SELECT body FROM execution WHERE state = ? ORDER BY created_at, id LIMIT ?",
                    ("Created", 100),
                )
                for (body,) in await cursor.fetchall():
                    decode(body)

        self._runner.run(work())

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()
