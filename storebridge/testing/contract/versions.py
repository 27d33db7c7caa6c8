"""`Versioned`: whether anything was committed since."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from storebridge.driver import Driver, Options, Transaction, Versioned
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import BackendHarness, reading, writing
from storebridge.testing.samples import ENTRY, LAYOUT, TABLES, body_of, entry
from storebridge.testing.workers import worker

KEY = ("a",)
OLD, NEW = entry("s", 1, "n", 2, "d", "b"), entry("t", 2, None, None, "d", "c")
Change = Callable[[Transaction], object]
CHANGES: dict[str, Change] = {
    "insert": lambda t: t.insert(ENTRY.name, ("b",), NEW, body_of(("b",), NEW)),
    "replace": lambda t: t.replace(ENTRY.name, KEY, OLD, NEW, body_of(KEY, NEW)),
    "body": lambda t: t.replace(ENTRY.name, KEY, OLD, OLD, body_of(KEY, OLD, "x")),
    "remove": lambda t: t.remove(ENTRY.name, KEY, OLD),
    "tally": lambda t: t.tally({"n": 1}),
}


class VersionTests(DriverTests):
    """No commit escapes it."""

    @pytest.mark.parametrize("change", CHANGES)
    def test_changes(self, driver: Driver, change: str) -> None:
        """It stands while others read, and until the first change is committed; for good after."""
        versioned = versioned_of(driver)
        with writing(driver) as transaction:
            transaction.insert(ENTRY.name, KEY, OLD, body_of(KEY, OLD))
        with closing(versioned.hold_version()) as first:
            assert first.stands()
            with reading(driver) as transaction:
                assert transaction.get(ENTRY.name, KEY) is not None
                assert first.stands()
            with writing(driver) as transaction:
                CHANGES[change](transaction)
            assert not first.stands()
            with closing(versioned.hold_version()) as second:
                assert second.stands()
                assert not first.stands()
                with writing(driver) as transaction:
                    transaction.tally({"m": 0})
                assert not second.stands()

    def test_within_a_view(self, driver: Driver) -> None:
        """Whoever reads on an older view is told of what was committed since."""
        versioned = versioned_of(driver)
        with closing(versioned.hold_version()) as version, reading(driver) as view:
            assert view.get(ENTRY.name, KEY) is None
            with writing(driver) as transaction:
                transaction.insert(ENTRY.name, KEY, OLD, body_of(KEY, OLD))
            assert view.get(ENTRY.name, KEY) is None
            assert not version.stands()

    @pytest.mark.parametrize("read_only", [False, True])
    @pytest.mark.parametrize("task", ["batches", "come_and_go"])
    def test_another_process(self, harness: BackendHarness, task: str, read_only: bool) -> None:
        """What another process commits, too, whether it stays or closes behind itself, and who is
        told only reads.
        """
        harness.require_processes("many")
        harness.require_persistent()
        with closing(harness.open()) as maker:
            maker.create_tables(TABLES, LAYOUT)
        with closing(harness.open(options=Options(read_only=read_only))) as driver:
            versioned = versioned_of(driver)
            for turn in range(0, 3000, 1000):
                with closing(versioned.hold_version()) as version:
                    assert version.stands()
                    with worker(harness, task, first=turn) as writer:
                        assert writer.hear() == turn
                        assert not version.stands()
                    assert not version.stands()


def versioned_of(driver: Driver) -> Versioned:
    """The driver, if it knows."""
    if not isinstance(driver, Versioned):
        pytest.skip("trait Versioned: no")
    return driver
