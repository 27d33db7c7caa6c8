"""The statements of one table, made once."""

from __future__ import annotations

from storebridge.driver import Table
from storebridge_sqlite.scans import Scans
from storebridge_sqlite.schema import joined, quoted, unquoted

_BODY = "CAST(? AS TEXT)"
"""A body is bound as bytes and stored as text without being looked at, so that bytes which are no
UTF-8 come back as they were."""


class Statements:
    """What a transaction executes on a table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        name = quoted(table.name)
        self.key = tuple(field.name for field in table.key)
        self.columns = tuple(field.name for field in table.columns)
        self._where = " AND ".join(f"{quoted(field)} = ?" for field in self.key)
        self._update = f"UPDATE {name} SET "
        fields = self.key + self.columns
        marks = "?, " * len(fields) + _BODY
        self.get = f'SELECT CAST("body" AS BLOB) FROM {name} WHERE {self._where}'
        self.insert = f'INSERT INTO {name} ({joined(fields)}, "body") VALUES ({marks})'
        self.remove = f"DELETE FROM {name} WHERE {self._where}"
        self.updates: dict[tuple[bool, ...], str] = {}
        """By which columns differ: only these are set."""
        self.scans = Scans(table)
        self.unique = {
            _clash_message(table, index.fields): index.name
            for index in table.indexes
            if index.unique
        }

    def update_changed(self, changed: tuple[bool, ...]) -> str:
        """The UPDATE of the columns that differ, and of the body."""
        names = [name for name, differs in zip(self.columns, changed, strict=True) if differs]
        assignments = "".join(f"{quoted(name)} = ?, " for name in names)
        sql = f'{self._update}{assignments}"body" = {_BODY} WHERE {self._where}'
        self.updates[changed] = sql
        return sql


def _clash_message(table: Table, fields: tuple[str, ...]) -> str:
    name = unquoted(table.name)
    return "UNIQUE constraint failed: " + ", ".join(f"{name}.{unquoted(f)}" for f in fields)
