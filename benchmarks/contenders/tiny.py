"""TinyDB and aiotinydb as they come: each change rewrites the whole file, in place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiotinydb.database import AIOTinyDB
from tinydb import TinyDB, where

from benchmarks.contenders.base import Contender, Pair, plain
from storebridge import Execution


def _documents(executions: Sequence[Execution], first: int) -> list[dict[str, Any]]:
    return [plain(each) | {"id": f"e-{number}"} for number, each in enumerate(executions, first)]


class Tinydb(Contender):
    """Records are documents, found by a search for their id, as TinyDB's are."""

    name, engine = "TinyDB", "tinydb"
    promise = "no history, no index; a kill may tear the file"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._db = TinyDB(folder / "db.json")
        self._made = 0

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        documents = _documents(executions, self._made)
        self._made += len(documents)
        self._db.insert_multiple(documents)
        return [document["id"] for document in documents]

    def create_each(self, executions: Sequence[Execution]) -> None:
        for each in executions:
            self.fill((each,))

    def create_together(self, executions: Sequence[Execution]) -> None:
        self.fill(executions)

    def set_state_each(self, pairs: Sequence[Pair]) -> None:
        for record_id, state in pairs:
            self._db.update({"state": state}, where("id") == record_id)

    def get(self, ids: Sequence[str]) -> None:
        for each in ids:
            self._db.get(where("id") == each)

    def find(self, times: int) -> None:
        for _ in range(times):
            self._db.clear_cache()  # as any change in between does
            self._db.search(where("state") == "Created")[:100]

    def scan(self) -> int:
        return len(self._db.all())

    def close(self) -> None:
        self._db.close()


class Aiotinydb(Contender):
    """A block, with which the file is read and written again, for each operation."""

    name, engine = "aiotinydb", "tinydb"
    promise = "not durable (no fsync), no history, no index; a kill may tear the file"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / "db.json"
        self._runner = asyncio.Runner()
        self._made = 0

    def _do(self, *calls: Any) -> None:
        async def work() -> None:
            for call in calls:
                async with AIOTinyDB(str(self._path)) as db:
                    call(db)

        self._runner.run(work())

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        documents = _documents(executions, self._made)
        self._made += len(documents)
        self._do(lambda db: db.insert_multiple(documents))
        return [document["id"] for document in documents]

    def create_each(self, executions: Sequence[Execution]) -> None:
        for each in executions:
            self.fill((each,))

    def set_state_each(self, pairs: Sequence[Pair]) -> None:
        for record_id, state in pairs:
            self._do(lambda db, i=record_id, s=state: db.update({"state": s}, where("id") == i))

    def get(self, ids: Sequence[str]) -> None:
        for each in ids:
            self._do(lambda db, i=each: db.get(where("id") == i))

    def scan(self) -> int:
        self._do(lambda db: db.all())
        return self._made

    def close(self) -> None:
        self._runner.close()
