"""Thousands of random operations against plain dicts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from storebridge.driver import Driver, Field, Key, Range, Table, Transaction, UniqueClash, Values
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import BackendHarness, reading
from storebridge.testing.model import Model, agree, nonzero
from storebridge.testing.randomly import run_randomly
from storebridge.testing.samples import (
    ENTRY,
    INTEGERS,
    LABEL,
    LAYOUT,
    LONG_TEXTS,
    PAIR,
    TABLES,
    TEXTS,
    body_of,
    order_fields,
    orders,
)

EXAMPLES = 40
STEPS = 30

FEW = ("a", "a ", "a!", "a b", "é", "😀", "\ufffd", "!")
texts = st.one_of(
    st.sampled_from(FEW),
    st.sampled_from(FEW),
    st.sampled_from(TEXTS + LONG_TEXTS),
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
    ),
)
integers = st.one_of(
    st.integers(-2, 3),
    st.sampled_from(INTEGERS),
    st.integers(-(2**63), 2**63 - 1),
)


def value(field: Field) -> st.SearchStrategy[Any]:
    strategy: st.SearchStrategy[Any] = texts if field.type == "text" else integers
    return st.none() | strategy if field.optional else strategy


def present(fields: tuple[Field, ...]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Values for these fields, none of them None: a position, or a prefix."""
    return st.tuples(*(value(field._replace(optional=False)) for field in fields))


KEYS = {table.name: present(table.key) for table in TABLES}
VALUES = {table.name: st.tuples(*map(value, table.columns)) for table in TABLES}


@st.composite
def ranges(draw: st.DrawFn, table: Table) -> Range:
    by = draw(st.sampled_from(orders(table)))
    fields = order_fields(table, by)
    depth = draw(st.integers(0, len(fields)))
    bounds = {}
    if depth < len(fields):
        bound = present(fields[depth : depth + 1]).map(lambda found: found[0])
        bounds = draw(st.fixed_dictionaries({}, optional={"lower": bound, "upper": bound}))
    return Range(
        by,
        draw(present(fields[:depth])),
        after=draw(st.none() | present(fields)),
        limit=draw(st.integers(1, 5) | st.just(1000)),
        reverse=draw(st.booleans()),
        **bounds,
    )


@st.composite
def operations(draw: st.DrawFn) -> tuple[Any, ...]:
    """One operation: what to do, and with what."""
    table = draw(st.sampled_from((ENTRY, ENTRY, PAIR, LABEL)))
    what = draw(st.sampled_from(("insert", "put", "put", "remove", "scan", "scan", "count")))
    if what in ("scan", "count"):
        return what, table.name, draw(ranges(table))
    if what == "remove":
        return what, table.name, draw(KEYS[table.name]), draw(st.booleans())
    key, values = draw(KEYS[table.name]), draw(VALUES[table.name])
    return what, table.name, key, values, draw(st.integers(0, 9))


def insert(
    transaction: Transaction, model: Model, table: str, key: Key, values: Values, note: int
) -> None:
    body = body_of(key, values, note)
    exists, clashes = model.get(table, key) is not None, model.clashes(table, key, values)
    try:
        inserted = transaction.insert(table, key, values, body)
    except UniqueClash as clash:
        assert not exists
        assert clash.index in clashes  # noqa: PT017 - both outcomes are judged
        return
    assert inserted is not exists
    if inserted:
        assert not clashes
        model.put(table, key, values, body)


def put(
    transaction: Transaction, model: Model, table: str, key: Key, values: Values, note: int
) -> None:
    """Insert or replace, as a caller does: read, then write."""
    found = transaction.get(table, key)
    assert found == model.get(table, key)
    if found is None:
        insert(transaction, model, table, key, values, note)
        return
    clashes = model.clashes(table, key, values)
    body = body_of(key, values, note)
    try:
        transaction.replace(table, key, model.entries[table][key][0], values, body)
    except UniqueClash as clash:
        assert clash.index in clashes  # noqa: PT017 - both outcomes are judged
        return
    assert not clashes
    model.put(table, key, values, body)


def remove(transaction: Transaction, model: Model, table: str, key: Key, known: bool) -> None:
    """Take out what stands at the key, or else the entry next to it."""
    rows, _ = transaction.scan(table, Range(lower=key[0], limit=1))
    assert rows == model.scan(table, Range(lower=key[0], limit=1))[0]
    for found, _ in rows:
        values = model.entries[table][found][0]
        transaction.remove(table, found, values if known else None)
        model.remove(table, found)


