"""faults and rebuild: indexes against bodies."""

from __future__ import annotations

import pytest

from storebridge.driver import Driver, Key, Range, Values
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import reading, writing
from storebridge.testing.model import Model, add, agree, agree_on_table
from storebridge.testing.samples import ENTRY, LABEL, PAIR, body_of, entry, values_of

WRONG = {
    "state": entry("other", 1, "n", 2, "d", "b"),
    "time": entry("s", 2, "n", 2, "d", "b"),
    "none": entry("s", 1, None, 2, "d", "b"),
    "size": entry("s", 1, "n", None, "d", "b"),
    "unique": entry("s", 1, "n", 2, "d", "elsewhere"),
    "not-unique": entry("s", 1, "n", 2, "d", None),
}


class MendingTests(DriverTests):
    """Indexes are found out when they disagree with bodies, and made anew from them."""

    @pytest.fixture
    def three(self, driver: Driver) -> Model:
        model = Model()
        with writing(driver) as transaction:
            for name in ("a", "b", "c"):
                add(transaction, model, ENTRY, (name,), entry("s", 1, "n", 2, "d", name))
                add(transaction, model, PAIR, (name, 1), (ord(name), "l"))
                add(transaction, model, LABEL, (name, "v", "i"), ())
            add(transaction, model, ENTRY, ("none",), entry())
        return model

    @pytest.mark.parametrize("values", WRONG.values(), ids=list(WRONG))
    def test_faults_name_the_entry(self, driver: Driver, three: Model, values: Values) -> None:
        """An entry whose indexes do not say what its body says is a fault with its key; its
        neighbours are none.
        """
        body = body_of(("b",), values)
        self._put_beside_the_indexes(driver, three, body)
        with reading(driver) as transaction:
            faults = list(transaction.faults(ENTRY.name, values_of))
            assert {fault.key for fault in faults} - {None} == {("b",)}
            assert all(fault.table == ENTRY.name and fault.problem for fault in faults)
            assert list(transaction.faults(PAIR.name, values_of)) == []

    @pytest.mark.parametrize("values", WRONG.values(), ids=list(WRONG))
    def test_rebuild_mends(self, driver: Driver, three: Model, values: Values) -> None:
        """After a rebuild the indexes say what the bodies say, and no fault is found."""
        body = body_of(("b",), values)
        self._put_beside_the_indexes(driver, three, body)
        with writing(driver) as transaction:
            transaction.rebuild(ENTRY.name, values_of)
            three.put(ENTRY.name, ("b",), values, body)
            agree_on_table(transaction, three, ENTRY)
        agree(driver, three)

    def test_rebuild_of_a_sound_table(self, driver: Driver, three: Model) -> None:
        """Rebuilding what is sound changes nothing, and all goes on working."""
        with writing(driver) as transaction:
            for table in (ENTRY, PAIR, LABEL):
                transaction.rebuild(table.name, values_of)
        agree(driver, three)
        with writing(driver) as transaction:
            add(transaction, three, ENTRY, ("d",), entry("s", 1, "n", 2, "d", "d"))
            transaction.remove(ENTRY.name, ("a",), three.entries[ENTRY.name][("a",)][0])
            three.remove(ENTRY.name, ("a",))
        agree(driver, three)

    def test_unreadable_bodies_are_passed_over(self, driver: Driver, three: Model) -> None:
        """Entries whose values nobody can tell are no faults, and a rebuild keeps them where they
        stand, in every index.
        """

        def none_of_b(key: Key, body: bytes) -> Values | None:
            return None if key[0] == "b" else values_of(key, body)

        with writing(driver) as transaction:
            assert list(transaction.faults(ENTRY.name, none_of_b)) == []
            for table in (ENTRY, PAIR, LABEL):
                transaction.rebuild(table.name, none_of_b)
        agree(driver, three)

    def test_rebuild_swaps_unique_values(self, driver: Driver, three: Model) -> None:
        """A rebuild reaches what the bodies say also where entries swap what they have in a
        unique index.
        """
        swapped = {"a": "b", "b": "c", "c": "a"}
        with writing(driver) as transaction:
            for name, new in swapped.items():
                key, old = (name,), entry("s", 1, "n", 2, "d", name)
                values = entry("s", 1, "n", 2, "d", new)
                transaction.replace(ENTRY.name, key, old, old, body_of(key, values))
                three.put(ENTRY.name, key, values, body_of(key, values))
            transaction.rebuild(ENTRY.name, values_of)
        agree(driver, three)
        with reading(driver) as transaction:
            rows, _ = transaction.scan(ENTRY.name, Range("name"))
            assert [key for key, _ in rows] == [("c",), ("a",), ("b",)]

    def _put_beside_the_indexes(self, driver: Driver, model: Model, body: bytes) -> None:
        """Give an entry a body that says other values than its indexes: as someone would who
        edits the file by hand.
        """
        old = model.entries[ENTRY.name][("b",)][0]
        with writing(driver) as transaction:
            transaction.replace(ENTRY.name, ("b",), old, old, body)
