"""Writers side by side: what one was told stays true until it ends, and only who needs the same
waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from storebridge import ConflictError, Job, JobStore, RecordExistsError, open_database
from storebridge.driver import (
    Driver,
    DriverError,
    ErrorKind,
    Field,
    Index,
    Range,
    Table,
    Transaction,
    UniqueClash,
)
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import ENTRY, LAYOUT, LOG, TABLES, entry
from tests.unit.sqlalchemy.conftest import Open

NUMBERED = Table(
    "suite-numbered",
    (Field("id"), Field("number", "integer")),
    indexes=(Index("number", ("number",), unique=True),),
)
LEARNING: dict[str, Callable[[Transaction], Any]] = {
    "scan": lambda t: t.scan(ENTRY.name, Range(by="state", prefix=("new",))),
    "scan by key": lambda t: t.scan(ENTRY.name, Range()),
    "count": lambda t: t.count(ENTRY.name, Range(by="node")),
    "totals": lambda t: t.totals(""),
    "absence": lambda t: t.get(ENTRY.name, ("new",)),
    "presence": lambda t: t.get(ENTRY.name, ("a",)),
    "key taken": lambda t: t.insert(ENTRY.name, ("a",), entry(), b"{}"),
    "numbered": lambda t: t.get(NUMBERED.name, ("x", 1)),
}


@pytest.fixture
def one(opened: Open) -> Driver:
    driver = opened()
    driver.create_tables((*TABLES, NUMBERED), LAYOUT)
    with writing(driver) as transaction:
        for key in "abc":
            transaction.insert(ENTRY.name, (key,), entry(name=key, node="n"), b"{}")
    return driver


@pytest.fixture
def other(one: Driver, opened: Open) -> Driver:
    driver = opened()
    driver.create_tables((*TABLES, NUMBERED), LAYOUT)
    return driver


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def is_waiting(future: Future[Any], driver: Driver) -> bool:
    """Whether the call waits for a lock on the server; it must, sooner or later."""
    deadline = time.monotonic() + 20
    while not future.done() and time.monotonic() < deadline:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        if driver._ask(waiting):  # type: ignore[attr-defined]
            return True
    return False


def change_everything(driver: Driver) -> None:
    """In one transaction: whatever another one had learned is true no more."""
    with writing(driver) as transaction:
        transaction.insert(ENTRY.name, ("new",), entry(node="n"), b"{}")
        transaction.insert(NUMBERED.name, ("x", 1), (), b"{}")
        body = transaction.get(ENTRY.name, ("a",))
        assert body is not None
        transaction.remove(ENTRY.name, ("a",), entry(name="a", node="n"))
        transaction.tally({"n": 1})


@pytest.mark.parametrize("learn", LEARNING.values(), ids=list(LEARNING))
def test_what_was_told_stays_true(
    one: Driver, other: Driver, pool: ThreadPoolExecutor, learn: Callable[[Transaction], Any]
) -> None:
    """A transaction that is told something twice is told the same, whatever others do meanwhile:
    they wait for its end, and then have their way.
    """
    transaction = one.begin(write=True)
    told = learn(transaction)
    writer = pool.submit(change_everything, other)
    assert is_waiting(writer, other)
    assert learn(transaction) == told
    transaction.commit()
    writer.result(timeout=30)
    with reading(one) as reader:
        assert reader.totals("") == {"n": 1}
        assert reader.get(ENTRY.name, ("a",)) is None
        assert reader.get(ENTRY.name, ("new",)) == b"{}"


def test_absence_is_kept_for_who_asked_first(
    one: Driver, other: Driver, pool: ThreadPoolExecutor
) -> None:
    """Who found that a key is free can take it; another one that inserts it waits, and is told."""
    transaction = one.begin(write=True)
    assert transaction.get(LOG.name, (1,)) is None
    begun = other.begin(write=True)
    insert = pool.submit(begun.insert, LOG.name, (1,), ("other",), b"{}")
    assert is_waiting(insert, one)
    assert transaction.insert(LOG.name, (1,), ("one",), b"1")
    transaction.commit()
    assert insert.result(timeout=30) is False
    assert begun.get(LOG.name, (1,)) == b"1"
    begun.rollback()


def test_a_key_that_another_inserts_meanwhile(
    one: Driver, other: Driver, pool: ThreadPoolExecutor
) -> None:
    """Looking for a key that another one has just inserted waits for how that ends."""
    for body, ends in ((b"1", "commit"), (None, "rollback")):
        transaction = one.begin(write=True)
        key = (1,) if body else (2,)
        assert transaction.insert(LOG.name, key, ("one",), b"1")
        begun = other.begin(write=True)
        look = pool.submit(begun.get, LOG.name, key)
        assert is_waiting(look, one)
        getattr(transaction, ends)()
        assert look.result(timeout=30) == body
        begun.rollback()


def test_others_go_on(one: Driver, other: Driver) -> None:
    """What touches other entries does not wait, and nobody waits for a reader."""
    with reading(other) as reader:
        assert reader.count(ENTRY.name, Range()) == 3
        transaction = one.begin(write=True)
        assert transaction.get(ENTRY.name, ("a",)) == b"{}"
        transaction.insert(ENTRY.name, ("d",), entry(), b"{}")
        with writing(other) as quick:
            assert quick.get(ENTRY.name, ("b",)) == b"{}"
            quick.insert(ENTRY.name, ("e",), entry(), b"{}")
            quick.tally({"n": 1})
        transaction.tally({"n": 1})
        transaction.commit()
        assert reader.count(ENTRY.name, Range()) == 3
    with reading(other) as reader:
        assert reader.count(ENTRY.name, Range()) == 5
        assert reader.totals("") == {"n": 2}


def test_numbers_are_in_the_order_of_commits(
    one: Driver, other: Driver, pool: ThreadPoolExecutor
) -> None:
    """Who tallies later has greater numbers and is committed later, however long the first takes
    between the two.
    """
    transaction = one.begin(write=True)
    assert transaction.tally({"sequence": 2})["sequence"] == 2
    begun = other.begin(write=True)
    tally = pool.submit(begun.tally, {"sequence": 1, "another": 1})
    assert is_waiting(tally, one)
    transaction.insert(LOG.name, (2,), ("one",), b"{}")
    transaction.commit()
    assert tally.result(timeout=30) == {"sequence": 3, "another": 1}
    begun.rollback()


def test_tallies_in_any_order_do_not_deadlock(
    one: Driver, other: Driver, pool: ThreadPoolExecutor
) -> None:
    """Names are locked in one order, whichever they are given in."""
    names = [f"n{number}" for number in range(20)]

    def count(driver: Driver, order: list[str]) -> None:
        for _ in range(30):
            with writing(driver) as transaction:
                transaction.tally(dict.fromkeys(order, 1))

    calls = [pool.submit(count, one, names), pool.submit(count, other, names[::-1])]
    for call in calls:
        call.result(timeout=60)
    with reading(one) as reader:
        assert reader.totals("") == dict.fromkeys(names, 60)


def test_a_deadlock_is_a_conflict(one: Driver, other: Driver, pool: ThreadPoolExecutor) -> None:
    """Of two that wait for each other one is given up with kind CONFLICT, and the other goes on."""
    first, second = one.begin(write=True), other.begin(write=True)
    assert first.get(ENTRY.name, ("a",)) == second.get(ENTRY.name, ("b",)) == b"{}"
    calls = [
        pool.submit(first.get, ENTRY.name, ("b",)),
        pool.submit(second.get, ENTRY.name, ("a",)),
    ]
    errors = []
    for call, transaction in zip(calls, (first, second), strict=True):
        try:
            assert call.result(timeout=30) == b"{}"
            transaction.commit()
        except DriverError as error:
            errors.append(error.kind)
            transaction.rollback()
    assert errors == [ErrorKind.CONFLICT]


def test_who_reads_a_range_does_not_wait_for_a_writer(one: Driver, other: Driver) -> None:
    """From the time when nobody else can commit, an entry that another one holds is a CONFLICT at
    once: to wait for it would be to wait without end.
    """
    holder = one.begin(write=True)
    assert holder.get(ENTRY.name, ("a",)) == b"{}"
    begun = other.begin(write=True)
    assert begun.count(ENTRY.name, Range()) == 3
    asked = time.monotonic()
    with pytest.raises(DriverError) as caught:
        begun.get(ENTRY.name, ("a",))
    assert caught.value.kind is ErrorKind.CONFLICT
    assert time.monotonic() - asked < 5
    begun.rollback()
    holder.rollback()


def test_who_lost_once_comes_back_alone(
    one: Driver, other: Driver, pool: ThreadPoolExecutor
) -> None:
    """After a conflict a writer waits until it is the only one, so that it does not lose again."""
    holder = one.begin(write=True)
    assert holder.get(ENTRY.name, ("a",)) == b"{}"
    loser = other.begin(write=True)
    loser.count(ENTRY.name, Range())
    with pytest.raises(DriverError):
        loser.get(ENTRY.name, ("a",))
    loser.rollback()
    again = other.begin(write=True)
    look = pool.submit(again.count, ENTRY.name, Range())
    assert is_waiting(look, one)
    holder.commit()
    assert look.result(timeout=30) == 3
    late = one.begin(write=True)
    wait = pool.submit(late.get, ENTRY.name, ("b",))
    assert is_waiting(wait, one)
    assert again.get(ENTRY.name, ("a",)) == b"{}"
    again.commit()
    assert wait.result(timeout=30) == b"{}"
    late.commit()
    free = other.begin(write=True)
    assert free.get(ENTRY.name, ("a",)) == b"{}"
    with writing(one) as beside:
        assert beside.get(ENTRY.name, ("b",)) == b"{}"
    free.rollback()


def test_two_that_want_one_unique_value(
    one: Driver, other: Driver, pool: ThreadPoolExecutor
) -> None:
    """An insert waits for how the other's ends, and then clashes, or not."""
    for ends, clashes in (("rollback", False), ("commit", True)):
        transaction = one.begin(write=True)
        assert transaction.insert(ENTRY.name, ("x",), entry(name="wanted"), b"{}")
        begun = other.begin(write=True)
        insert = pool.submit(begun.insert, ENTRY.name, ("y",), entry(name="wanted"), b"{}")
        assert is_waiting(insert, one)
        getattr(transaction, ends)()
        if clashes:
            with pytest.raises(UniqueClash) as caught:
                insert.result(timeout=30)
            assert caught.value.index == "name"
        else:
            assert insert.result(timeout=30)
        begun.rollback()


