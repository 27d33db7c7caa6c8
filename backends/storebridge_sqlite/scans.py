"""SELECT statements for the ranges of one table, made once per shape of a range.

Each names the index that gives its order, so that no statistics (`ANALYZE`) can talk SQLite into
sorting instead.
"""

from __future__ import annotations

from storebridge.driver import Table
from storebridge.driver.ranges import Shape, SqlOrder, SqlScans
from storebridge_sqlite.schema import index_name, optional_fields, quoted, rowid_field


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


class Scans(SqlScans):
    """The scans and counts of a table."""

    def __init__(self, table: Table) -> None:
        orders: tuple[str | None, ...] = (None, *(index.name for index in table.indexes))
        self._orders = {by: _Order(table, by) for by in orders}
        by = {by: SqlOrder(len(o.fields), o.places) for by, o in self._orders.items()}
        super().__init__(len(table.key), by)

    def make_select(self, shape: Shape) -> str:
        order = self._orders[shape.by]
        direction = " DESC" if shape.reverse else ""
        fields = ", ".join(quoted(name) + direction for name in order.fields[shape.equal :])
        return (
            f'SELECT {order.shown}, CAST("body" AS BLOB){order.behind}'
            f" FROM {order.source}{_where(order, shape)}"
            + (f" ORDER BY {fields}" if fields else "")
            + " LIMIT ?"
        )

    def make_count(self, shape: Shape) -> str:
        order = self._orders[shape.by]
        return f"SELECT count(*) FROM {order.source}{_where(order, shape)}"


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
