"""open, create_tables, layout, close: options, tables, permissions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storebridge.driver import (
    Driver,
    ErrorKind,
    Field,
    Index,
    Key,
    Options,
    Range,
    Table,
    Values,
)
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import BackendHarness, reading, refused, tree, writing
from storebridge.testing.model import Model, add, agree
from storebridge.testing.samples import (
    ENTRY,
    LAYOUT,
    LOG,
    TABLES,
    body_of,
    entry,
    values_of,
)


class OpeningTests(DriverTests):
    """From a location to a driver, and back."""

    def test_layout_is_kept(self, harness: BackendHarness) -> None:
        """A new database has no layout; the one that create_tables wrote last is there, at once
        and after opening again.
        """
        driver = harness.open()
        assert driver.layout() is None
        for layout in (LAYOUT, LAYOUT + 1):
            driver.create_tables(TABLES, layout)
            assert driver.layout() == layout
        kept = driver.traits.persistent
        driver.close()
        driver = harness.open()
        assert driver.layout() == (LAYOUT + 1 if kept else None)
        driver.close()

    def test_create_tables_again(self, harness: BackendHarness) -> None:
        """Creating tables that exist changes nothing in them, in one opening and in the next."""
        model = Model()
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("a",), entry(name="n"))
        driver.create_tables(TABLES, LAYOUT)
        agree(driver, model)
        kept = driver.traits.persistent
        driver.close()
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        agree(driver, model if kept else Model())
        driver.close()

    def test_tables_are_added(self, driver: Driver) -> None:
        """A table that is declared later is made beside the others and works with them."""
        model = Model()
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("a",), entry())
        late = Table("suite-late", (Field("id"),))
        driver.create_tables((*TABLES, late), LAYOUT)
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("b",), entry())
            assert transaction.scan("suite-late", Range()) == ([], None)
            assert transaction.insert("suite-late", ("x",), (), b"{}")
        with reading(driver) as transaction:
            assert transaction.scan("suite-late", Range()) == ([(("x",), b"{}")], None)
        agree(driver, model)

    def test_columns_and_indexes_are_added(self, harness: BackendHarness) -> None:
        """A column and indexes that a newer declaration has are there after create_tables and a
        rebuild: so an older layout can be brought up to date in place.
        """
        old = Table("suite-grown", (Field("id"),), (Field("a"),), (Index("a", ("a", "id")),))
        new = Table(
            "suite-grown",
            (Field("id"),),
            (Field("a"), Field("b", "integer", optional=True)),
            (Index("a", ("a", "id")), Index("b", ("b", "id")), Index("u", ("a", "b"), unique=True)),
        )
        driver = harness.open()
        driver.create_tables((old,), LAYOUT)
        with writing(driver) as transaction:
            for name in ("x", "y", "z"):
                assert transaction.insert(old.name, (name,), (name,), body_of((name,), (name,)))
        if driver.traits.persistent:
            driver.close()
            driver = harness.open()
        driver.create_tables((new,), LAYOUT + 1)
        with writing(driver) as transaction:
            transaction.rebuild(new.name, _grown)
            assert list(transaction.faults(new.name, _grown)) == []
        with reading(driver) as transaction:
            for by, expected in (("a", "xyz"), ("b", "zy"), ("u", "yz"), (None, "xyz")):
                rows, _ = transaction.scan(new.name, Range(by))
                assert [key for key, _ in rows] == [(name,) for name in expected]
        driver.close()

    def test_everything_is_there_after_reopening(self, harness: BackendHarness) -> None:
        """What was committed is there after closing and opening, at each durability that the
        engine has, whichever it was written with; without persistence nothing is.
        """
        model = Model()
        target = harness.fresh()
        durabilities = harness.traits.durability
        assert "full" in durabilities
        for number, durability in enumerate(durabilities * 2):
            driver = harness.open(target, Options(durability=durability))
            driver.create_tables(TABLES, LAYOUT)
            agree(driver, model)
            with writing(driver) as transaction:
                add(transaction, model, ENTRY, (f"k{number}",), entry(name=f"{number}"))
                model.tally({"n": 1})
                transaction.tally({"n": 1})
            driver.close()
            if not harness.traits.persistent:
                model = Model()

    def test_nothing_to_open(self, harness: BackendHarness) -> None:
        """With create=False, or read-only, a location where nothing is yet is an error of kind
        CONFIGURATION, and still nothing is there.
        """
        harness.require_persistent()
        target = harness.fresh()
        for options in (Options(create=False), Options(read_only=True)):
            with refused(ErrorKind.CONFIGURATION):
                harness.open(target, options)
            if harness.files:
                assert list(Path(target).parent.iterdir()) == []
        harness.open(target).close()

    def test_create_false_opens_what_is_there(self, harness: BackendHarness) -> None:
        """With create=False an existing database opens like any other."""
        harness.require_persistent()
        model = _write_one(harness)
        driver = harness.open(options=Options(create=False))
        driver.create_tables(TABLES, LAYOUT)
        agree(driver, model)
        driver.close()

    def test_missing_folder(self, harness: BackendHarness) -> None:
        """A location in a folder that does not exist is an error of kind CONFIGURATION, and the
        folder is not made.
        """
        harness.require_files()
        missing = harness.folder / "missing"
        with refused(ErrorKind.CONFIGURATION):
            harness.open(str(missing / "store"))
        assert not missing.exists()

    def test_read_only(self, harness: BackendHarness) -> None:
        """A database opened read-only reads everything, refuses to write with READ_ONLY, makes no
        tables and leaves no file behind; a table that was never created reads as empty.
        """
        harness.require_persistent()
        model = _write_one(harness)
        late = Table("suite-late", (Field("id"),), (Field("a"),), (Index("a", ("a", "id")),))
        files = tree(harness) if harness.files else {}
        for _ in range(2):
            driver = harness.open(options=Options(read_only=True))
            driver.create_tables((*TABLES, late), LAYOUT + 1)
            assert driver.layout() == LAYOUT
            agree(driver, model)
            _assert_reads_as_empty(driver, late)
            with refused(ErrorKind.READ_ONLY, driver=driver):
                _write(driver)
            agree(driver, model)
            driver.close()
        if harness.files:
            assert tree(harness).keys() == files.keys()
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        _write(driver)
        driver.close()

    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o664], ids=oct)
    def test_permissions(self, harness: BackendHarness, mode: int) -> None:
        """Every file that is made has exactly the mode asked for, whatever the umask, while a
        transaction is open and after closing; folders can be entered by whoever may read.
        """
        harness.require_files()
        for umask in (0o000, 0o077):
            target = harness.fresh()
            with _umask(umask):
                driver = harness.open(target, Options(mode=mode))
                driver.create_tables(TABLES, LAYOUT)
                with writing(driver) as transaction:
                    transaction.insert(LOG.name, (1,), ("w",), b"{}")
                    _assert_modes(target, mode)
                with reading(driver) as transaction:
                    transaction.get(LOG.name, (1,))
                    _assert_modes(target, mode)
                driver.close()
            _assert_modes(target, mode)

    def test_shell(self, harness: BackendHarness) -> None:
        """The engine's shell is a command to run, or None; the path is in it where there is one."""
        command = harness.backend.shell(harness.target)
        assert command != []
        if command and harness.files:
            assert any(harness.target in word for word in command)
        assert not harness.files or not Path(harness.target).exists()

    def test_closed(self, harness: BackendHarness) -> None:
        """A transaction begun after closing is an error of kind CLOSED."""
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        driver.close()
        for write in (False, True):
            with refused(ErrorKind.CLOSED, driver=driver):
                driver.begin(write=write)

    def test_two_databases_at_once(self, harness: BackendHarness, driver: Driver) -> None:
        """Two databases of one backend are open at once and know nothing of each other."""
        other = harness.open(harness.fresh())
        other.create_tables(TABLES, LAYOUT)
        model = Model()
        with writing(driver) as transaction, writing(other) as second:
            add(transaction, model, ENTRY, ("a",), entry())
            assert second.get(ENTRY.name, ("a",)) is None
        agree(driver, model)
        agree(other, Model())
        other.close()


