"""How much a page reads: near what it returns, however much the store holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from storebridge import Database, Execution, ExecutionStore, Job, JobStore, RecordStore
from storebridge.driver import Driver, Range
from storebridge.jobs import JobType
from storebridge.testing.stores.base import StoreTests

RECORDS = 2000
LIMIT = 50
MOST = 3.2
"""Entries read per record returned: "about three times its results"."""

JOB_QUERIES: list[dict[str, Any]] = [
    {},
    {"state": "Running"},
    {"state": ["Running", "Queued", "Failed"]},
    {"type": "ops"},
    {"type": ["ops", "daemon"]},
    {"namespace": "rare"},
    {"namespace": ["rare", "other"]},
    {"labels": "rare=1"},
    {"labels": "rare"},
    {"labels": "era in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"},
    {"labels": "rare in (1, 2)"},
    {"labels": "team in (a, b, c, none)"},
]
EXECUTION_QUERIES: list[dict[str, Any]] = [
    {"job_id": "j7"},
    {"job_id": ["j7", "j8"]},
    {"state": "Running"},
    {"node_id": "n3"},
    {"node_id": ["n1", "n3", "n5"]},
    {"namespace": "rare"},
]


class Reads:
    """Counts what a driver's transactions return."""

    def __init__(self) -> None:
        self.entries = 0

    @contextmanager
    def of(self, driver: Driver) -> Iterator[None]:
        begin = driver.begin

        def counted(write: bool, single: bool = False) -> Any:
            return Counted(begin(write, single), self)

        self.entries = 0
        driver.begin = counted  # type: ignore[method-assign]
        try:
            yield
        finally:
            driver.begin = begin  # type: ignore[method-assign]


class Counted:
    """A transaction that counts the entries it returns."""

    def __init__(self, transaction: Any, reads: Reads) -> None:
        self._transaction = transaction
        self._reads = reads

    def get(self, table: str, key: Any) -> Any:
        self._reads.entries += 1
        return self._transaction.get(table, key)

    def scan(self, table: str, range: Range) -> Any:
        rows, position = self._transaction.scan(table, range)
        self._reads.entries += len(rows)
        return rows, position

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)


class ReadingTests(StoreTests):
    """A filtered page, sorted by creation, with 2,000 records in the store."""

    def test_pages_of_jobs_read_little(self, database: Database, jobs: JobStore) -> None:
        """No page of jobs, by any one filter or by labels, reads over about three times its
        results.
        """
        with database.transaction():
            for n in range(RECORDS):
                labels = {"team": "abc"[n % 3], "era": str(n // 200)}
                labels |= {"rare": str(n % 2 + 1)} if n % 20 < 3 else {}
                place = ("rare" if n % 20 < 2 else "other") if n % 2 else "default"
                kind: JobType = "ops" if n % 20 == 0 else "daemon" if n % 19 == 0 else "batch"
                jobs.create(Job(id=f"{n}", type=kind, namespace=place, labels=labels))
                if n % 10 < 3:
                    jobs.set_state(f"{n}", ("Running", "Queued", "Failed")[n % 10])
        for query in JOB_QUERIES:
            _assert_reads_little(jobs, query)

    def test_pages_of_executions_read_little(
        self, database: Database, executions: ExecutionStore
    ) -> None:
        """No page of executions, by any one filter, reads over about three times its results."""
        with database.transaction():
            for n in range(RECORDS):
                place = "rare" if n % 25 == 0 else "default"
                executions.create(
                    Execution(id=f"{n}", job_id=f"j{n % 20}", node_id=f"n{n % 17}", namespace=place)
                )
                if n % 11 == 0:
                    executions.set_state(f"{n}", "Running")
        for query in EXECUTION_QUERIES:
            _assert_reads_little(executions, query)

    def test_counting_reads_nothing(self, database: Database, jobs: JobStore) -> None:
        """Counts by state, of everything, and by one filter read no record."""
        with database.transaction():
            for n in range(100):
                jobs.create(Job(id=f"{n}"))
        reads = Reads()
        with reads.of(database.driver):
            assert jobs.count() == jobs.count(state="Pending") == 100
            assert jobs.counts()["Pending"] == jobs.count(namespace="default") == 100
        assert reads.entries == 0


def _assert_reads_little(store: RecordStore[Any], query: dict[str, Any]) -> None:
    reads = Reads()
    for descending in (False, True):
        cursor, page_number, results = None, 0, 0
        while page_number < 3:
            with reads.of(store.database.driver):
                page = store.find(limit=LIMIT, cursor=cursor, descending=descending, **query)
            results += len(page)
            assert reads.entries <= MOST * len(page) + 2, (
                f"{query} page {page_number}: {reads.entries} entries for {len(page)} records"
            )
            cursor, page_number = page.cursor, page_number + 1
            if cursor is None:
                break
        assert results >= LIMIT, f"{query} finds too little to judge by"
