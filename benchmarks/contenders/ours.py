"""The stores, on each backend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders.base import Contender, Pair
from storebridge import Execution, ExecutionStore, KeyValueStore, aio, open_database


class Ours(Contender):
    """Executions and settings in one database, durable."""

    ours = True
    suffix = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.location = self._location()
        self._open()
        self._runner = asyncio.Runner()
        self._aio: aio.ExecutionStore | None = None

    def _location(self) -> str:
        return f"{self.engine}://{self.folder / 'store'}{self.suffix}"

    def _open(self) -> None:
        self.database = open_database(self.location)
        self.executions = ExecutionStore(self.database)
        self.settings = KeyValueStore(self.database, "settings")

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        with self.database.transaction():
            return [self.executions.create(each).id for each in executions]

    def create_each(self, executions: Sequence[Execution]) -> None:
        for each in executions:
            self.executions.create(each)

    def create_together(self, executions: Sequence[Execution]) -> None:
        self.fill(executions)

    def set_state_each(self, pairs: Sequence[Pair]) -> None:
        set_state = self.executions.set_state
        for record_id, state in pairs:
            set_state(record_id, state)

    def set_state_together(self, pairs: Sequence[Pair]) -> None:
        with self.database.transaction():
            self.set_state_each(pairs)

    def set_state_callers(self, pairs: Sequence[Pair]) -> None:
        self._runner.run(self._callers(pairs))

    async def _callers(self, pairs: Sequence[Pair]) -> None:
        store = self._aio = self._aio or await aio.open_execution_store(self.location)

        async def caller(part: Sequence[Pair]) -> None:
            for record_id, state in part:
                await store.set_state(record_id, state)

        count = self.most_callers
        await asyncio.gather(*(caller(pairs[n::count]) for n in range(count)))

    def get(self, ids: Sequence[str]) -> None:
        get = self.executions.get
        for each in ids:
            get(each)

    def find(self, times: int) -> None:
        for _ in range(times):
            self.executions.find(state="Created", limit=100)

    def history(self, ids: Sequence[str]) -> None:
        history = self.executions.history
        for each in ids:
            history(each)

    def scan(self) -> int:
        return sum(1 for _ in self.executions.each())

    def recount(self) -> None:
        self.executions.recount()

    def shrink(self, ids: Sequence[str]) -> None:
        with self.database.transaction():
            for each in ids:
                self.executions.delete(each)

    def compact(self) -> None:
        self.database.compact((), above=0.0)

    def rest(self) -> None:
        """Let what serves many callers go: before one opening is measured."""
        if self._aio is not None:
            self._runner.run(self._aio.close())
            self._aio = None

    def reopen(self) -> None:
        self.database.close()
        self._open()
        self.executions.find(limit=1)

    def kv_fill(self, settings: dict[str, Any]) -> None:
        self.settings.update(settings)

    def kv_get(self, keys: Sequence[str]) -> None:
        settings = self.settings
        for key in keys:
            settings[key]

    def kv_set(self, settings: dict[str, Any]) -> None:
        for key, value in settings.items():
            self.settings[key] = value

    def close(self) -> None:
        self.rest()
        self._runner.close()
        self.database.close()


class OurSqlite(Ours):
    name, engine = "storebridge sqlite", "sqlite"


class OurLmdb(Ours):
    name, engine = "storebridge lmdb", "lmdb"


class OurBolt(Ours):
    name, engine = "storebridge bolt", "bolt"


class OurTinydb(Ours):
    name, engine, suffix = "storebridge tinydb", "tinydb", ".json"


class OurMemory(Ours):
    name, engine = "storebridge memory", "memory"
    reopen = None  # type: ignore[assignment]  # nothing would be there

    def _location(self) -> str:
        return f"memory:{self.folder.name}"