def scan(transaction: Transaction, model: Model, table: str, asked: Range) -> None:
    assert transaction.scan(table, asked) == model.scan(table, asked), asked


def count(transaction: Transaction, model: Model, table: str, asked: Range) -> None:
    assert transaction.count(table, asked) == model.count(table, asked), asked


OPERATIONS: dict[str, Any] = {
    "insert": insert,
    "put": put,
    "remove": remove,
    "scan": scan,
    "count": count,
}


class DriverMachine(RuleBasedStateMachine):
    """A database and its model, side by side."""

    def __init__(self, harness: BackendHarness) -> None:
        super().__init__()
        self.harness = harness
        self.target = harness.fresh()
        self.model = Model()
        self.readers: list[tuple[Transaction, Model]] = []
        self.batches = 0
        """Since the last opening: so that there is something in it before the next."""
        self.driver = self.open()

    def open(self) -> Driver:
        driver = self.harness.open(self.target)
        driver.create_tables(TABLES, LAYOUT)
        return driver

    def readers_beside_a_writer(self) -> bool:
        return not self.driver.traits.readers_block

    @rule(
        batch=st.lists(operations(), min_size=3, max_size=10),
        deltas=st.dictionaries(st.sampled_from(["a", "a/b", "b"]), st.integers(-3, 3)),
        commit=st.sampled_from([True, True, True, False]),
    )
    def transaction(
        self, batch: list[tuple[Any, ...]], deltas: dict[str, int], commit: bool
    ) -> None:
        """A batch of operations, committed or rolled back."""
        self.batches += 1
        model = self.model.copy()
        transaction = self.driver.begin(write=True)
        try:
            for what, *arguments in batch:
                OPERATIONS[what](transaction, model, *arguments)
            if deltas:
                assert transaction.tally(deltas) == model.tally(deltas)
            assert nonzero(transaction.totals("a")) == model.totals("a")
        except BaseException:
            transaction.rollback()
            raise
        if commit:
            transaction.commit()
            self.model = model
        else:
            transaction.rollback()

    @rule(table=st.sampled_from((ENTRY, ENTRY, PAIR, LABEL)), data=st.data())
    def read(self, table: Table, data: st.DataObject) -> None:
        """Reads, each in a transaction of its own."""
        for _ in range(3):
            asked = data.draw(ranges(table))
            transaction = self.driver.begin(write=False, single=True)
            try:
                scan(transaction, self.model, table.name, asked)
            finally:
                transaction.rollback()

    @precondition(lambda self: self.readers_beside_a_writer() and len(self.readers) < 2)
    @rule()
    def open_reader(self) -> None:
        """A read transaction that stays open while others write."""
        transaction = self.driver.begin(write=False)
        assert nonzero(transaction.totals("")) == self.model.totals("")
        self.readers.append((transaction, self.model.copy()))

    @precondition(lambda self: bool(self.readers))
    @rule(table=st.sampled_from(TABLES), data=st.data())
    def read_in_the_past(self, table: Table, data: st.DataObject) -> None:
        """Open read transactions see what was there when they began."""
        asked = data.draw(ranges(table))
        for transaction, model in self.readers:
            scan(transaction, model, table.name, asked)
            count(transaction, model, table.name, asked)

    @precondition(lambda self: bool(self.readers))
    @rule()
    def close_reader(self) -> None:
        self.readers.pop(0)[0].commit()

    @precondition(lambda self: self.batches > 5)
    @rule()
    def reopen(self) -> None:
        """Closing and opening changes nothing; without persistence, nothing is left."""
        self.batches = 0
        self.close()
        if not self.driver.traits.persistent:
            self.model = Model()
        self.driver = self.open()

    @invariant()
    def numbers_agree(self) -> None:
        with reading(self.driver) as transaction:
            assert nonzero(transaction.totals("")) == self.model.totals("")
            for table in (ENTRY, PAIR, LABEL):
                for by in orders(table):
                    count(transaction, self.model, table.name, Range(by))

    def close(self) -> None:
        while self.readers:
            self.readers.pop()[0].rollback()
        self.driver.close()

    def teardown(self) -> None:
        try:
            agree(self.driver, self.model)
        finally:
            self.close()


class MachineTests(DriverTests):
    """Whatever is done, in whatever order."""

    def test_random_operations(self, harness: BackendHarness) -> None:
        """Thousands of random operations, in batches, committed or rolled back, read in between
        and from old snapshots, over reopening, answer what plain dicts and sorted lists answer.
        """
        run_randomly(DriverMachine, harness, EXAMPLES, STEPS)
