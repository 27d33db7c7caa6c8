"""SELECT statements for the ranges of one table, made once per shape of a range.

Each names the index that gives its order, so that no statistics (`ANALYZE`) can talk SQLite into
sorting instead.
"""

from __future__ import annotations

from typing import NamedTuple

from storebridge.driver import Position, Range, Rows, Table, Value
from storebridge.driver.ranges import Shape, shape_of
from storebridge_sqlite.schema import index_name, optional_fields, quoted, rowid_field


class Select(NamedTuple):
    """A statement with its parameters, without the limit."""

    sql: str
    parameters: list[Value]


class _Order:
    """An order of a table: by key, or by an index."""

    def __init__(self, table: Table, by: str | None) -> None:
        self.key = tuple(field.name for field in table.key)
        self.source = quoted(table.name)
        self.conditions: list[str] = []
        if by is None:
            self.fields = self.key
        else:
            index = next(index for index in table.indexes if index.name == by)
            self.fields = index.fields
            hint = f"INDEXED BY {quoted(index_name(table, index))}"
            is_rowid = index.fields == (rowid_field(table),)
            self.source += " NOT INDEXED" if is_rowid else f" {hint}"
            self.conditions = [f"{quoted(f)} IS NOT NULL" for f in optional_fields(table, index)]
        shown = self.key + tuple(name for name in self.fields if name not in self.key)
        self.shown = ", ".join(map(quoted, shown[: len(self.key)]))
        self.behind = "".join(f", {quoted(name)}" for name in shown[len(self.key) :])
        # Where a row has the order's fields: behind the key fields stands the body.
        place = {name: i + (i >= len(self.key)) for i, name in enumerate(shown)}
        self.places = tuple(place[name] for name in self.fields)


class Scans:
    """The scans and counts of a table."""

    def __init__(self, table: Table) -> None:
        orders: tuple[str | None, ...] = (None, *(index.name for index in table.indexes))
        self._orders = {by: _Order(table, by) for by in orders}
        self._width = len(table.key)
        self._selects: dict[Shape, str] = {}
        self._counts: dict[Shape, str] = {}

    def select(self, range: Range) -> Select | None:
        """The statement for a range, to which the limit is the last parameter; None: the range is
        empty.
        """
        asked = shape_of(range, len(self._orders[range.by].fields))
        if asked is None:
            return None
        shape, parameters = asked
        sql = self._selects.get(shape)
        if sql is None:
            sql = self._selects[shape] = self._make_select(shape)
        return Select(sql, parameters)

    def count(self, range: Range) -> Select:
        """The statement that counts a range."""
        whole = range._replace(after=None, reverse=False)
        asked = shape_of(whole, len(self._orders[range.by].fields))
        assert asked is not None  # only `after` can make a range empty here
        shape, parameters = asked
        sql = self._counts.get(shape)
        if sql is None:
            order = self._orders[shape.by]
            sql = f"SELECT count(*) FROM {order.source}{_where(order, shape)}"
            self._counts[shape] = sql
        return Select(sql, parameters)

    def rows(self, found: list[tuple[Value | bytes, ...]]) -> Rows:
        """Keys and bodies out of the rows of a select."""
        width = self._width
        return [(row[:width], row[width]) for row in found]  # type: ignore[misc]

    def position(self, by: str | None, row: tuple[Value | bytes, ...]) -> Position:
        """Where a row of a select stands in its order."""
        return tuple([row[place] for place in self._orders[by].places])  # type: ignore[misc]

    def _make_select(self, shape: Shape) -> str:
        order = self._orders[shape.by]
        direction = " DESC" if shape.reverse else ""
        fields = ", ".join(quoted(name) + direction for name in order.fields[shape.equal :])
        return (
            f'SELECT {order.shown}, CAST("body" AS BLOB){order.behind}'
            f" FROM {order.source}{_where(order, shape)}"
            + (f" ORDER BY {fields}" if fields else "")
            + " LIMIT ?"
        )


def _where(order: _Order, shape: Shape) -> str:
    conditions = [f"{quoted(name)} = ?" for name in order.fields[: shape.equal]]
    for operator, depth in shape.bounds:
        names = order.fields[shape.equal : shape.equal + depth]
        conditions.append(_compared(names, operator))
    conditions += order.conditions
    return " WHERE " + " AND ".join(conditions) if conditions else ""


def _compared(names: tuple[str, ...], operator: str) -> str:
    if len(names) == 1:
        return f"{quoted(names[0])} {operator} ?"
    fields = ", ".join(map(quoted, names))
    marks = ", ".join("?" * len(names))
    return f"({fields}) {operator} ({marks})"
