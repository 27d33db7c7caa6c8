"""What a hand or an older or newer service wrote: read, kept, found by `check`, mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from storebridge import (
    ConflictError,
    CorruptStoreError,
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    NewerRecordError,
    Page,
    RecordSpec,
    RecordStore,
)
from storebridge.check import check, repair
from storebridge.driver import Values
from storebridge.testing.stores.base import (
    Calls,
    StoreTests,
    all_rows,
    assert_sound,
    edit_body,
    ids,
)
from storebridge.testing.stores.finding import paged
from storebridge.testing.stores.versions import MACHINE, NEW, OLD, New, Old, to_bytes, with_note

BROKEN = {
    "no JSON": b"garbage",
    "empty": b"",
    "cut off": b'{"v":1,"id":"1"',
    "not UTF-8": b'\xff{"v":1}',
    "another type": b"[1,2]",
    "deep": b"[" * 20_000,
    "version 0": b'{"v":0}',
    "version as text": b'{"v":"1"}',
    "a missing field": b'{"v":1,"id":"1","state":"Pending"}',
}


def edit_values(
    store: RecordStore[Any], record_id: str, change: Callable[[Values], Values]
) -> None:
    """Write other columns beside an unchanged body, as an edit by hand in SQL does."""
    table = store.layout.record.name
    body = store.database.get(table, (record_id,))
    assert body is not None
    values = store._write._columns.of(store.codec.decode(body))
    store.database.write(
        lambda unit: unit.engine.replace(table, (record_id,), values, change(values), body)
    )


class MendingStoreTests(StoreTests):
    """Unreadable bodies, edits by hand, `check` and `repair`."""

    @pytest.mark.parametrize("broken", BROKEN)
    def test_quarantine(self, database: Database, executions: ExecutionStore, broken: str) -> None:
        """A record whose body cannot be read is listed as quarantined by every way of finding, is
        never dropped or overwritten, and keeps nobody from the others.
        """
        for number in range(4):
            executions.create(Execution(id=str(number), job_id="j", node_id="n"))
        body = edit_body(executions, "1", lambda _: BROKEN[broken])
        calls: Calls = (
            lambda: executions.get("1"),
            lambda: executions.update("1", message="x"),
            lambda: executions.set_state("1", "Running"),
            lambda: executions.delete("1"),
        )
        for call in calls:
            with pytest.raises(CorruptStoreError, match="'1' is quarantined") as caught:
                call()
            assert "\n" not in str(caught.value)
        queries: list[dict[str, Any]] = [
            {},
            {"state": "Created"},
            {"state": ["Created", "Running"]},
            {"node_id": ["n", "m"]},
            {"sort": "id"},
            {"sort": "modified_at"},
        ]
        for query in queries:
            page = executions.find(**query)
            assert (ids(page), page.quarantined) == (["0", "2", "3"], ["1"]), query
            assert paged(executions, 1, **query)[-3:] == ["0", "2", "3"]
        assert [name for name, _ in executions.quarantined()] == ["1"]
        executions.set_state("0", "Running")
        executions.delete("2")
        executions.create(Execution(id="4", job_id="j"))
        assert executions.count() == 4
        assert executions.history("1")[0].kind == "created"
        assert database.get("execution", ("1",)) == body
        assert executions.resolve("1") == "1"

    @pytest.mark.parametrize("descending", [False, True])
    def test_quarantined_once(self, executions: ExecutionStore, descending: bool) -> None:
        """Page by page, each unreadable record is listed once, on the page that passes it."""
        for number in range(6):
            executions.create(Execution(id=str(number), job_id="j"))
        for number in (1, 3):
            executions.set_state(str(number), "Running")
        for number in (2, 4, 5):
            edit_body(executions, str(number), lambda _: b"{")
        for states in (["Created"], ["Created", "Running"]):
            pages = list(_pages(executions, 1, state=states, descending=descending))
            met = [one for page in pages for one in page.quarantined]
            assert met == sorted(["2", "4", "5"], reverse=descending)

    def test_discard(self, database: Database, jobs: JobStore) -> None:
        """A quarantined record can be discarded by its id: then nothing of it is left but its
        history, counters included; one that can be read cannot be discarded.
        """
        jobs.create(Job(id="1", labels={"a": "b"}))
        jobs.create(Job(id="2", name="n", labels={"a": "b"}))
        jobs.update("2", priority=1)
        jobs.set_state("2", "Running")
        with pytest.raises(ConflictError, match="can be read") as caught:
            jobs.discard("2")
        assert caught.value.found == jobs.get("2")
        edit_body(jobs, "2", lambda _: b"garbage")
        jobs.discard("2")
        assert ids(jobs.find()) == ids(jobs.find(labels="a")) == ["1"]
        assert (jobs.count(), jobs.counts()["Running"]) == (1, 0)
        assert [event.kind for event in jobs.history("2")][-1] == "deleted"
        assert_sound(database)
        jobs.create(Job(id="2", name="n"))
        assert_sound(database)

    def test_unreadable_versions(
        self, database: Database, jobs: JobStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An old version that cannot be read keeps nobody from the others; the log names it."""
        jobs.create(Job(id="1"))
        for priority in (1, 2, 3):
            jobs.update("1", priority=priority)
        key = ("1", 2)
        database.write(lambda unit: unit.engine.replace("job-version", key, (), (), b"{"))
        assert [job.priority for job in jobs.versions("1")] == [0, 2]
        assert "version 2 of job '1' is left out" in caplog.text

    def test_unreadable_labels(self, database: Database, jobs: JobStore) -> None:
        """Found by its labels, too, an unreadable record is listed as quarantined."""
        jobs.create(Job(id="1", labels={"a": "b"}))
        jobs.create(Job(id="2", labels={"a": "b"}))
        edit_body(jobs, "1", lambda _: b"garbage")
        for selector in ("a", "a=b", "a in (b, c)"):
            page = jobs.find(labels=selector)
            assert (ids(page), page.quarantined) == (["2"], ["1"])
        repair(database)
        assert [label[0][-1] for label in all_rows(database, "job-label")] == ["1", "2"]

    def test_check_names_quarantined_records(self, database: Database, jobs: JobStore) -> None:
        """`check` names records that cannot be read; `repair` leaves their bodies as they are, and
        the others whole.
        """
        for number in range(3):
            jobs.create(Job(id=str(number), labels={"a": "b"}))
        body = edit_body(jobs, "1", lambda _: b"garbage")
        assert [fault.key for fault in check(database)] == [("1",)]
        repair(database)
        assert [fault.key for fault in check(database)] == [("1",)]
        assert database.get("job", ("1",)) == body
        assert jobs.find(state="Pending").quarantined == ["1"]
        jobs.discard("1")
        assert_sound(database)

    @pytest.mark.parametrize("column", range(7))
    def test_columns_edited_by_hand(
        self, database: Database, executions: ExecutionStore, column: int
    ) -> None:
        """A column and its index entries edited by hand are found by `check`, which names the
        record, and mended by `repair` from the body; no other record is lost meanwhile.
        """
        names = executions.layout.record.columns
        if column >= len(names):
            return
        for number in range(5):
            executions.create(Execution(id=str(number), job_id="j", node_id="n"))
        wrong: Any = "Running" if names[column].type == "text" else 5
        edit_values(executions, "2", lambda v: (*v[:column], wrong, *v[column + 1 :]))
        assert {fault.key for fault in check(database) if fault.key} == {("2",)}
        others = ["0", "1", "3", "4"]
        for query in ({}, {"state": ["Created", "Running"]}, {"node_id": ["n", "m"]}):
            for limit in (1, 2, 10):
                found = _paged_at_most(executions, limit, **query)
                assert [name for name in found if name != "2"] == others, (query, limit)
        report = repair(database)
        assert report.faults >= 1
        assert_sound(database)
        assert ids(executions.find(state="Created", node_id="n")) == list("01234")

    @pytest.mark.parametrize("years", [-30, 30])
    def test_a_time_edited_by_hand_hides_nobody(
        self, executions: ExecutionStore, years: int
    ) -> None:
        """A time column edited to long before or after makes no page of several sources pass over
        another record, or repeat for ever.
        """
        for number in range(12):
            executions.create(Execution(id=f"{number:02}", job_id="j", node_id=f"n{number % 3}"))
        away = round(timedelta(days=365 * years).total_seconds() * 1e6)
        edit_values(executions, "03", lambda v: (v[0] + away, *v[1:]))  # type: ignore[operator]
        others = [f"{number:02}" for number in range(12) if number != 3]
        for descending in (False, True):
            for limit in (1, 2, 3, 5, 20):
                found = _paged_at_most(
                    executions, limit, node_id=["n0", "n1", "n2"], descending=descending
                )
                expected = others[::-1] if descending else others
                assert [name for name in found if name != "03"] == expected
                assert found.count("03") in (1, 2)

    def test_labels_edited_by_hand(self, database: Database, jobs: JobStore) -> None:
        """A label taken away or added by hand is found by `check` and mended by `repair`."""
        jobs.create(Job(id="1", labels={"a": "b", "c": "d"}))
        jobs.create(Job(id="2", labels={"a": "b"}))
        entries = dict(all_rows(database, "job-label"))
        some = entries["a", "b", "1"]
        values = jobs._write._columns.of(jobs.get("1"))[:1]
        database.write(lambda unit: unit.engine.remove("job-label", ("a", "b", "1"), values))
        database.write(lambda unit: unit.engine.insert("job-label", ("x", "y", "2"), values, some))
        database.write(lambda unit: unit.engine.insert("job-label", ("x", "y", "9"), values, some))
        keys = {fault.key for fault in check(database)}
        assert keys == {("a", "b", "1"), ("x", "y", "2"), ("x", "y", "9")}
        assert "9" not in ids(jobs.find(labels="x"))
        jobs.delete("1")
        jobs.create(Job(id="1", labels={"a": "b", "c": "d"}))
        assert repair(database).labels == 2
        assert_sound(database)
        assert dict(all_rows(database, "job-label")).keys() == entries.keys()

    @pytest.mark.parametrize(
        "labels",
        [b'{"a":5}', b'{"":"x"}', b'{"a\\u0000":"x"}', b"[1]", b'{"a":"\\ud800"}'],
        ids=str,
    )
    def test_senseless_labels_in_a_body(
        self, database: Database, jobs: JobStore, labels: bytes
    ) -> None:
        """Labels in a body that no index could hold do not keep `check` and `repair` from the
        other records.
        """
        jobs.create(Job(id="1", labels={"a": "b"}))
        jobs.create(Job(id="2", labels={"a": "b"}))
        edit_body(jobs, "1", lambda body: body.replace(b'{"a":"b"}', labels))
        database.write(lambda unit: unit.engine.remove("job-label", ("a", "b", "2"), None))
        assert ("a", "b", "2") in {fault.key for fault in check(database)}
        repair(database)
        assert ids(jobs.find(labels="a=b"))[-1:] == ["2"]

    def test_a_state_nobody_knows(self, database: Database, jobs: JobStore) -> None:
        """A record whose state a hand changed to one that there is none of can be found, named by
        `check`, and deleted.
        """
        jobs.create(Job(id="1"))
        jobs.create(Job(id="2"))
        edit_body(jobs, "1", lambda body: body.replace(b'"Pending"', b'"Pendong"'))
        assert any(fault.key == ("1",) for fault in check(database))
        repair(database)
        assert jobs.get("1").state == "Pendong"
        assert jobs.counts()["Pending"] == jobs.count() == 1
        with pytest.raises(ConflictError, match="Pendong"):
            jobs.set_state("1", "Running")
        jobs.update("1", priority=1)
        jobs.delete("1")
        assert_sound(database)

    def test_drifted_counters(self, database: Database, jobs: JobStore) -> None:
        """Counters that say something else than the records are found, named and mended."""
        jobs.create(Job(id="1"))
        jobs.set_state("1", "Running")
        database.write(lambda unit: unit.engine.tally({"job Running": 3, "job Nonsense": 2}))
        problems = sorted(fault.problem for fault in check(database))
        assert problems == ["counter 'Nonsense' is off by +2", "counter 'Running' is off by +3"]
        (report,) = repair(database).recounts
        assert report.drift == {"Running": 3, "Nonsense": 2}
        assert report.repaired
        assert_sound(database)

    def test_nothing_to_mend(self, database: Database, jobs: JobStore) -> None:
        """A sound database is found sound, and repairing it changes nothing."""
        jobs.create(Job(id="1", labels={"a": "b"}))
        jobs.update("1", priority=1)
        before = {table.name: all_rows(database, table.name) for table in database.tables()}
        assert list(check(database)) == []
        report = repair(database)
        assert (report.faults, report.tables, report.labels) == (0, (), 0)
        assert {t.name: all_rows(database, t.name) for t in database.tables()} == before