def test_a_rename_that_loses_a_race_is_done_again(target: str, pool: ThreadPoolExecutor) -> None:
    """A write that was given up for another one's sake is done again, and judged by what is there
    then: here, that the name is taken.
    """
    with (
        open_database(f"{target}&lock_timeout=20") as one,
        open_database(f"{target}&lock_timeout=20&pool_size=3") as other,
    ):
        assert one is not other
        first, second = JobStore(one), JobStore(other)
        first.create(Job(id="1", name="b"))
        with one.transaction():
            first.create(Job(id="2", name="a"))
            rename = pool.submit(second.update, "1", name="a")
            assert is_waiting(rename, one.driver)
        with pytest.raises(RecordExistsError):
            rename.result(timeout=30)
        assert other.statistics.rollbacks >= 2
        assert second.update("1", name="c").name == "c"


def test_conflicts_without_end(target: str) -> None:
    """What is given up again and again is a ConflictError after a bounded number of times, and
    nothing of it is kept.
    """
    with open_database(f"{target}&lock_timeout=20") as database:
        jobs = JobStore(database)
        tries: list[int] = []

        def lose(unit: Any) -> None:
            tries.append(1)
            jobs._write.create(unit, Job(id="j"))
            raise DriverError(ErrorKind.CONFLICT, "a deadlock")

        with pytest.raises(ConflictError, match="a deadlock"):
            database.write(lose)
        assert 1 < len(tries) < 20
        assert jobs.count() == 0


