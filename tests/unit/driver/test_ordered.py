"""The contract over ordered bytes: what it does to the engine below, which the conformance suite
does not see. The engine is the one in memory, with its calls written down.
"""

from __future__ import annotations

from typing import Any

import pytest
from storebridge_memory.driver import MemoryDriver

from storebridge.driver.contract import (
    DriverError,
    ErrorKind,
    Field,
    Index,
    Key,
    Range,
    Table,
    UniqueClash,
    Values,
)
from storebridge.driver.mapengine import MapEngine

JOB = Table(
    "job",
    (Field("id"),),
    (Field("state"), Field("created_at", "integer"), Field("name", optional=True)),
    (
        Index("state", ("state", "created_at", "id")),
        Index("created", ("created_at", "id")),
        Index("name", ("name",), unique=True),
    ),
)
LOG = Table("job-history", (Field("id"), Field("sequence", "integer")))


class Recorder(MapEngine):
    """Writes down what is changed."""

    calls: list[tuple[Any, ...]]

    def put(self, space: str, key: bytes, value: bytes) -> None:
        self.calls.append(("put", space, key))
        super().put(space, key, value)

    def put_new(self, space: str, key: bytes, value: bytes) -> bool:
        self.calls.append(("put_new", space, key))
        return super().put_new(space, key, value)

    def delete(self, space: str, key: bytes) -> None:
        self.calls.append(("delete", space, key))
        super().delete(space, key)


class RecordedDriver(MemoryDriver):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def _engine(self, write: bool) -> MapEngine:
        engine = Recorder(self._maps, write, self._publish)
        engine.calls = self.calls
        return engine


@pytest.fixture
def driver() -> RecordedDriver:
    driver = RecordedDriver()
    driver.create_tables([JOB, LOG], 1)
    txn = driver.begin(True)
    assert txn.insert("job", ("a",), ("Running", 1, "first"), b"A")
    assert txn.insert("job", ("b",), ("Running", 2, None), b"B")
    assert txn.insert("job", ("c",), ("Failed", 3, "third"), b"C")
    txn.commit()
    driver.calls.clear()
    return driver


BODIES: dict[bytes, Values] = {
    b"A": ("Running", 1, "first"),
    b"B": ("Running", 2, None),
    b"C": ("Failed", 3, "third"),
}


def values_of(key: Key, body: bytes) -> Values | None:
    return BODIES.get(body)


