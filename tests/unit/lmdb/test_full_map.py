"""A full map: nothing is lost, deleting works, and then there is room again."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from storebridge_lmdb import sizes
from storebridge_lmdb.driver import LmdbDriver
from storebridge_lmdb.transaction import WriteTransaction

from storebridge.driver import DriverError, ErrorKind, Field, Range, Rows, Table, Transaction
from tests.unit.lmdb.support import EVENT, Open, names, put

BODY = b"x" * 3000


def fill(driver: LmdbDriver) -> int:
    """Insert until it is full; how many there are."""
    count = 0

    def put_one_after_another() -> None:
        nonlocal count
        while True:
            put(driver, f"t{count:05d}", BODY)
            count += 1

    with pytest.raises(DriverError, match="map_size") as caught:
        put_one_after_another()
    assert caught.value.kind is ErrorKind.FULL
    assert "\n" not in str(caught.value)
    return count


def remove(driver: LmdbDriver, name: str, sequence: int) -> None:
    """Delete as a store does: the entry, an event and the counters in one transaction."""
    transaction = driver.begin(True)
    transaction.remove("thing", (name,), ("new",))
    transaction.tally({"sequence": 1, "count.new": -1})
    assert transaction.insert(EVENT.name, (sequence,), (), b'{"deleted": true}')
    transaction.commit()


def insert_many(transaction: Transaction, count: int) -> None:
    for number in range(count):
        transaction.insert("thing", (f"t{number}",), ("new",), BODY)


def enlarge(transaction: Transaction, held: list[str]) -> None:
    for name in held:
        transaction.replace("thing", (name,), ("new",), ("old",), BODY + BODY)


def test_nothing_is_lost_when_the_map_is_full(open_driver: Open) -> None:
    driver = open_driver(map_size="1M")
    count = fill(driver)
    assert count > 100
    with pytest.raises(DriverError):
        put(driver, "one more", BODY)
    assert len(names(driver)) == count
    driver.close()
    assert len(names(open_driver(map_size="1M"))) == count


def test_a_transaction_that_does_not_fit_takes_no_effect_at_all(open_driver: Open) -> None:
    driver = open_driver(map_size="1M")
    transaction = driver.begin(True)
    with pytest.raises(DriverError, match="full"):
        insert_many(transaction, 1000)
    transaction.rollback()
    assert names(driver) == []
    put(driver, "small")
    assert names(driver) == ["small"]


def test_everything_in_a_full_map_can_be_deleted(open_driver: Open) -> None:
    driver = open_driver(map_size="1M")
    count = fill(driver)
    for number in range(count):
        remove(driver, f"t{number:05d}", number)
    assert names(driver) == []
    assert fill(driver) > count * 0.8
    assert list(driver.check()) == []


def test_deleting_makes_room_for_as_much(open_driver: Open) -> None:
    """The reserve is for deletes alone: it does not slowly fill with what came instead."""
    driver = open_driver(map_size="1M")
    count = fill(driver)
    largest = 0
    for turn in range(100):
        held = names(driver)
        remove(driver, held[0], turn)
        largest = max(largest, int(driver.describe()["pages"]))
        with suppress(DriverError):
            for more in range(5):
                put(driver, f"u{turn:05d}-{more}", BODY)
    limit = driver.describe()["limit"]
    assert isinstance(limit, int)
    assert largest * 4096 <= limit + sizes.Sizes(limit).reserve // 4
    assert len(names(driver)) > count * 0.5


def test_what_was_made_with_a_larger_limit_can_be_deleted(open_driver: Open) -> None:
    driver = open_driver(map_size="64M")
    transaction = driver.begin(True)
    insert_many(transaction, 2000)
    transaction.commit()
    driver.close()
    driver = open_driver(map_size="1M")
    with pytest.raises(DriverError, match="map_size"):
        put(driver, "one more", BODY)
    for number in range(2000):
        remove(driver, f"t{number}", number)
    put(driver, "one more", BODY)
    assert names(driver) == ["one more"]


def test_a_change_in_a_full_map_may_be_too_much_and_is_undone(open_driver: Open) -> None:
    driver = open_driver(map_size="1M")
    fill(driver)
    transaction = driver.begin(True)
    with pytest.raises(DriverError, match="full"):
        enlarge(transaction, names(driver))
    transaction.rollback()
    reader = driver.begin(False)
    assert reader.count("thing", Range("state", ("old",))) == 0
    reader.rollback()


@pytest.fixture
def small_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where addresses are 32 bits long: the map starts small."""
    monkeypatch.setattr(sizes, "ROOMY", False)
    monkeypatch.setattr(sizes, "_MIB", 2**16)