def test_waiting_too_long(one: Driver, opened: Open) -> None:
    """An entry that cannot be had within lock_timeout is LOCKED, and the error says who is writing;
    a lock_timeout of nothing does not wait without end.
    """
    holder = one.begin(write=True)
    assert holder.get(ENTRY.name, ("a",)) == b"{}"
    for timeout in (0.0, 0.2):
        impatient = opened(lock_timeout=timeout)
        transaction = impatient.begin(write=True)
        begun = time.monotonic()
        with pytest.raises(DriverError, match="another transaction has locked") as caught:
            transaction.get(ENTRY.name, ("a",))
        assert caught.value.kind is ErrorKind.LOCKED
        assert timeout * 0.9 <= time.monotonic() - begun < timeout + 5
        transaction.rollback()
    holder.rollback()


def test_more_readers_than_connections(target: str, opened: Open) -> None:
    """The pool is bounded: who finds no connection waits for one, for lock_timeout, and is told
    which option to change.
    """
    driver = opened(f"{target}&pool_size=2", lock_timeout=0.2)
    readers = [driver.begin(write=False) for _ in range(2)]
    with pytest.raises(DriverError, match="pool_size") as caught:
        driver.begin(write=False)
    assert caught.value.kind is ErrorKind.LOCKED
    timer = threading.Timer(0.05, readers[0].rollback)
    timer.start()
    driver.begin(write=False).rollback()
    timer.join()
    readers[1].rollback()