def _pages(store: RecordStore[Any], limit: int, **query: Any) -> Iterator[Page[Any]]:
    """The pages of a query; AssertionError for more of them than could be needed."""
    cursor = None
    for _ in range(40):
        page = store.find(limit=limit, cursor=cursor, **query)
        yield page
        cursor = page.cursor
        if cursor is None:
            return
    raise AssertionError("pages without end")


def _paged_at_most(store: RecordStore[Any], limit: int, **query: Any) -> list[str]:
    """As `paged`, but for not more pages than could be needed."""
    return [one for page in _pages(store, limit, **query) for one in ids(page)]


class RecordVersionTests(StoreTests):
    """Services with different versions of a record type on one database."""

    @pytest.fixture
    def things(self, database: Database) -> tuple[RecordStore[Old], RecordStore[New]]:
        return RecordStore(database, OLD), RecordStore(database, NEW)

    def test_older_records_are_upgraded(
        self, things: tuple[RecordStore[Old], RecordStore[New]]
    ) -> None:
        """A record of an older version is upgraded step by step when read, wherever it is met, and
        written in the new version when changed; unread and unchanged it stays as it is.
        """
        old, new = things
        for number in range(3):
            old.create(Old(id=str(number), kilobytes=number))
        before = all_rows(old.database, "thing")
        assert [(n.bytes, n.note) for n in new.find(state="Open")] == [
            (0, "upgraded"),
            (1024, "upgraded"),
            (2048, "upgraded"),
        ]
        assert new.get("2").bytes == 2048
        assert all_rows(old.database, "thing") == before
        new.update("1", note="mine")
        new.set_state("2", "Closed")
        written = {key[0]: msgspec.json.decode(b) for key, b in all_rows(old.database, "thing")}
        assert [written[i]["v"] for i in "012"] == [1, 3, 3]
        assert (written["1"]["note"], written["2"]["bytes"]) == ("mine", 2048)
        assert_sound(old.database)

    def test_newer_records_are_not_written(
        self, things: tuple[RecordStore[Old], RecordStore[New]]
    ) -> None:
        """A record of a newer version is read as far as it is understood, and refused to be
        changed, deleted or discarded: no field is lost.
        """
        old, new = things
        new.create(New(id="1", bytes=5, note="kept"))
        new.create(New(id="2"))
        before = all_rows(old.database, "thing")
        assert old.get("1").state == "Open"
        assert ids(old.find(state="Open")) == ["1", "2"]
        calls: Calls = (
            lambda: old.update("1", kilobytes=1),
            lambda: old.set_state("1", "Closed"),
            lambda: old.delete("1"),
        )
        for call in calls:
            with pytest.raises(NewerRecordError, match=r"version 3.*upgrade the service"):
                call()
        with pytest.raises(ConflictError):
            old.discard("1")
        assert all_rows(old.database, "thing") == before
        assert old.counts() == new.counts() == {"Open": 2, "Closed": 0}
        assert new.set_state("1", "Closed").note == "kept"

    def test_a_failing_upgrade(self, database: Database) -> None:
        """A record that an upgrade function cannot upgrade is quarantined, and the others go on."""
        RecordStore(database, OLD).create(Old(id="1", kilobytes=1))
        RecordStore(database, OLD).create(Old(id="2", kilobytes=2))

        def picky(members: dict[str, Any]) -> dict[str, Any]:
            return to_bytes(members) if members["id"] == "2" else members["nonsense"]

        spec = RecordSpec(name="thing", type=New, machine=MACHINE, filters=("state",),
                          upgrades={1: picky, 2: with_note})  # fmt: skip
        store = RecordStore(database, spec)
        page = store.find()
        assert (ids(page), page.quarantined) == (["2"], ["1"])
        with pytest.raises(CorruptStoreError, match="'1' is quarantined"):
            store.update("1", note="x")
        assert RecordStore(database, OLD).get("1").kilobytes == 1