@pytest.mark.parametrize("text", ["3G", "1025M"])
def test_a_map_beyond_short_addresses_is_refused(
    path: Path, open_driver: Open, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(sizes, "ROOMY", False)
    with pytest.raises(DriverError, match="from 1M to 1G, as addresses here have 32 bits"):
        open_driver(map_size=text)
    assert not path.exists()
    for allowed in ("1G", "512M"):
        assert sizes.parse(allowed).first == 16 * 2**20


def test_a_small_map_grows_by_itself(open_driver: Open, small_start: None) -> None:
    driver = open_driver(map_size="64M")
    first = driver.describe()["mapsize"]
    assert isinstance(first, int)
    assert first <= 2**20
    transaction = driver.begin(True)
    transaction.tally({"n": 5})
    for number in range(2000):
        assert transaction.insert("thing", (f"t{number}",), ("new",), BODY)
        assert not transaction.insert("thing", (f"t{number}",), ("new",), BODY)
    transaction.replace("thing", ("t0",), ("new",), ("old",), b"small")
    transaction.remove("thing", ("t1",), ("new",))
    transaction.commit()
    reader = driver.begin(False)
    assert reader.count("thing", Range("state", ("new",))) == 1998
    assert (reader.get("thing", ("t0",)), reader.get("thing", ("t1",))) == (b"small", None)
    assert reader.totals("") == {"n": 5}
    reader.rollback()
    grown = driver.describe()["mapsize"]
    assert isinstance(grown, int)
    assert 2000 * 3000 < grown <= 2**26
    assert list(driver.check()) == []


def test_a_small_map_grows_while_a_table_is_loaded(open_driver: Open, small_start: None) -> None:
    driver = open_driver(map_size="64M")
    first = driver.describe()["mapsize"]
    rows: Rows = [((f"t{number:04d}",), BODY) for number in range(2000)]
    transaction = driver.begin(True)
    assert isinstance(transaction, WriteTransaction)
    assert transaction.insert("thing", ("t0000",), ("old",), b"small")
    with closing(driver.index_entries("thing")) as entries:
        transaction.clear_indexes("thing")
        for start in range(0, 2000, 500):
            page = rows[start : start + 500]
            entries.add(page, [["new"] * 500])
            transaction.put_bodies("thing", page)
        for part in entries.parts():
            transaction.put_entries(part)
    transaction.remove_bodies("thing", [("t9999",)])
    transaction.commit()
    reader = driver.begin(False)
    assert reader.count("thing", Range("state", ("new",))) == 2000
    assert reader.count("thing", Range("state")) == 2000
    assert reader.scan("thing", Range(limit=3000)) == (rows, None)
    assert not list(reader.faults("thing", lambda key, body: ("new",)))
    reader.rollback()
    assert driver.describe()["mapsize"] > first  # type: ignore[operator]
    assert list(driver.check()) == []


def test_tables_are_made_in_a_small_map_however_full(open_driver: Open, small_start: None) -> None:
    driver = open_driver(map_size="64M")
    for number in range(100):
        put(driver, f"t{number:02d}", bytes(10_000))
        driver.create_tables([Table(f"more-{number}", (Field("id"),))], 1)
    assert len(names(driver)) == 100


def test_growing_waits_for_this_process_s_readers(open_driver: Open, small_start: None) -> None:
    driver = open_driver(map_size="64M", lock_timeout=5.0)
    put(driver, "first")
    reader = driver.begin(False)
    timer = threading.Timer(0.3, reader.rollback)
    timer.start()
    put(driver, "large", bytes(2**22))
    timer.join()
    assert names(driver) == ["first", "large"]


def test_a_reader_that_stays_is_an_error_that_says_so(open_driver: Open, small_start: None) -> None:
    driver = open_driver(map_size="64M", lock_timeout=0.2)
    put(driver, "first")
    reader = driver.begin(False)
    with pytest.raises(DriverError, match="transaction open") as caught:
        put(driver, "large", bytes(2**22))
    assert caught.value.kind is ErrorKind.LOCKED
    assert reader.get("thing", ("first",)) == b"{}"
    reader.rollback()
    put(driver, "large", bytes(2**22))
    assert names(driver) == ["first", "large"]


def test_readers_in_threads_while_the_map_grows(open_driver: Open, small_start: None) -> None:
    driver = open_driver(map_size="64M", lock_timeout=10.0)
    put(driver, "first")
    done, wrong = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            transaction = driver.begin(False, single=True)
            if transaction.get("thing", ("first",)) != b"{}":
                wrong.append(1)
            transaction.rollback()
            time.sleep(0.000_1)  # not to fight for the interpreter's lock

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(60):
        put(driver, f"t{number}", bytes(100_000))
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(names(driver)) == 61


def test_memory_that_is_not_there_is_full_and_loses_nothing(
    open_driver: Open, small_start: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = open_driver(map_size="64M")
    put(driver, "first")
    with monkeypatch.context() as patch:
        patch.setattr(sizes, "available", lambda size: False)
        with pytest.raises(DriverError, match="memory") as caught:
            put(driver, "large", bytes(2**22))
    assert caught.value.kind is ErrorKind.FULL
    put(driver, "large", bytes(2**22))
    assert names(driver) == ["first", "large"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", 2**26), ("1g", 2**30), ("1048576", 2**20), ("2T", 2**41), ("1048577", 2**20 + 4096)],
)
def test_map_size_is_read_with_units(text: str, size: int) -> None:
    assert sizes.parse(text).limit == size


@pytest.mark.parametrize("text", ["", "0", "-1", "64 MB", "1.5G", "many", "100K", "9999999999T"])
def test_a_bad_map_size_is_refused(path: Path, open_driver: Open, text: str) -> None:
    with pytest.raises(DriverError, match=f"map_size={text}: expected.*64M") as caught:
        open_driver(map_size=text)
    assert caught.value.kind is ErrorKind.CONFIGURATION
    assert not path.exists()
