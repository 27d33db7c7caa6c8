"""Finding: every filter, every order, and pages that hold still while others write."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from storebridge import (
    AmbiguousIdError,
    Execution,
    ExecutionStore,
    InvalidQueryError,
    Job,
    JobStore,
    RecordNotFoundError,
    RecordStore,
)
from storebridge.jobs import JobType
from storebridge.testing.stores.base import START, Calls, StoreTests, ids

NODES = ("n1", "n2", None)
STATES = ("Created", "Running", "Failed")
SELECTORS: dict[str, Callable[[dict[str, str]], bool]] = {
    "app=web": lambda labels: labels.get("app") == "web",
    "app == web": lambda labels: labels.get("app") == "web",
    "app!=web": lambda labels: labels.get("app") != "web",
    "app in (web, db)": lambda labels: labels.get("app") in ("web", "db"),
    "app notin (web,db)": lambda labels: labels.get("app") not in ("web", "db"),
    "app": lambda labels: "app" in labels,
    "!app": lambda labels: "app" not in labels,
    "tier,app=web": lambda labels: "tier" in labels and labels.get("app") == "web",
    "app!=web,tier in (1, 2, 2)": lambda labels: (
        labels.get("app") != "web" and labels.get("tier") in ("1", "2")
    ),
    "app=web,app=db": lambda labels: False,
    "none in (such)": lambda labels: False,
    " ": lambda labels: True,
}


class Steps:
    """A clock on which several records have the same time."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> datetime:
        self.looks += 1
        return START + timedelta(seconds=self.looks // 4)


def pages(store: RecordStore[Any], limit: int, **query: Any) -> Iterator[list[str]]:
    """The ids of each page of a query."""
    cursor = None
    while True:
        page = store.find(limit=limit, cursor=cursor, **query)
        yield ids(page)
        cursor = page.cursor
        if cursor is None:
            return
        assert len(page) == limit, "only the last page is short"


def paged(store: RecordStore[Any], limit: int, **query: Any) -> list[str]:
    """All ids of a query, gathered page by page."""
    return [record_id for page in pages(store, limit, **query) for record_id in page]


def create_jobs(jobs: JobStore, count: int) -> list[Job]:
    """Jobs of mixed kinds, some of them changed since, several of them at one time."""
    jobs._write._clock = Steps()
    with jobs.database.transaction():
        for n in range(count):
            labels = {"app": ("web", "db", "x")[n % 3]} if n % 4 else {}
            labels |= {"tier": str(n % 3)} if n % 2 else {}
            kinds: tuple[JobType, ...] = ("batch", "ops", "service")
            place = "default" if n % 2 else "other"
            jobs.create(
                Job(id=f"{n * 7919 % 1000:03}", type=kinds[n % 3], namespace=place, labels=labels)
            )
        for record in list(jobs.each())[::3]:
            jobs.set_state(record.id, "Running")
    return list(jobs.each())


class FindTests(StoreTests):
    """`find`, `each`, `count`, `resolve`."""

    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("limit", [1, 4, 100])
    def test_each_filter(self, jobs: JobStore, limit: int, descending: bool) -> None:
        """Each filter, with one value, with several and together with others, finds the records
        that have them, in order of time and id, in pages of any size, and counts as many.
        """
        everything = create_jobs(jobs, 40)
        queries: list[dict[str, Any]] = [
            {"state": "Running"},
            {"state": ["Running", "Pending"]},
            {"state": {"Running", "Pending", "Failed"}, "type": "batch"},
            {"type": ("ops", "service", "ops")},
            {"namespace": "other"},
            {"namespace": ["other", "default"], "type": "ops", "state": "Pending"},
            {"namespace": "none"},
            {},
        ]
        for query in queries:
            expected = [job for job in everything if _meets(job, query)]
            expected.sort(key=lambda job: (job.created_at, job.id), reverse=descending)
            assert paged(jobs, limit, descending=descending, **query) == ids(expected), query
            assert jobs.count(**query) == len(expected), query

    def test_optional_fields(self, executions: ExecutionStore) -> None:
        """Records without a node are found by everything but a node."""
        for n in range(9):
            executions.create(Execution(id=str(n), job_id=f"j{n % 2}", node_id=NODES[n % 3]))
        assert ids(executions.find(node_id="n1")) == ["0", "3", "6"]
        assert ids(executions.find(node_id=["n2", "n1"], job_id="j0")) == ["0", "4", "6"]
        assert ids(executions.find(job_id="j1")) == ["1", "3", "5", "7"]
        executions.update("0", node_id=None)
        assert ids(executions.find(node_id="n1")) == ["3", "6"]

    @pytest.mark.parametrize("selector", SELECTORS)
    def test_label_selectors(self, jobs: JobStore, selector: str) -> None:
        """Each operator of label selectors finds what it finds in Kubernetes, alone, beside other
        filters, in every order and direction, in pages of any size, and counts as many.
        """
        everything = create_jobs(jobs, 40)
        for query in ({}, {"state": "Running"}, {"type": ["ops", "batch"]}):
            found = [j for j in everything if _meets(j, query) and SELECTORS[selector](j.labels)]
            assert jobs.count(labels=selector, **query) == len(found)
            for descending in (False, True):
                found.sort(key=lambda job: (job.created_at, job.id), reverse=descending)
                for limit in (2, 50):
                    assert paged(
                        jobs, limit, labels=selector, descending=descending, **query
                    ) == ids(found)
            by_change = sorted(found, key=lambda job: (job.modified_at, job.id))
            assert paged(jobs, 3, labels=selector, sort="modified_at", **query) == ids(by_change)

    def test_changed_labels(self, jobs: JobStore) -> None:
        """A record is found by the labels that it has now."""
        jobs.create(Job(id="j", labels={"a": "1", "b": "1"}))
        jobs.update("j", labels={"a": "2", "c": "1"})
        found = {text: len(jobs.find(labels=text)) for text in ("a=1", "a=2", "b", "c", "a")}
        assert found == {"a=1": 0, "a=2": 1, "b": 0, "c": 1, "a": 1}

    def test_awkward_labels(self, jobs: JobStore) -> None:
        """Labels and values with slashes, dots, accents and emoji are found by themselves."""
        labels = {"storebridge.org/é": "v-1.0", "😀": "\uffff", "a/b": "c:d"}
        jobs.create(Job(id="j", labels=labels))
        jobs.create(Job(id="k", labels={"a/b": "c:", "storebridge.org/e": "v-1.0"}))
        for label, value in labels.items():
            assert ids(jobs.find(labels=f"{label}={value}")) == ["j"]
            assert ids(jobs.find(labels=f"{label} in ({value}, other)")) == ["j"]

    def test_time_bounds(self, jobs: JobStore) -> None:
        """`created_from` is inclusive and `created_until` exclusive, in every order and with every
        filter; nothing lies between equal bounds.
        """
        everything = create_jobs(jobs, 24)
        times = sorted({job.created_at for job in everything})
        start, end = times[1], times[-2]
        queries: list[dict[str, Any]] = [
            {},
            {"sort": "modified_at"},
            {"sort": "id"},
            {"state": ["Pending", "Running"]},
            {"labels": "app"},
            {"labels": "app in (web, db)"},
            {"type": "ops", "labels": "!tier"},
        ]
        for query in queries:
            unbounded = {job.id for job in jobs.each(**query)}
            expected = {j.id for j in everything if start <= j.created_at < end} & unbounded
            found = paged(jobs, 5, created_from=start, created_until=end, **query)
            assert len(found) == len(set(found))
            assert set(found) == expected, query
            assert jobs.count(created_from=start, created_until=end, **query) == len(expected)
            assert jobs.count(created_from=start, created_until=start, **query) == 0
            assert jobs.count(created_from=end, created_until=start, **query) == 0

    @pytest.mark.parametrize("descending", [False, True])
    def test_orders(self, jobs: JobStore, descending: bool) -> None:
        """Sorted by id, creation or modification, ties by id, both ways, over any pages."""
        everything = create_jobs(jobs, 30)
        keys: dict[str, Callable[[Job], Any]] = {
            "id": lambda job: job.id,
            "created_at": lambda job: (job.created_at, job.id),
            "modified_at": lambda job: (job.modified_at, job.id),
        }
        for sort, key in keys.items():
            expected = ids(sorted(everything, key=key, reverse=descending))
            for limit in (1, 7, 30, 31):
                assert paged(jobs, limit, sort=sort, descending=descending) == expected

    def test_prefixes(self, jobs: JobStore) -> None:
        """Ids are found by their prefix, in order, over awkward text and both ways."""
        names = ["a", "a ", "a!", "ab", "aé", "a\ud7ff", "a\ue000", "a\uffff", "a😀", "b"]
        names += ["a\U0010ffff", "a\U0010ffffz", "\U0010ffff", "A"]
        for name in names:
            jobs.create(Job(id=name))
        for prefix in ("a", "a ", "a\ud7ff", "a\U0010ffff", "\U0010ffff", "b", "c", "aé"):
            expected = sorted(name for name in names if name.startswith(prefix))
            assert paged(jobs, 2, prefix=prefix) == expected, prefix
            assert paged(jobs, 2, prefix=prefix, descending=True) == expected[::-1]
            assert jobs.count(prefix=prefix) == len(expected)
        assert paged(jobs, 3, prefix="a", state="Running") == []

    def test_resolve(self, jobs: JobStore) -> None:
        """A prefix stands for the one id that starts with it; an id stands for itself even where
        others start with it; more than one is ambiguous and says which.
        """
        for name in ("j-1", "j-12", "j-2", "k"):
            jobs.create(Job(id=name))
        assert [jobs.resolve(text) for text in ("j-1", "j-12", "j-2", "k", "j-12")] == [
            "j-1",
            "j-12",
            "j-2",
            "k",
            "j-12",
        ]
        with pytest.raises(AmbiguousIdError, match=r"j-1, j-12"):
            jobs.resolve("j")
        with pytest.raises(RecordNotFoundError, match="'x'"):
            jobs.resolve("x")

    @pytest.mark.parametrize(
        "query",
        [
            {},
            {"state": ["Pending", "Running", "Queued"]},
            {"namespace": "default"},
            {"labels": "app"},
            {"labels": "app in (web, db, new)"},
            {"sort": "id"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("descending", [False, True])
    def test_pages_hold_still(
        self, jobs: JobStore, query: dict[str, Any], descending: bool
    ) -> None:
        """While records are added, changed and deleted between two pages, a record that was there
        all the time comes exactly once.
        """
        for n in range(30):
            jobs.create(Job(id=f"{n:02}", labels={"app": "web" if n % 2 else "db"}))
        seen: list[str] = []
        gone: set[str] = set()
        for step, page in enumerate(pages(jobs, 4, descending=descending, **query)):
            seen += page
            for record_id in (page[0], f"{(step * 11) % 30:02}"):
                if record_id not in gone:
                    jobs.update(record_id, priority=step)
            victim = f"{(step * 7 + 3) % 30:02}"
            if victim not in gone:
                jobs.delete(victim)
                gone.add(victim)
            jobs.create(Job(id=f"{(step * 5) % 30:02}+{step}", labels={"app": "new"}))
        assert len(seen) == len(set(seen))
        stayed = {f"{n:02}" for n in range(30)} - gone
        assert stayed <= set(seen)

    def test_the_record_of_a_cursor_may_go(self, jobs: JobStore) -> None:
        """A page goes on behind a record that has been deleted since."""
        for n in range(6):
            jobs.create(Job(id=str(n)))
        for query in ({}, {"state": ["Pending", "Running"]}, {"sort": "id"}):
            page = jobs.find(limit=2, **query)
            with pytest.raises(ZeroDivisionError), jobs.database.transaction():
                for record in page:
                    jobs.delete(record.id)
                assert ids(jobs.find(limit=2, cursor=page.cursor, **query)) == ["2", "3"]
                raise ZeroDivisionError

    def test_foreign_cursors(self, jobs: JobStore, executions: ExecutionStore) -> None:
        """A cursor of another query or store, a damaged one and what is none are refused."""
        for n in range(4):
            jobs.create(Job(id=f"{n}", labels={"a": "b"}))
            executions.create(Execution(id=f"{n}", job_id="j"))
        cursor = jobs.find(limit=2, state=["Pending"]).cursor
        assert cursor is not None
        assert ids(jobs.find(limit=1, state="Pending", cursor=cursor)) == ["2"]
        queries: list[dict[str, Any]] = [
            {},
            {"state": "Running"},
            {"state": "Pending", "descending": True},
            {"state": "Pending", "sort": "modified_at"},
            {"state": "Pending", "labels": "a"},
            {"state": "Pending", "created_from": START},
        ]
        for query in queries:
            with pytest.raises(InvalidQueryError, match="cursor"):
                jobs.find(cursor=cursor, **query)
        with pytest.raises(InvalidQueryError, match="cursor"):
            executions.find(cursor=jobs.find(limit=2).cursor)
        for damaged in ("", "x", "é", cursor[:-3], "W1tb", "[" * 5000, "Ww" * 5000, 5, b"x"):
            with pytest.raises(InvalidQueryError, match="cursor"):
                jobs.find(state="Pending", cursor=damaged)  # type: ignore[arg-type]

    def test_forged_cursors(self, jobs: JobStore) -> None:
        """A cursor with a position that no record of the query can have is refused."""
        for n in range(3):
            jobs.create(Job(id=f"{n}"))
        forged: tuple[list[Any], ...] = ([], [1], [1, 2], ["x", "y"], [2**70, "x"], [1, "x", "y"])
        queries: list[dict[str, Any]] = [{}, {"state": ["Pending", "Running"]}, {"sort": "id"}]
        for position in (*forged, [None, "x"], [1, "\ud800"], ["\ud800"], [1, "a\0"]):
            for query in queries:
                found = jobs.find(limit=1, **query).cursor
                assert found is not None
                with pytest.raises(InvalidQueryError, match="cursor"):
                    jobs.find(cursor=_forged(found, position), **query)

    def test_cursors_outlive_a_process(self, jobs: JobStore) -> None:
        """A cursor depends on nothing that differs from process to process, such as the order of
        a set or of arguments.
        """
        for n in range(4):
            jobs.create(Job(id=f"{n}"))
        states = ["Running", "Pending", "Queued", "Failed"]
        cursor = jobs.find(limit=2, state=states, type="batch").cursor
        assert ids(jobs.find(type=["batch"], state=states[::-1], cursor=cursor)) == ["2", "3"]

    def test_what_cannot_be_asked(self, jobs: JobStore, executions: ExecutionStore) -> None:
        """What cannot be asked is an InvalidQueryError that says what can."""
        bad: list[dict[str, Any]] = [
            {"priority": 1},
            {"id": "x"},
            {"state": "Pnding"},
            {"state": []},
            {"state": None},
            {"state": 5},
            {"namespace": ""},
            {"namespace": "a\0"},
            {"namespace": "\ud800"},
            {"namespace": "x" * 400},
            {"type": ["batch", None]},
            {"sort": "name"},
            {"sort": "created_at", "prefix": "x"},
            {"prefix": "\ud800"},
            {"prefix": "a\0"},
            {"prefix": 5},
            {"limit": 0},
            {"limit": -1},
            {"limit": 10_001},
            {"limit": True},
            {"limit": "5"},
            {"created_from": START.replace(tzinfo=None)},
            {"created_until": "2026-01-01"},
            {"labels": "a=\ud800"},
            {"labels": "a in ()"},
            {"labels": "a in (b"},
            {"labels": "a=b,"},
            {"labels": "a=b=c"},
            {"labels": "x" * 200},
            {"labels": {"a": "b"}},
            {"labels": 5},
        ]
        for query in bad:
            with pytest.raises(InvalidQueryError) as caught:
                jobs.find(**query)
            assert "\n" not in str(caught.value)
        calls: Calls = (
            lambda: executions.find(labels="a"),
            lambda: executions.versions("e"),
            lambda: executions.get_unique(),
            lambda: executions.get_unique(id="e"),
            lambda: jobs.get_unique(name="n"),
            lambda: jobs.get_unique(name="n", namespace=5),
            lambda: jobs.get_unique(name="a\0", namespace="b"),
        )
        for call in calls:
            with pytest.raises(InvalidQueryError):
                call()


def _forged(cursor: str, position: list[Any]) -> str:
    """A cursor of the same query with another position."""
    digest = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))[0]
    return base64.urlsafe_b64encode(json.dumps([digest, *position]).encode()).decode()


def _meets(job: Job, query: dict[str, Any]) -> bool:
    for name, value in query.items():
        wanted = [value] if isinstance(value, str) else value
        if getattr(job, name) not in wanted:
            return False
    return True
