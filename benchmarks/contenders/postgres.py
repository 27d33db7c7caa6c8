"""The stores on a PostgreSQL server, and psycopg by hand on the same one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.contenders.base import Contender, Pair
from benchmarks.contenders.by_hand import ALLOWED
from benchmarks.contenders.ours import Ours
from benchmarks.postgres_by_hand import PostgresByHand
from storebridge import Execution


class OurPostgres(Ours):
    name, engine = "storebridge PostgreSQL", "sqlalchemy"

    def __init__(self, folder: Path, url: str) -> None:
        self._url = url
        super().__init__(folder)

    def _location(self) -> str:
        return f"{self._url}?schema=workloads"


class Psycopg(Contender):
    """One connection, prepared statements in pipeline mode."""

    name, engine = "psycopg by hand", "sqlalchemy"

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self._hand = PostgresByHand(url)

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        return self._hand.create_all(list(executions))

    def create_each(self, executions: Sequence[Execution]) -> None:
        for each in executions:
            self._hand.create(each)

    def create_together(self, executions: Sequence[Execution]) -> None:
        self.fill(executions)

    def set_state_each(self, pairs: Sequence[Pair]) -> None:
        for record_id, state in pairs:
            self._hand.set_state(record_id, state, ALLOWED[state])

    def get(self, ids: Sequence[str]) -> None:
        for each in ids:
            self._hand.get(each)

    def find(self, times: int) -> None:
        for _ in range(times):
            self._hand.find("Created", 100)

    def history(self, ids: Sequence[str]) -> None:
        for each in ids:
            self._hand.history(each)

    def scan(self) -> int:
        return self._hand.scan()

    def recount(self) -> None:
        self._hand.counts()

    def close(self) -> None:
        self._hand.close()
