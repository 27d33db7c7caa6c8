"""SELECT statements for the ranges of one table, made once per shape of a range.

The planner is told, when a connection is made, to prefer an index to sorting and to reading all: so
each range is read through the index that gives its order, whatever the statistics say.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from storebridge.driver import Rows, Table
from storebridge.driver.ranges import Bound, Shape, SqlOrder, SqlScans
from storebridge_sqlalchemy.bodies import decoded
from storebridge_sqlalchemy.metadata import DIALECT, optional_fields


class _Order:
    """An order of a table: by key, or by an index."""

    def __init__(self, made: sa.Table, table: Table, by: str | None) -> None:
        key = tuple(field.name for field in table.key)
        self.fields = key
        present: list[str] = []
        if by is not None:
            index = next(index for index in table.indexes if index.name == by)
            self.fields = index.fields
            present = optional_fields(table, index)
        self.columns = tuple(made.c[name] for name in self.fields)
        self.conditions = [made.c[name].is_not(None) for name in present]
        behind = [name for name in self.fields if name not in key]
        self.shown = [made.c[name] for name in (*key, "body", *behind)]
        shown = [column.name for column in self.shown]
        self.places = tuple(shown.index(name) for name in self.fields)


class Scans(SqlScans):
    """The scans and counts of a table."""

    def __init__(self, made: sa.Table, table: Table) -> None:
        orders: tuple[str | None, ...] = (None, *(index.name for index in table.indexes))
        self._orders = {by: _Order(made, table, by) for by in orders}
        self._made = made
        by = {by: SqlOrder(len(o.fields), o.places) for by, o in self._orders.items()}
        super().__init__(len(table.key), by)

    def rows(self, found: list[tuple[Any, ...]]) -> Rows:
        width = self._width
        return [(row[:width], decoded(row[width])) for row in found]

    def make_select(self, shape: Shape) -> str:
        order = self._orders[shape.by]
        statement = sa.select(*order.shown).where(*_conditions(order, shape))
        rest = order.columns[shape.equal :]
        statement = statement.order_by(*(c.desc() if shape.reverse else c.asc() for c in rest))
        return _sql(statement.limit(sa.bindparam("limit", type_=sa.BigInteger)))

    def make_count(self, shape: Shape) -> str:
        counted = sa.select(sa.func.count()).select_from(self._made)
        return _sql(counted.where(*_conditions(self._orders[shape.by], shape)))


def _conditions(order: _Order, shape: Shape) -> list[sa.ColumnElement[bool]]:
    """In the order of the parameters."""
    equal = [c == sa.bindparam(f"equal_{c.name}") for c in order.columns[: shape.equal]]
    rest = order.columns[shape.equal :]
    return [*equal, *(_compared(rest, bound) for bound in shape.bounds), *order.conditions]


def _compared(columns: tuple[sa.Column[Any], ...], bound: Bound) -> sa.ColumnElement[bool]:
    names = {">": "after", "<": "before", ">=": "from"}
    compared = columns[: bound.depth]
    values = [sa.bindparam(f"{names[bound.operator]}_{c.name}", type_=c.type) for c in compared]
    if len(compared) == 1:
        return compared[0].op(bound.operator, is_comparison=True)(values[0])
    return sa.tuple_(*compared).op(bound.operator, is_comparison=True)(sa.tuple_(*values))


def _sql(statement: sa.Select[Any]) -> str:
    return " ".join(str(statement.compile(dialect=DIALECT)).split())