def _write(driver: Driver) -> None:
    with writing(driver) as transaction:
        transaction.insert(ENTRY.name, ("written",), entry(), b"{}")


def _write_one(harness: BackendHarness) -> Model:
    """A database with an entry and a number, closed."""
    model = Model()
    driver = harness.open()
    driver.create_tables(TABLES, LAYOUT)
    with writing(driver) as transaction:
        add(transaction, model, ENTRY, ("a",), entry(name="n"))
        model.tally(transaction.tally({"n": 1}))
    driver.close()
    return model


def _grown(key: Key, body: bytes) -> Values:
    name = values_of(key, body)
    number = {"x": None, "y": 2, "z": 1}[str(key[0])]
    return (*(name or ()), number)


def _assert_reads_as_empty(driver: Driver, table: Table) -> None:
    with reading(driver) as transaction:
        assert transaction.get(table.name, ("a",)) is None
        for by in (None, "a"):
            for asked in (Range(by), Range(by, ("x",), reverse=True), Range(by, lower="a")):
                assert transaction.scan(table.name, asked) == ([], None)
                assert transaction.count(table.name, asked) == 0
        assert list(transaction.faults(table.name, values_of)) == []


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def _assert_modes(target: str, mode: int) -> None:
    """Of everything in the folder that was made for this target."""
    made = sorted(Path(target).parent.rglob("*"))
    assert made
    for path in made:
        wanted = mode | (mode & 0o444) >> 2 if path.is_dir() else mode
        found = stat.S_IMODE(path.stat().st_mode)
        assert oct(found) == oct(wanted), path.name
