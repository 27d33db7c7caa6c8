"""What a database must answer, on plain dicts and sorted lists: the judge of every driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storebridge.driver import Driver, Key, Position, Range, Rows, Table, Transaction, Values
from storebridge.testing.harness import reading
from storebridge.testing.samples import BY_NAME, TABLES, body_of, orders, position_of, values_of

Found = tuple[Any, Key, bytes]


class Model:
    """The content of a database."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[Key, tuple[Values, bytes]]] = {t.name: {} for t in TABLES}
        self.numbers: dict[str, int] = {}

    def copy(self) -> Model:
        copy = Model()
        copy.entries = {name: dict(entries) for name, entries in self.entries.items()}
        copy.numbers = dict(self.numbers)
        return copy

    def get(self, table: str, key: Key) -> bytes | None:
        found = self.entries[table].get(key)
        return None if found is None else found[1]

    def clashes(self, table: str, key: Key, values: Values) -> set[str]:
        """The unique indexes in which another entry has what this one would have."""
        declared = BY_NAME[table]
        found = set()
        for index in declared.indexes:
            place = position_of(declared, index.name, key, values) if index.unique else None
            if place is not None and any(
                position_of(declared, index.name, other, other_values) == place
                for other, (other_values, _) in self.entries[table].items()
                if other != key
            ):
                found.add(index.name)
        return found

    def put(self, table: str, key: Key, values: Values, body: bytes) -> None:
        self.entries[table][key] = (values, body)

    def remove(self, table: str, key: Key) -> None:
        del self.entries[table][key]

    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        for name, delta in deltas.items():
            self.numbers[name] = self.numbers.get(name, 0) + delta
        return {name: self.numbers[name] for name in deltas}

    def totals(self, prefix: str) -> dict[str, int]:
        """The named integers but zeros, which an engine may or may not keep."""
        return nonzero({n: v for n, v in self.numbers.items() if n.startswith(prefix)})

    def ordered(self, table: str, range: Range) -> list[Found]:
        """Everything in the range, whatever `after` and `limit` say."""
        declared = BY_NAME[table]
        found: list[Found] = []
        for key, (values, body) in self.entries[table].items():
            position = position_of(declared, range.by, key, values)
            if position is not None and in_range(position, range):
                found.append((position, key, body))
        return sorted(found, reverse=range.reverse)

    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        found = self.ordered(table, range)
        if range.after is not None:
            found = [
                f for f in found if (f[0] < range.after if range.reverse else f[0] > range.after)
            ]
        rows = [(key, body) for _, key, body in found[: range.limit]]
        return rows, found[range.limit - 1][0] if len(found) > range.limit else None

    def count(self, table: str, range: Range) -> int:
        return len(self.ordered(table, range))


def in_range(position: Any, range: Range) -> bool:
    depth = len(range.prefix)
    if position[:depth] != range.prefix:
        return False
    if range.lower is not None and position[depth] < range.lower:
        return False
    return range.upper is None or position[depth] < range.upper


def nonzero(numbers: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in numbers.items() if value}


def add(transaction: Transaction, model: Model, table: Table, key: Key, values: Values) -> None:
    """A new entry, in the database and in the model."""
    body = body_of(key, values)
    assert transaction.insert(table.name, key, values, body) is True
    model.put(table.name, key, values, body)


def agree_on_table(transaction: Transaction, model: Model, table: Table) -> None:
    """One table, in every order and both directions, is what the model says."""
    everything = len(model.entries[table.name]) + 10
    for by in orders(table):
        for reverse in (False, True):
            asked = Range(by=by, limit=everything, reverse=reverse)
            assert transaction.scan(table.name, asked) == model.scan(table.name, asked)
        assert transaction.count(table.name, Range(by=by)) == model.count(
            table.name, Range(by=by)
        ), f"count by {by}"


def agree(driver: Driver, model: Model) -> None:
    """The whole committed database is what the model says, and finds no fault in itself."""
    with reading(driver) as transaction:
        for table in TABLES:
            agree_on_table(transaction, model, table)
            assert list(transaction.faults(table.name, values_of)) == []
        assert nonzero(transaction.totals("")) == model.totals("")
    assert list(driver.check()) == []
