"""`Loader`: bodies first, and then each index in its own order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TypeVar, cast

import pytest

from storebridge.driver import (
    Driver,
    Key,
    Loader,
    LoadingTransaction,
    Range,
    Rows,
    Table,
    UniqueClash,
    Values,
)
from storebridge.driver.pages import Columns
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import reading, writing
from storebridge.testing.model import Model, add, agree
from storebridge.testing.samples import (
    ENTRY,
    INTEGERS,
    LABEL,
    LONG_TEXTS,
    LONGEST_FIELDS,
    PAIR,
    TEXTS,
    body_of,
    entry,
    longest,
    values_of,
)

T = TypeVar("T")
Entries = dict[Key, Values]
_IDS = sorted({*TEXTS, *LONG_TEXTS, *(f"id-{number}" for number in range(300))})
_LAST: Key = ("~~~",)
ENTRIES: Entries = {
    (name,): entry(
        TEXTS[number % len(TEXTS)],
        INTEGERS[number * 7 % len(INTEGERS)],
        None if number % 3 else LONG_TEXTS[number % len(LONG_TEXTS)],
        None if number % 5 else INTEGERS[number % len(INTEGERS)],
        f"n-{number % 4}",
        None if number % 2 else f"{number * 37 % 1000}",
    )
    for number, name in enumerate(_IDS)
}
ENTRIES[_LAST] = entry(longest("!", LONGEST_FIELDS - 16))
PAIRS: Entries = {
    (owner, number): (place * 100 + INTEGERS.index(number), None if place % 2 else owner)
    for place, owner in enumerate(TEXTS)
    for number in INTEGERS
}
LABELS: Entries = {(name, "v", "i"): () for name in TEXTS}


class LoadingTests(DriverTests):
    """What was loaded is as if it had been inserted."""

    @pytest.mark.parametrize("transactions", [1, 3, 40])
    def test_a_load(self, driver: Driver, transactions: int) -> None:
        """Every body, every order, the engine's own check; and life goes on."""
        loader = loader_of(driver)
        model = Model()
        for table, entries in ((ENTRY, ENTRIES), (PAIR, PAIRS), (LABEL, LABELS)):
            load(loader, model, table, entries, transactions)
        agree(driver, model)
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("id-1000",), entry("new", 5))
            for key in [("id-7",), ("~~~",), ("😀",)]:
                transaction.remove(ENTRY.name, key, model.entries[ENTRY.name][key][0])
                model.remove(ENTRY.name, key)
        agree(driver, model)

    def test_over_what_is_there(self, driver: Driver) -> None:
        """Bodies are added, replaced and removed between others, and the indexes made anew."""
        loader = loader_of(driver)
        model = Model()
        keys = sorted(ENTRIES)
        first = {key: entry("other", number, "n") for number, key in enumerate(keys[::2])}
        load(loader, model, ENTRY, first)
        gone = keys[::6]
        with writing(driver) as transaction:
            loading = cast(LoadingTransaction, transaction)
            loading.remove_bodies(ENTRY.name, [*gone, ("never there",)])
        for key in gone:
            model.remove(ENTRY.name, key)
        wanted = {key: values for key, values in ENTRIES.items() if key not in gone}
        load(loader, model, ENTRY, wanted)
        agree(driver, model)

    def test_undone(self, driver: Driver) -> None:
        """What is rolled back has not happened."""
        loader = loader_of(driver)
        model = Model()
        with writing(driver) as transaction:
            for key, values in list(ENTRIES.items())[:20]:
                add(transaction, model, ENTRY, key, values)
        transaction = driver.begin(True)
        loading = cast(LoadingTransaction, transaction)
        loading.clear_indexes(ENTRY.name)
        rows, columns = _rows(ENTRIES.items())
        loading.put_bodies(ENTRY.name, rows)
        with closing(loader.index_entries(ENTRY.name)) as entries:
            entries.add(rows, columns)
            for part in entries.parts():
                loading.put_entries(part)
        assert transaction.count(ENTRY.name, Range(by="created")) == len(ENTRIES)
        transaction.rollback()
        agree(driver, model)

    def test_a_clash(self, driver: Driver) -> None:
        """Two entries that a unique index forbids are found when its entries are asked for."""
        loader = loader_of(driver)
        clashing = {("a",): entry(name="x"), ("b",): entry(name="y"), ("c",): entry(name="x")}
        with closing(loader.index_entries(ENTRY.name)) as entries:
            entries.add(*_rows(clashing.items()))
            with pytest.raises(UniqueClash) as clash:
                list(entries.parts())
        assert (clash.value.index, clash.value.key) == ("name", ("c",))

    def test_indexes_are_left_alone(self, driver: Driver) -> None:
        """Bodies alone are in no index, and a check says so; cleared indexes hold nothing."""
        loader_of(driver)
        rows, _ = _rows(ENTRIES.items())
        with writing(driver) as transaction:
            cast(LoadingTransaction, transaction).put_bodies(ENTRY.name, rows)
        with reading(driver) as transaction:
            assert transaction.count(ENTRY.name, Range()) == len(rows)
            assert transaction.count(ENTRY.name, Range(by="created")) == 0
            assert any(transaction.faults(ENTRY.name, values_of))
        with writing(driver) as transaction:
            transaction.rebuild(ENTRY.name, values_of)
            cast(LoadingTransaction, transaction).clear_indexes(ENTRY.name)
            assert transaction.count(ENTRY.name, Range(by="created")) == 0


def loader_of(driver: Driver) -> Loader:
    """The driver, if it is a loader; others are filled entry by entry."""
    if not isinstance(driver, Loader):
        pytest.skip("trait Loader: no")
    return driver


def load(
    loader: Loader, model: Model, table: Table, entries: Entries, transactions: int = 1
) -> None:
    """Load a table anew, in so many transactions for its bodies, and for its indexes."""
    driver = cast(Driver, loader)
    with closing(loader.index_entries(table.name)) as indexes:
        with writing(driver) as transaction:
            cast(LoadingTransaction, transaction).clear_indexes(table.name)
        for items in _pieces(sorted(entries.items()), transactions):
            rows, values = _rows(items)
            indexes.add(rows, values)
            with writing(driver) as transaction:
                cast(LoadingTransaction, transaction).put_bodies(table.name, rows)
        for parts in _pieces(list(indexes.parts()), transactions):
            with writing(driver) as transaction:
                for part in parts:
                    cast(LoadingTransaction, transaction).put_entries(part)
    for key, wanted in entries.items():
        model.put(table.name, key, wanted, body_of(key, wanted))


def _pieces(things: list[T], count: int) -> Iterator[list[T]]:
    size = -(-len(things) // count) or 1
    for start in range(0, len(things), size):
        yield things[start : start + size]


def _rows(items: Iterable[tuple[Key, Values]]) -> tuple[Rows, Columns]:
    items = sorted(items)
    columns = list(zip(*[values for _, values in items], strict=True))
    return [(key, body_of(key, values)) for key, values in items], columns