def test_replace_touches_only_the_index_entries_that_differ(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    txn.replace("job", ("b",), ("Running", 2, None), ("Failed", 2, None), b"B2")
    assert driver.calls == [
        ("delete", "job-index.state", b"Running 8000000000000002 b"),
        ("put", "job-index.state", b"Failed 8000000000000002 b"),
        ("put", "job", b"b"),
    ]
    txn.rollback()


def test_replace_with_the_same_values_touches_the_body_alone(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    txn.replace("job", ("a",), BODIES[b"A"] or (), BODIES[b"A"] or (), b"A2")
    assert driver.calls == [("put", "job", b"a")]
    txn.rollback()


def test_a_column_becomes_absent_and_present_again(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    txn.replace("job", ("a",), ("Running", 1, "first"), ("Running", 1, None), b"A")
    assert txn.count("job", Range("name")) == 1
    txn.replace("job", ("a",), ("Running", 1, None), ("Running", 1, "first"), b"A")
    assert txn.scan("job", Range("name"))[0] == [(("a",), b"A"), (("c",), b"C")]
    txn.rollback()


def test_an_insert_that_clashes_changes_nothing(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    with pytest.raises(UniqueClash, match="name"):
        txn.insert("job", ("d",), ("Running", 1, "first"), b"D")
    assert driver.calls == []
    txn.rollback()


def test_a_replace_that_clashes_changes_nothing(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    with pytest.raises(UniqueClash, match="name"):
        txn.replace("job", ("b",), ("Running", 2, None), ("Failed", 2, "first"), b"D")
    assert driver.calls == []
    txn.rollback()


def test_an_existing_key_is_told_before_a_clash(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    assert txn.insert("job", ("b",), ("Running", 1, "first"), b"D") is False
    assert driver.calls == []
    txn.rollback()


def test_an_index_entry_without_a_body_counts_for_the_position_only(
    driver: RecordedDriver,
) -> None:
    txn = driver.begin(True)
    txn._engine.delete("job", b"a")
    rows, position = txn.scan("job", Range("created", limit=2))
    assert (rows, position) == ([(("b",), b"B")], (2, "b"))
    assert txn.scan("job", Range("created", after=position)) == ([(("c",), b"C")], None)
    txn.rollback()


def test_removing_an_unreadable_body_takes_its_index_entries(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    txn.remove("job", ("c",), None)
    assert [txn.count("job", Range(by)) for by in (None, "state", "created", "name")] == [
        2,
        2,
        2,
        1,
    ]
    txn.commit()
    assert list(driver.begin(False).faults("job", values_of)) == []


def damage(driver: RecordedDriver) -> None:
    engine = driver._engine(True)
    engine.delete("job-index.state", b"Running 8000000000000001 a")
    engine.put("job-index.name", b"third", b"b")
    engine.put("job-index.created", b"8000000000000009 z", b"z")
    engine.put("job-index.created", b"8000000000000009 c", b"c")
    engine.commit()


def test_faults_name_what_disagrees_and_rebuild_mends_it(driver: RecordedDriver) -> None:
    damage(driver)
    found = {
        (fault.key, fault.problem.split(":")[0])
        for fault in driver.begin(False).faults("job", values_of)
    }
    assert found == {
        (("a",), "index state"),
        (("b",), "index name"),
        (("c",), "index name"),
        (("c",), "index created"),
        (("z",), "index created"),
    }
    txn = driver.begin(True)
    txn.rebuild("job", values_of)
    txn.commit()
    assert list(driver.begin(False).faults("job", values_of)) == []


def test_rebuild_keeps_the_entries_of_unreadable_bodies(driver: RecordedDriver) -> None:
    damage(driver)

    def only_a_and_b(key: Key, body: bytes) -> Values | None:
        return None if body == b"C" else values_of(key, body)

    txn = driver.begin(True)
    txn.rebuild("job", only_a_and_b)
    assert txn.scan("job", Range("state", ("Failed",)))[0] == [(("c",), b"C")]
    txn.commit()


def test_rebuild_goes_page_by_page(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    for number in range(1000):
        BODIES[b"%d" % number] = ("Running", number, None)
        txn.insert("job", (f"n{number}",), ("Queued", number, None), b"%d" % number)
    txn.rebuild("job", values_of)
    assert txn.count("job", Range("state", ("Running",))) == 1002
    assert list(txn.faults("job", values_of)) == []
    txn.rollback()


def test_of_two_bodies_that_claim_a_unique_entry_one_keeps_it(driver: RecordedDriver) -> None:
    engine = driver._engine(True)
    engine.put("job", b"d", b"A")
    engine.commit()
    txn = driver.begin(True)
    txn.rebuild("job", values_of)
    assert [fault.key for fault in txn.faults("job", values_of)] == [("d",)]
    txn.rollback()


def test_a_key_that_no_encoder_made_is_an_error_of_this_table_only(driver: RecordedDriver) -> None:
    engine = driver._engine(True)
    engine.put("job-history", b"not ours at all", b"")
    engine.commit()
    txn = driver.begin(False)
    with pytest.raises(DriverError, match="job-history") as caught:
        txn.scan("job-history", Range())
    assert caught.value.kind is ErrorKind.CORRUPT
    assert [fault.key for fault in txn.faults("job-history", values_of)] == [None]
    assert len(txn.scan("job", Range())[0]) == 3


def test_totals_are_decimal_text_and_found_by_prefix(driver: RecordedDriver) -> None:
    txn = driver.begin(True)
    txn.tally({"sequence": 3, "count.job.Running": 2, "count.job.Failed": -1})
    assert txn.tally({"sequence": 2}) == {"sequence": 5}
    txn.commit()
    txn = driver.begin(False)
    assert txn.totals("count.") == {"count.job.Running": 2, "count.job.Failed": -1}
    assert driver._engine(False).get("storebridge", b"tally sequence") == b"5"
    assert driver._engine(False).get("storebridge", b"layout") == b"1"


def test_a_total_that_is_no_number_is_named(driver: RecordedDriver) -> None:
    engine = driver._engine(True)
    engine.put("storebridge", b"tally sequence", b"many")
    engine.commit()
    with pytest.raises(DriverError, match="sequence"):
        driver.begin(False).totals("seq")


def test_many_totals_are_read_page_by_page(driver: RecordedDriver) -> None:
    deltas = {f"n{i:04d}": i for i in range(1200)}
    txn = driver.begin(True)
    txn.tally(deltas)
    assert txn.totals("n") == deltas
    txn.rollback()


def test_a_table_never_created_reads_as_empty(driver: RecordedDriver) -> None:
    txn = driver.begin(False)
    assert txn.get("later", ("a",)) is None
    assert txn.scan("later", Range()) == ([], None)
    assert (txn.count("later", Range()), list(txn.faults("later", values_of))) == (0, [])
    assert MemoryDriver().begin(False).totals("") == {}


def test_create_tables_writes_nothing_where_everything_is(driver: RecordedDriver) -> None:
    driver.create_tables([JOB, LOG], 1)
    assert driver.calls == []
    driver.create_tables([JOB, LOG], 2)
    assert (driver.layout(), driver.calls) == (2, [("put", "storebridge", b"layout")])


class ReadOnlyDriver(RecordedDriver):
    _writable = False


def test_a_read_only_driver_only_declares(driver: RecordedDriver) -> None:
    reader = ReadOnlyDriver()
    reader._maps = {name: each for name, each in driver._maps.items() if "created" not in name}
    extra = Table("extra", (Field("id"),))
    reader.create_tables([JOB, LOG, extra], 2)
    txn = reader.begin(False)
    assert (reader.layout(), reader.calls) == (1, [])
    assert txn.get("extra", ("a",)) is None
    assert len(txn.scan("job", Range("state"))[0]) == 3
    with pytest.raises(DriverError, match="no index created") as caught:
        txn.scan("job", Range("created"))
    assert caught.value.kind is ErrorKind.READ_ONLY
