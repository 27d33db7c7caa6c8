"""What is sent without waiting for an answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

from storebridge.driver import Driver, DriverError, ErrorKind, Field, Pipelined, Table
from storebridge.driver import PipelinedTransaction as Transaction
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import ENTRY, LAYOUT, TABLES, entry
from tests.unit.sqlalchemy.conftest import Open

FIRST, SECOND = (
    Table(f"suite-{name}", (Field("record_id"), Field("sequence", "integer")))
    for name in ("first", "second")
)


def opened_with_histories(opened: Open, **options: object) -> Driver:
    driver = opened(**options)
    driver.create_tables((*TABLES, FIRST, SECOND), LAYOUT)
    return driver


@pytest.fixture
def one(opened: Open) -> Driver:
    return opened_with_histories(opened)


def begin(driver: Driver) -> Transaction:
    assert isinstance(driver, Pipelined)
    return driver.begin_pipelined()


def test_add(one: Driver) -> None:
    """What is new is inserted; what is there stays as it is, and so does all else."""
    with writing(one) as transaction:
        transaction.insert(ENTRY.name, ("a",), entry(node="n"), b"old")
    pipelined = begin(one)
    pipelined.add(ENTRY.name, ("a",), entry(node="m"), b"new")
    pipelined.add(ENTRY.name, ("b",), entry(node="m"), b"new")
    assert pipelined.get(ENTRY.name, ("a",)) == b"old"
    pipelined.commit()
    with reading(one) as reader:
        assert reader.get(ENTRY.name, ("a",)) == b"old"
        assert reader.get(ENTRY.name, ("b",)) == b"new"


def test_a_clash_is_told_at_the_end(one: Driver) -> None:
    """What fails of that which was only sent fails the transaction, and nothing of it is kept."""
    with writing(one) as transaction:
        transaction.insert(ENTRY.name, ("a",), entry(name="taken"), b"{}")
    pipelined = begin(one)
    pipelined.add(ENTRY.name, ("b",), entry(name="taken"), b"{}")
    sleep(0.1)  # the answer has come long ago
    pipelined.add(ENTRY.name, ("c",), entry(), b"{}")
    pipelined.add(ENTRY.name, ("d",), entry(), b"{}")
    with pytest.raises(DriverError) as caught:
        pipelined.commit()
    assert caught.value.kind is ErrorKind.CONFLICT
    with reading(one) as reader:
        assert reader.get(ENTRY.name, ("b",)) is reader.get(ENTRY.name, ("c",)) is None


def test_what_stood_behind_a_failure(one: Driver) -> None:
    """What was sent behind something that failed was never looked at: the same words mean the same
    the next time, also where they have just become a prepared statement.
    """
    with writing(one) as transaction:
        transaction.insert(ENTRY.name, ("a",), entry(name="taken"), b"{}")
    for turn in range(1, 25):
        pipelined = begin(one)
        if turn % 8 == 6:
            pipelined.add(ENTRY.name, ("b",), entry(name="taken"), b"{}")
        pipelined.remove(ENTRY.name, ("nothing",), entry())
        pipelined.number({"sequence": 1}, "sequence", [(FIRST.name, (str(turn),), b"x")])
        if turn % 8 == 6:
            with pytest.raises(DriverError, match="duplicate key"):
                pipelined.commit()
        else:
            pipelined.commit()
    with reading(one) as reader:
        assert reader.totals("sequence") == {"sequence": 21}


def test_removing_what_is_not_there(one: Driver) -> None:
    """Is no error."""
    pipelined = begin(one)
    pipelined.remove(ENTRY.name, ("a",), entry())
    pipelined.add(ENTRY.name, ("b",), entry(), b"{}")
    pipelined.commit()
    with reading(one) as reader:
        assert reader.get(ENTRY.name, ("b",)) == b"{}"


def test_numbers(one: Driver) -> None:
    """Entries of several tables are numbered in their order, without a gap, by what the integer is
    afterwards.
    """
    for done in range(2):
        pipelined = begin(one)
        entries = [
            (FIRST.name, ("a",), b"1"),
            (SECOND.name, ("a",), b"2"),
            (FIRST.name, ("b",), b"\xff\0"),
        ]
        pipelined.number({"sequence": 3, "other": -1}, "sequence", entries)
        pipelined.commit()
        with reading(one) as reader:
            assert reader.totals("") == {"sequence": 3 * (done + 1), "other": -done - 1}
            last = 3 * (done + 1)
            assert reader.get(FIRST.name, ("a", last - 2)) == b"1"
            assert reader.get(SECOND.name, ("a", last - 1)) == b"2"
            assert reader.get(FIRST.name, ("b", last)) == b"\xff\0"
    pipelined = begin(one)
    pipelined.number({"sequence": 1}, "sequence", [(FIRST.name, ("a",), b"gone")])
    pipelined.rollback()
    with reading(one) as reader:
        assert reader.totals("sequence") == {"sequence": 6}


def test_numbers_of_many_writers(one: Driver, opened: Open) -> None:
    """However many number at once: each number is given once, and who reads up to one has seen
    all before it.
    """
    drivers = [one, opened_with_histories(opened), opened_with_histories(opened)]

    def work(driver: Driver) -> None:
        for _ in range(60):
            pipelined = begin(driver)
            pipelined.number({"sequence": 2}, "sequence", [(FIRST.name, ("a",), b"x")] * 2)
            pipelined.commit()

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(work, driver) for driver in drivers]
        while not all(call.done() for call in calls):
            with reading(one) as reader:
                last = reader.totals("sequence").get("sequence", 0)
                there = [n for n in range(1, last + 1) if reader.get(FIRST.name, ("a", n))]
            assert there == list(range(1, last + 1))
        for call in calls:
            call.result()
    assert last <= 360
    with reading(one) as reader:
        assert reader.totals("sequence") == {"sequence": 360}


def test_waiting_too_long_for_numbers(one: Driver, opened: Open) -> None:
    """Where somebody else keeps the numbers, the commit is LOCKED, and nothing of it is kept."""
    holder = one.begin(write=True)
    holder.tally({"sequence": 1})
    impatient = opened_with_histories(opened, lock_timeout=0.2)
    pipelined = begin(impatient)
    pipelined.add(ENTRY.name, ("a",), entry(), b"{}")
    pipelined.number({"sequence": 1}, "sequence", [(FIRST.name, ("a",), b"x")])
    with pytest.raises(DriverError, match="another transaction has locked") as caught:
        pipelined.commit()
    assert caught.value.kind is ErrorKind.LOCKED
    holder.commit()
    with reading(one) as reader:
        assert reader.totals("sequence") == {"sequence": 1}
        assert reader.get(ENTRY.name, ("a",)) is None
