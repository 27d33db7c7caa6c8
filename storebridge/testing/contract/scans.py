"""scan and count: order, ranges, pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storebridge.driver import Driver, Key, Position, Range, Transaction, Values
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import reading, writing
from storebridge.testing.model import Model, add, agree, agree_on_table
from storebridge.testing.samples import (
    ENTRY,
    INTEGERS,
    LABEL,
    LONG_TEXTS,
    LONGEST_FIELDS,
    LONGEST_ID,
    PAIR,
    TEXTS,
    body_of,
    encoded_size,
    entry,
    longest,
)

PREFIXES = ("a", "a ", "a b", "a!", "b", "é", "😀", "\U0010ffff")


class ScanTests(DriverTests):
    """What a table promises of many entries."""

    @pytest.fixture
    def filled(self, driver: Driver) -> Model:
        """Entries in every table, with repeated, absent and awkward values in every index."""
        model = Model()
        with writing(driver) as transaction:
            for key, values in _entries():
                add(transaction, model, ENTRY, key, values)
            for number, owner in enumerate(PREFIXES):
                for integer in INTEGERS[::2]:
                    values = (number * 100 + integer % 97, owner if integer < 2 else None)
                    add(transaction, model, PAIR, (owner, integer), values)
            for name in PREFIXES[:4]:
                for value in PREFIXES[:4]:
                    for text in PREFIXES[:3]:
                        add(transaction, model, LABEL, (name, value, text), ())
        return model

    def test_text_is_in_order_of_code_points(self, driver: Driver) -> None:
        """Text, in a key of one field and of several and in an index, goes by code point: spaces,
        control characters, prefixes of each other, beyond U+FFFF.
        """
        model = Model()
        with writing(driver) as transaction:
            for number, text in enumerate(TEXTS + LONG_TEXTS):
                add(transaction, model, ENTRY, (text,), entry(text, 0, text, 1, text, text))
                add(transaction, model, PAIR, (text, 1), (number, text))
                add(transaction, model, LABEL, (text, text, text), ())
        agree(driver, model)
        with reading(driver) as transaction:
            rows, _ = transaction.scan(ENTRY.name, Range(limit=1000))
            assert [key for (key,), _ in rows] == sorted(TEXTS + LONG_TEXTS)

    def test_integers_are_in_order_of_value(self, driver: Driver) -> None:
        """Integers go by value up to the edges of 64 bits, in keys, in indexes, under bounds."""
        model = Model()
        with writing(driver) as transaction:
            for number, integer in enumerate(INTEGERS):
                values = entry("s", integer, "n", integer)
                add(transaction, model, ENTRY, (f"e{number}",), values)
                add(transaction, model, PAIR, ("a", integer), (integer, "l"))
        agree(driver, model)
        with reading(driver) as transaction:
            for bound in INTEGERS:
                for asked in _bounded(bound):
                    for by, prefix in (("size", ()), ("created", ()), ("state", ("s",))):
                        _same(transaction, model, ENTRY.name, asked._replace(by=by, prefix=prefix))
                    _same(transaction, model, PAIR.name, asked._replace(prefix=("a",)))
                    _same(transaction, model, PAIR.name, asked._replace(by="sequence"))

    def test_longest_fields(self, driver: Driver) -> None:
        """Fields of the longest allowed size before the longest ids are told apart to the last
        character of either, in every index.
        """
        model = Model()
        half = LONGEST_FIELDS // 2
        with writing(driver) as transaction:
            for number, character in enumerate(("a", "!", "\x01", "é", "😀")):
                wide, name = longest(character, LONGEST_FIELDS - 16), longest(character, half)
                assert encoded_size(wide) == LONGEST_FIELDS - 16
                for ending in ("z", "A"):
                    key = (longest(character, LONGEST_ID - 1) + ending,)
                    state = wide[:-1] + ending if encoded_size(wide[-1]) == 1 else wide
                    values = entry(state, number, wide, 1, name, key[0])
                    add(transaction, model, ENTRY, key, values)
                    add(transaction, model, LABEL, (name, name, key[0]), ())
        agree(driver, model)
        with reading(driver) as transaction:
            for values, _ in model.entries[ENTRY.name].values():
                _same(transaction, model, ENTRY.name, Range(by="node", prefix=(values[2] or "",)))

    def test_prefix_is_of_whole_fields(self, driver: Driver, filled: Model) -> None:
        """A prefix selects entries whose leading fields equal it, not those that begin with it,
        at every length, forwards and backwards, and count agrees.
        """
        with reading(driver) as transaction:
            for table, by, position in _every_position(filled):
                for length in range(1, len(position) + 1):
                    for reverse in (False, True):
                        asked = Range(by, position[:length], limit=1000, reverse=reverse)
                        _same(transaction, filled, table, asked)

    def test_prefix_without_entries(self, driver: Driver, filled: Model) -> None:
        """A prefix that nothing has selects nothing, also between others."""
        with reading(driver) as transaction:
            for text in ("A", "a\x01", "a  ", "aa", "c", "\U0010ffff\U0010ffff"):
                for by in (None, "state", "node", "name"):
                    asked = Range(by, (text,))
                    assert transaction.scan(ENTRY.name, asked) == filled.scan(ENTRY.name, asked)
                    assert transaction.count(ENTRY.name, asked) == filled.count(ENTRY.name, asked)

    def test_bounds(self, driver: Driver, filled: Model) -> None:
        """`lower` is included and `upper` is not, for the field behind the prefix, in text and in
        integers, alone and together, both ways.
        """
        with reading(driver) as transaction:
            for text in TEXTS:
                for asked in _bounded(text):
                    _same(transaction, filled, ENTRY.name, asked)
                    _same(transaction, filled, ENTRY.name, asked._replace(by="state"))
                    _same(transaction, filled, LABEL.name, asked._replace(prefix=("a",)))
                    between = asked._replace(lower="a", upper=text, by="name")
                    _same(transaction, filled, ENTRY.name, between)
            for integer in INTEGERS:
                for asked in _bounded(integer):
                    _same(transaction, filled, ENTRY.name, asked._replace(by="size"))
                    in_state = asked._replace(by="state", prefix=("a",))
                    _same(transaction, filled, ENTRY.name, in_state)

    def test_after_every_position(self, driver: Driver, filled: Model) -> None:
        """`after` goes on behind any position in the direction of the scan, with and without a
        prefix, whether or not an entry stands there.
        """
        with reading(driver) as transaction:
            for table, by, position in _every_position(filled):
                for prefix in ((), position[:1]):
                    for reverse in (False, True):
                        asked = Range(by, prefix, after=position, limit=3, reverse=reverse)
                        _same(transaction, filled, table, asked)
            for text in TEXTS:
                _same(transaction, filled, ENTRY.name, Range(after=(text,), limit=2))
                _same(transaction, filled, ENTRY.name, Range(after=(text,), limit=2, reverse=True))

    def test_after_outside_of_the_bounds(self, driver: Driver, filled: Model) -> None:
        """`after` only ever narrows a range: before its begin it changes nothing, behind its end
        nothing is left.
        """
        with reading(driver) as transaction:
            for text in PREFIXES:
                for reverse in (False, True):
                    asked = Range(lower="a!", upper="é", after=(text,), reverse=reverse)
                    _same(transaction, filled, ENTRY.name, asked)
                    within = Range(prefix=("a ",), after=(text, text, text), reverse=reverse)
                    _same(transaction, filled, LABEL.name, within)

    def test_pages_of_every_size(self, driver: Driver, filled: Model) -> None:
        """Pages of any size, joined, are the whole range; the position is None exactly where the
        end was reached, also when the last page is full.
        """
        with reading(driver) as transaction:
            for by in (None, "state", "size", "name"):
                for limit in (1, 2, 3, 7, 1000):
                    for reverse in (False, True):
                        _pages(transaction, filled, Range(by, limit=limit, reverse=reverse))
            whole = filled.count(ENTRY.name, Range("state", ("a",)))
            for limit in range(1, whole + 2):
                _pages(transaction, filled, Range("state", ("a",), limit=limit))

    def test_count_ignores_after_and_limit(self, driver: Driver, filled: Model) -> None:
        """A count is of the whole range, by key and by every index."""
        with reading(driver) as transaction:
            for by in (None, "state", "created", "node", "size", "name"):
                plain = Range(by)
                position = filled.ordered(ENTRY.name, plain)[2][0]
                for asked in (plain, Range(by, after=position, limit=1, reverse=True)):
                    found = transaction.count(ENTRY.name, asked)
                    assert found == filled.count(ENTRY.name, plain)

    def test_written_between_two_pages(self, driver: Driver) -> None:
        """No cursor outlives a call: entries moved, removed and added between two pages of one
        transaction neither break the scan nor make it visit anything twice.
        """
        model = Model()
        with writing(driver) as transaction:
            for number in range(20):
                add(transaction, model, ENTRY, (f"k{number:02}",), entry("old", number))
        visited: list[Key] = []
        with writing(driver) as transaction:
            after: Position | None = None
            while True:
                asked = Range("state", ("old",), after=after, limit=3)
                rows, after = transaction.scan(ENTRY.name, asked)
                visited += [key for key, _ in rows]
                for key, _ in rows:
                    _move(transaction, model, key)
                if after is None:
                    break
            agree_on_table(transaction, model, ENTRY)
        assert visited == [(f"k{number:02}",) for number in range(20)]
        agree(driver, model)

    def test_reads_its_own_writes_in_order(self, driver: Driver, filled: Model) -> None:
        """Inside a write transaction scans and counts see its own changes, in order."""
        with writing(driver) as transaction:
            for text in ("a\x01", "aé", "z"):
                add(transaction, filled, ENTRY, (text,), entry(text, 1, text, 1))
            for key in (("a",), ("b",)):
                values = filled.entries[ENTRY.name][key][0]
                transaction.remove(ENTRY.name, key, values)
                filled.remove(ENTRY.name, key)
            agree_on_table(transaction, filled, ENTRY)
        agree(driver, filled)


def _entries() -> Iterator[tuple[Key, Values]]:
    for number, text in enumerate((*PREFIXES, "!", " ", "ab", "ca", "a!b", "a\x02", "\ufffd")):
        state = PREFIXES[number % 3]
        size = INTEGERS[number % len(INTEGERS)]
        node = None if number % 4 == 1 else PREFIXES[number % 5]
        name = None if number % 5 == 2 else text
        yield (text,), (state, number // 2, node, None if number % 3 else size, state, name)


def _bounded(bound: str | int) -> Iterator[Range]:
    for reverse in (False, True):
        yield Range(lower=bound, reverse=reverse)
        yield Range(upper=bound, reverse=reverse)
    yield Range(lower=bound, upper=bound)


def _every_position(model: Model) -> Iterator[tuple[str, str | None, Position]]:
    for table, by in ((ENTRY, None), (ENTRY, "state"), (ENTRY, "node"), (ENTRY, "name")):
        for position, _, _ in model.ordered(table.name, Range(by)):
            yield table.name, by, position
    for table, by in ((PAIR, None), (PAIR, "sequence"), (PAIR, "label"), (LABEL, None)):
        for position, _, _ in model.ordered(table.name, Range(by))[::3]:
            yield table.name, by, position


def _same(transaction: Transaction, model: Model, table: str, asked: Range) -> None:
    assert transaction.scan(table, asked) == model.scan(table, asked), asked
    assert transaction.count(table, asked) == model.count(table, asked), asked


def _pages(transaction: Transaction, model: Model, asked: Range) -> None:
    joined = []
    whole = model.ordered(ENTRY.name, asked)
    for _ in range(len(whole) + 2):
        rows, position = transaction.scan(ENTRY.name, asked)
        assert (rows, position) == model.scan(ENTRY.name, asked), asked
        joined += [key for key, _ in rows]
        if position is None:
            break
        asked = asked._replace(after=position)
    assert joined == [key for _, key, _ in whole]


def _move(transaction: Transaction, model: Model, key: Key) -> None:
    """Put an entry further behind in the same index range's order, or take it out of it."""
    old = model.entries[ENTRY.name][key][0]
    number = int(str(key[0])[1:])
    if number % 3 == 0:
        transaction.remove(ENTRY.name, key, old)
        model.remove(ENTRY.name, key)
    else:
        state = "new" if number % 3 == 1 else "older"
        values = (state, *old[1:])
        transaction.replace(ENTRY.name, key, old, values, body_of(key, values))
        model.put(ENTRY.name, key, values, body_of(key, values))
