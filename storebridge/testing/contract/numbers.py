"""tally and totals: the named integers that counters and sequence numbers are made of."""

from __future__ import annotations

import pytest

from storebridge.driver import Driver
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import BackendHarness, reading, writing
from storebridge.testing.model import nonzero
from storebridge.testing.samples import LAYOUT, LOG, TABLES, TEXTS


class NumberTests(DriverTests):
    """What is promised of named integers."""

    def test_tally_adds(self, driver: Driver) -> None:
        """A tally returns the new value of exactly the names it was given; absent ones are 0;
        they go below zero, too.
        """
        with writing(driver) as transaction:
            assert transaction.tally({"a": 1, "b": 10}) == {"a": 1, "b": 10}
        with writing(driver) as transaction:
            assert transaction.tally({"b": -11, "c": 0, "a": 2}) == {"a": 3, "b": -1, "c": 0}
        with reading(driver) as transaction:
            assert nonzero(transaction.totals("")) == {"a": 3, "b": -1}

    def test_totals_of_a_prefix(self, driver: Driver) -> None:
        """Totals are of the names that start with the prefix, to the letter: no character is a
        wildcard, small and capital letters differ.
        """
        names = ["job", "job/a", "job/b", "Job/a", "job_a", "jobXa", "job%a", "jo", "k", "\x01"]
        names += [f"{text}/x" for text in TEXTS]
        with writing(driver) as transaction:
            transaction.tally({name: number + 1 for number, name in enumerate(names)})
        with reading(driver) as transaction:
            for prefix in ["", "job/", "job_", "job%", "%", "_", "j", "job/a", "none", *TEXTS]:
                expected = {n: i + 1 for i, n in enumerate(names) if n.startswith(prefix)}
                assert transaction.totals(prefix) == expected, prefix

    def test_new_database_has_no_totals(self, driver: Driver) -> None:
        """A new database has no named integers, and what it keeps for itself is not shown."""
        with reading(driver) as transaction:
            assert transaction.totals("") == {}

    def test_totals_inside_a_transaction(self, driver: Driver) -> None:
        """Totals include what was tallied in this transaction, and entries can be inserted that
        are numbered by the tally.
        """
        with writing(driver) as transaction:
            transaction.tally({"n": 4})
        with writing(driver) as transaction:
            assert transaction.totals("n") == {"n": 4}
            number = transaction.tally({"n": 1})["n"]
            assert transaction.totals("n") == {"n": 5}
            assert transaction.insert(LOG.name, (number,), ("w",), b"{}")
        with reading(driver) as transaction:
            assert transaction.totals("n") == {"n": 5}
            assert transaction.get(LOG.name, (5,)) == b"{}"

    def test_rolled_back_numbers_are_given_again(self, driver: Driver) -> None:
        """A tally that was rolled back did not happen, for old names and new ones."""
        for _ in range(3):
            transaction = driver.begin(write=True)
            assert transaction.tally({"n": 1}) == {"n": 1}
            transaction.rollback()
        with reading(driver) as transaction:
            assert nonzero(transaction.totals("")) == {}

    def test_numbers_up_to_64_bits(self, driver: Driver) -> None:
        """Named integers hold what 64 bits hold."""
        with writing(driver) as transaction:
            transaction.tally({"high": 2**63 - 2, "low": -(2**63) + 1})
        with writing(driver) as transaction:
            assert transaction.tally({"high": 1, "low": -1}) == {
                "high": 2**63 - 1,
                "low": -(2**63),
            }
        with reading(driver) as transaction:
            assert transaction.totals("") == {"high": 2**63 - 1, "low": -(2**63)}

    @pytest.mark.parametrize("name", ["layout", "version", "created", "format", "schema"])
    def test_names_are_the_callers(self, driver: Driver, name: str) -> None:
        """No name is the driver's own: any can be tallied, and the layout stays what it was."""
        with writing(driver) as transaction:
            assert transaction.tally({name: 3}) == {name: 3}
        assert driver.layout() == LAYOUT
        with reading(driver) as transaction:
            assert transaction.totals("") == {name: 3}

    def test_numbers_are_kept(self, harness: BackendHarness) -> None:
        """Named integers are there again after closing and opening, if anything is."""
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        with writing(driver) as transaction:
            transaction.tally({"n": 7, "m": -1})
        kept = driver.traits.persistent
        driver.close()
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        with reading(driver) as transaction:
            assert transaction.totals("") == ({"n": 7, "m": -1} if kept else {})
        driver.close()
