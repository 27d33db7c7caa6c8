"""begin, commit, rollback; what other threads see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from storebridge.driver import Driver, Range, Transaction, UniqueClash
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import attack, reading, writing
from storebridge.testing.model import Model, add, agree, agree_on_table
from storebridge.testing.samples import ENTRY, LOG, PAIR, TABLES, body_of, entry, values_of

Do = Callable[[Transaction], object]


def _insert(transaction: Transaction) -> None:
    transaction.insert(ENTRY.name, ("new",), entry("s", 1, "n", 2, "d", "new"), b"{}")


def _replace(transaction: Transaction) -> None:
    transaction.replace(ENTRY.name, ("a",), entry(), entry("s", 1, "n", 2, "d", "n"), b"[1]")


def _remove(transaction: Transaction) -> None:
    transaction.remove(ENTRY.name, ("a",), entry())


def _remove_unread(transaction: Transaction) -> None:
    transaction.remove(ENTRY.name, ("a",), None)


def _tally(transaction: Transaction) -> None:
    transaction.tally({"kept": 1, "new": 1})


def _rebuild(transaction: Transaction) -> None:
    transaction.rebuild(ENTRY.name, lambda key, body: entry("rebuilt", 9, "n", 9, "d", str(key)))


def _clash(transaction: Transaction) -> None:
    transaction.insert(ENTRY.name, ("x",), entry(name="free"), b"{}")
    with pytest.raises(UniqueClash):
        transaction.insert(ENTRY.name, ("y",), entry(name="free"), b"{}")


CHANGES: tuple[Do, ...] = (_insert, _replace, _remove, _remove_unread, _tally, _rebuild, _clash)


class TransactionTests(DriverTests):
    """Together or not at all, and one consistent view."""

    @pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
    def test_rollback_leaves_nothing(self, driver: Driver, change: Do) -> None:
        """Whatever a transaction did, after a rollback there is no trace of it, in entries,
        indexes and named integers.
        """
        model = Model()
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("a",), entry())
            add(transaction, model, ENTRY, ("b",), entry(name="m"))
            transaction.tally({"kept": 5})
            model.tally({"kept": 5})
        transaction = driver.begin(write=True)
        change(transaction)
        transaction.rollback()
        agree(driver, model)
        with writing(driver) as transaction:
            agree_on_table(transaction, model, ENTRY)
            add(transaction, model, ENTRY, ("new",), entry("s", 1, "n", 2, "d", "new"))
        agree(driver, model)

    def test_rollback_of_everything_at_once(self, driver: Driver) -> None:
        """A long transaction over several tables is undone whole, and the next one is sound."""
        model = Model()
        with writing(driver) as transaction:
            for number in range(50):
                add(
                    transaction, model, ENTRY, (f"k{number}",), entry("s", number, name=f"{number}")
                )
        for _ in range(2):
            transaction = driver.begin(write=True)
            throwaway = model.copy()
            for number in range(50):
                key = (f"k{number}",)
                transaction.remove(ENTRY.name, key, model.entries[ENTRY.name][key][0])
                add(transaction, throwaway, PAIR, (f"k{number}", number), (number, "l"))
            transaction.tally({"n": 50})
            transaction.rollback()
            agree(driver, model)

    def test_reads_its_own_writes(self, driver: Driver) -> None:
        """A write transaction sees its own changes at once, and nobody else does before the
        commit.
        """
        with writing(driver) as transaction:
            _insert(transaction)
            assert transaction.get(ENTRY.name, ("new",)) == b"{}"
            assert transaction.count(ENTRY.name, Range("name")) == 1
            if not driver.traits.readers_block:
                with reading(driver) as reader:
                    assert reader.get(ENTRY.name, ("new",)) is None
                    assert reader.count(ENTRY.name, Range("name")) == 0
            transaction.remove(ENTRY.name, ("new",), entry("s", 1, "n", 2, "d", "new"))
            assert transaction.get(ENTRY.name, ("new",)) is None
            assert transaction.scan(ENTRY.name, Range("name")) == ([], None)
        agree(driver, Model())

    def test_commit_is_seen_by_the_next(self, driver: Driver) -> None:
        """What was committed is seen by every transaction that begins afterwards."""
        model = Model()
        for number in range(20):
            with writing(driver) as transaction:
                add(transaction, model, ENTRY, (f"k{number}",), entry(name=f"n{number}"))
            with reading(driver) as transaction:
                assert transaction.count(ENTRY.name, Range("name")) == number + 1
            single = driver.begin(write=False, single=True)
            assert single.get(ENTRY.name, (f"k{number}",)) is not None
            single.commit()

    def test_empty_transactions(self, driver: Driver) -> None:
        """A transaction that did nothing can be committed and rolled back, reading or writing."""
        for write in (False, True):
            for single in (False, True):
                driver.begin(write=write, single=single).commit()
                driver.begin(write=write, single=single).rollback()
        agree(driver, Model())

    def test_read_transaction_is_a_snapshot(self, driver: Driver) -> None:
        """What a read transaction saw stays what it sees while a writer commits beside it; where
        readers block, the writer waits.
        """
        model = Model()
        with writing(driver) as transaction:
            for number in range(5):
                add(transaction, model, ENTRY, (f"k{number}",), entry(name=f"{number}"))
            transaction.tally({"n": 5})
            model.tally({"n": 5})
        with ThreadPoolExecutor(1) as pool:
            with reading(driver) as transaction:
                agree_on_table(transaction, model, ENTRY)
                writer = pool.submit(_change_all, driver)
                _wait(writer, driver)
                agree_on_table(transaction, model, ENTRY)
                assert transaction.totals("") == {"n": 5}
                assert transaction.get(ENTRY.name, ("k1",)) == model.get(ENTRY.name, ("k1",))
                assert list(transaction.faults(ENTRY.name, values_of)) == []
            agree(driver, writer.result(timeout=30))

    def test_many_read_transactions(self, driver: Driver) -> None:
        """Any number of read transactions are open at once, in one thread too, each with the view
        of its own time.
        """
        readers: list[Transaction] = []
        for number in range(5):
            if not (driver.traits.readers_block and readers):
                with writing(driver) as transaction:
                    transaction.insert(LOG.name, (number,), ("w",), b"{}")
            readers.append(driver.begin(write=False))
            _count_log(readers[-1])
        expected = [1] * 5 if driver.traits.readers_block else [1, 2, 3, 4, 5]
        assert [_count_log(reader) for reader in readers] == expected
        for reader in readers:
            reader.commit()

    def test_transaction_goes_from_thread_to_thread(self, driver: Driver) -> None:
        """A transaction is used by one thread at a time, not by the one that began it."""
        with ThreadPoolExecutor(1) as other:
            for write in (True, False):
                transaction = other.submit(driver.begin, write).result(timeout=30)
                if write:
                    assert transaction.insert(LOG.name, (1,), ("w",), b"{}")
                assert other.submit(_count_log, transaction).result(timeout=30) == 1
                transaction.commit()
            transaction = driver.begin(write=False)
            assert other.submit(_count_log, transaction).result(timeout=30) == 1
            other.submit(transaction.commit).result(timeout=30)

    def test_threads_see_whole_transactions(self, driver: Driver) -> None:
        """While a writer moves entries about, readers in threads see each of its transactions
        whole or not at all, in entries, indexes and named integers.
        """
        with writing(driver) as transaction:
            for number in range(6):
                transaction.insert(ENTRY.name, (f"k{number}",), entry("s0"), b"0")
            transaction.tally({"round": 1})
        stop = time.monotonic() + 0.4 * attack()
        done = threading.Event()
        seen: list[set[int]] = [set(), set(), set()]
        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(_read_until, driver, done, each) for each in seen]

            def is_enough(rounds: int) -> bool:
                now = time.monotonic()
                # On a busy machine a thread may not have got round to reading by then, nor this one
                # to writing.
                ready = rounds > 3 and all(len(each) > 1 for each in seen)
                ready = ready or any(each.done() for each in readers)
                return now > stop and (ready or now > stop + 20)

            try:
                rounds = _write_until(driver, is_enough)
            finally:
                done.set()
            for reader in readers:
                reader.result(timeout=30)
        assert rounds > 3
        assert all(len(rounds_seen) > 1 for rounds_seen in seen), "readers never got a turn"

    def test_read_transaction_cannot_write(self, driver: Driver) -> None:
        """A read transaction refuses to write, rather than changing what others rely on."""
        with reading(driver) as transaction, pytest.raises(Exception) as caught:
            transaction.insert(ENTRY.name, ("a",), entry(), b"{}")
        assert not isinstance(caught.value, UniqueClash)
        agree(driver, Model())

    def test_foreign_errors_are_not_the_engines(self, driver: Driver) -> None:
        """`kind` claims only errors of its engine."""
        for error in (ZeroDivisionError(), KeyError("x"), UniqueClash("x"), KeyboardInterrupt()):
            assert driver.kind(error) is None

    def test_describes_itself(self, driver: Driver) -> None:
        """`describe` is names with text and integers, and `check` finds a new database sound."""
        described = driver.describe()
        assert all(type(name) is str for name in described)
        assert all(type(value) in (str, int) for value in described.values())
        assert list(driver.check()) == []
        assert [table for table in TABLES if _count(driver, table.name)] == []


def _count(driver: Driver, table: str) -> int:
    with reading(driver) as transaction:
        return transaction.count(table, Range())


def _count_log(transaction: Transaction) -> int:
    return transaction.count(LOG.name, Range())


def _wait(writer: Future[Model], driver: Driver) -> None:
    """Until the writer has committed; where it has to wait for us, for long enough that it would
    have, had it not waited.
    """
    if driver.traits.readers_block:
        time.sleep(0.1)
    else:
        writer.result(timeout=30)


def _change_all(driver: Driver) -> Model:
    model = Model()
    model.tally({"n": 6})
    with writing(driver) as transaction:
        for number in range(4):
            key, old = (f"k{number}",), entry(name=f"{number}")
            values = entry("changed", number, "n", 1)
            transaction.replace(ENTRY.name, key, old, values, body_of(key, values))
            model.put(ENTRY.name, key, values, body_of(key, values))
        transaction.remove(ENTRY.name, ("k4",), entry(name="4"))
        add(transaction, model, ENTRY, ("k9",), entry())
        transaction.tally({"n": 1})
    return model


def _write_until(driver: Driver, is_enough: Callable[[int], bool]) -> int:
    """Rounds: in each, every entry gets the state of the round, and a third of them a new key."""
    turn = 0
    while not is_enough(turn):
        turn += 1
        with writing(driver) as transaction:
            rows, _ = transaction.scan(ENTRY.name, Range())
            old, new = entry(f"s{turn - 1}"), entry(f"s{turn}")
            for number, (key, _) in enumerate(rows[:2]):
                transaction.remove(ENTRY.name, key, old)
                transaction.insert(ENTRY.name, (f"k{turn}-{number}",), new, b"%d" % turn)
            for key, _ in rows[2:]:
                transaction.replace(ENTRY.name, key, old, new, b"%d" % turn)
            transaction.tally({"round": 1})
    return turn


def _read_until(driver: Driver, done: threading.Event, seen: set[int]) -> None:
    while not done.is_set():
        with reading(driver) as transaction:
            rows, _ = transaction.scan(ENTRY.name, Range())
            turn = int(rows[0][1])
            assert [body for _, body in rows] == [b"%d" % turn] * 6
            indexed, _ = transaction.scan(ENTRY.name, Range("state", (f"s{turn}",)))
            assert sorted(indexed) == rows
            assert transaction.count(ENTRY.name, Range("state")) == 6
            assert transaction.totals("round") == {"round": turn + 1}
        seen.add(turn)
