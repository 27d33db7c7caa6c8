"""The libraries that people take today for jobs and settings on SQLite, made as durable as a store:
a write-ahead log, and `synchronous` FULL. What each does not keep is in its `promise`."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from diskcache import Cache
from huey.storage import SqliteStorage
from sqlalchemy import event
from sqlitedict import SqliteDict

from benchmarks.contenders.base import Contender, Pair, Threads, plain
from storebridge import Execution


def run(record: dict[str, Any]) -> None:
    """What the jobs are to do; they are never due."""


class APScheduler(Contender):
    """Each record is a job of version 3's SQLAlchemyJobStore; a change is its `update_job`."""

    name, engine = "APScheduler", "sqlite"
    promise = "no history, no states; pickles"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._store = SQLAlchemyJobStore(url=f"sqlite:///{folder}/jobs.db")
        event.listen(self._store.engine, "connect", _durable)
        self._scheduler = BackgroundScheduler(jobstores={"default": self._store})
        self._scheduler.start(paused=True)
        self._threads = Threads()
        self._made = 0

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        first = self._made
        self.create_each(executions)
        return [f"e-{number}" for number in range(first, self._made)]

    def create_each(self, executions: Sequence[Execution]) -> None:
        for each in executions:
            record_id, self._made = f"e-{self._made}", self._made + 1
            given = {"record": plain(each)}
            self._scheduler.add_job(run, "interval", hours=1, id=record_id, kwargs=given)

    def _set_state(self, record_id: str, state: str) -> None:
        job = self._store.lookup_job(record_id)
        job._modify(kwargs={"record": job.kwargs["record"] | {"state": state}})
        self._store.update_job(job)

    def set_state_each(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            self._set_state(*pair)

    def set_state_callers(self, pairs: Sequence[Pair]) -> None:
        self._threads.change(self._set_state, pairs, one_at_a_time=True)

    def get(self, ids: Sequence[str]) -> None:
        for each in ids:
            self._store.lookup_job(each)

    def scan(self) -> int:
        return len(self._store.get_all_jobs())

    def close(self) -> None:
        self._threads.close()
        self._scheduler.shutdown()


def _durable(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


class Huey(Contender):
    """A created record is a task put into the queue, which nobody can look up there or change."""

    name, engine = "huey", "sqlite"
    promise = "no records by id, no history; pickles"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._storage = SqliteStorage(filename=str(folder / "huey.db"), fsync=True)

    def prepare(self, records: int) -> None:
        """Its queue is empty: what has been put there costs nothing until it is taken out."""

    def create_each(self, executions: Sequence[Execution]) -> None:
        for each in executions:
            self._storage.enqueue(pickle.dumps(plain(each)), priority=each.revision)

    def kv_fill(self, settings: dict[str, Any]) -> None:
        self.kv_set(settings)

    def kv_get(self, keys: Sequence[str]) -> None:
        for key in keys:
            pickle.loads(self._storage.peek_data(key))

    def kv_set(self, settings: dict[str, Any]) -> None:
        for key, value in settings.items():
            self._storage.put_data(key, pickle.dumps(value))

    def close(self) -> None:
        self._storage.close()


class _Dict(Contender):
    """Each record is a value under its id; settings are in a dict of their own."""

    promise = "no history, no index; pickles"
    _shared = True
    """Whether threads may use it at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._records: Any = self._make(folder / "records")
        self._settings: Any = self._make(folder / "settings")
        self._threads = Threads()
        self._made = 0

    def _make(self, path: Path) -> Any:
        raise TypeError(f"{self.name} has no engine")

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        first = self._made
        self.create_together(executions)
        return [f"e-{number}" for number in range(first, self._made)]

    def create_together(self, executions: Sequence[Execution]) -> None:
        raise TypeError(f"{self.name} has no transactions")

    def _put(self, executions: Sequence[Execution]) -> None:
        for each in executions:
            self._records[f"e-{self._made}"] = plain(each)
            self._made += 1

    def create_each(self, executions: Sequence[Execution]) -> None:
        self._put(executions)

    def _set_state(self, record_id: str, state: str) -> None:
        self._records[record_id] = self._records[record_id] | {"state": state}

    def set_state_each(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            self._set_state(*pair)

    def set_state_callers(self, pairs: Sequence[Pair]) -> None:
        self._threads.change(self._set_state, pairs, one_at_a_time=not self._shared)

    def get(self, ids: Sequence[str]) -> None:
        for each in ids:
            self._records[each]

    def scan(self) -> int:
        return sum(self._records[key] is not None for key in self._records)

    def kv_fill(self, settings: dict[str, Any]) -> None:
        self.kv_set(settings)

    def kv_get(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._settings[key]

    def kv_set(self, settings: dict[str, Any]) -> None:
        for key, value in settings.items():
            self._settings[key] = value

    def close(self) -> None:
        self._threads.close()
        self._records.close()
        self._settings.close()


class Diskcache(_Dict):
    name, engine = "diskcache", "sqlite"

    def _make(self, path: Path) -> Any:
        return Cache(str(path), eviction_policy="none", sqlite_synchronous=2, timeout=60)

    def create_together(self, executions: Sequence[Execution]) -> None:
        with self._records.transact():
            self._put(executions)

    def set_state_together(self, pairs: Sequence[Pair]) -> None:
        with self._records.transact():
            self.set_state_each(pairs)


class Sqlitedict(_Dict):
    name, engine = "sqlitedict", "sqlite"
    _shared = False

    def _make(self, path: Path) -> Any:
        made = SqliteDict(f"{path}.db", autocommit=True, journal_mode="WAL")
        made.conn.execute("PRAGMA synchronous=FULL")  # it is OFF else
        return made

    def create_together(self, executions: Sequence[Execution]) -> None:
        self._records.update(
            (f"e-{number}", plain(each)) for number, each in enumerate(executions, self._made)
        )
        self._made += len(executions)

    def scan(self) -> int:
        return sum(1 for _ in self._records.values())
