"""Transactions: the calls of the contract, each a statement or two.

Rows are fetched whole within a call, so that no cursor outlives it. The paths of get, insert,
replace and remove are as short as they can be: they are called tens of thousands of times a second.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import compress
from operator import ne
from typing import Any, NoReturn

from storebridge.driver import Fault, Key, Position, Range, Rows, UniqueClash, Values, ValuesOf
from storebridge_sqlite import mending
from storebridge_sqlite.connection import Connection
from storebridge_sqlite.errors import is_missing_table
from storebridge_sqlite.statements import Statements

_NUMBER = "SELECT value FROM storebridge WHERE name = ?"
_ADD_NUMBER = "INSERT INTO storebridge (value, name) VALUES (?, ?)"
_SET_NUMBER = "UPDATE storebridge SET value = ? WHERE name = ?"
_TOTALS = "SELECT name, value FROM storebridge WHERE name >= ? AND substr(name, 1, ?) = ?"


class SqliteTransaction:
    """A transaction on a connection. `finish` gives the connection back: it is called once, with
    the statement that is to end the transaction.
    """

    __slots__ = ("_connection", "_execute", "_finish", "_statements")

    def __init__(
        self,
        connection: Connection,
        statements: Mapping[str, Statements],
        finish: Callable[[Connection, str], None],
    ) -> None:
        self._connection = connection
        self._execute: Callable[..., Any] = connection.execute
        self._statements = statements
        self._finish = finish

    def get(self, table: str, key: Key) -> bytes | None:
        """The body, or None."""
        try:
            row = self._execute(self._statements[table].get, key).fetchone()
        except sqlite3.OperationalError as error:
            if is_missing_table(error):
                return None
            raise
        return None if row is None else row[0]

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        """Add an entry; False if the key exists."""
        statements = self._statements[table]
        try:
            self._execute(statements.insert, (*key, *values, body))
        except sqlite3.IntegrityError as error:
            if self._execute(statements.get, key).fetchone() is not None:
                return False
            _raise_clash(statements, error)
        return True

    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        """Update the body and the columns that differ: an UPDATE that names an indexed column
        costs even where it does not change it.
        """
        statements = self._statements[table]
        changed = tuple(map(ne, old_values, values))
        sql = statements.updates.get(changed) or statements.update_changed(changed)
        try:
            self._execute(sql, (*compress(values, changed), body, *key))
        except sqlite3.IntegrityError as error:
            _raise_clash(statements, error)

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        """Delete the row. SQLite knows its index entries."""
        self._execute(self._statements[table].remove, key)

    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        """The rows of a range in order, and where to go on."""
        scans = self._statements[table].scans
        select = scans.select(range)
        if select is None:
            return [], None
        return scans.page(range, self._all(select.sql, [*select.parameters, range.limit + 1]))

    def count(self, table: str, range: Range) -> int:
        """How many rows a range has, from its index alone."""
        select = self._statements[table].scans.count(range)
        found = self._all(select.sql, select.parameters)
        return found[0][0] if found else 0

    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        """Add to named integers. A SELECT and an UPDATE: an upsert that returns the value costs
        half as much again.
        """
        execute = self._execute
        values = {}
        for name, delta in deltas.items():
            row = execute(_NUMBER, (name,)).fetchone()
            values[name] = delta if row is None else row[0] + delta
            execute(_ADD_NUMBER if row is None else _SET_NUMBER, (values[name], name))
        return values

    def totals(self, prefix: str) -> dict[str, int]:
        """The named integers of a prefix."""
        return dict(self._all(_TOTALS, (prefix, len(prefix), prefix)))

    def faults(self, table: str, values_of: ValuesOf) -> Iterator[Fault]:
        """Columns that disagree with their bodies, and indexes that are gone."""
        return mending.faults(self._all, self._statements[table].table, values_of)

    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        """Set the columns by the bodies and make the indexes anew."""
        mending.rebuild(self._all, self._statements[table].table, values_of)

    def commit(self) -> None:
        """End the transaction and keep what it did."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """End the transaction and undo what it did."""
        self._end("ROLLBACK")

    def _end(self, statement: str) -> None:
        self._execute = _ended
        self._finish(self._connection, statement)

    def _all(self, sql: str, parameters: Any = ()) -> list[Any]:
        """All rows of a statement; none from a table that was never made."""
        try:
            rows: list[Any] = self._execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if is_missing_table(error):
                return []
            raise
        return rows


def _raise_clash(statements: Statements, error: sqlite3.IntegrityError) -> NoReturn:
    index = statements.unique.get(str(error))
    if index is None:
        raise error
    raise UniqueClash(index) from None


def _ended(*_: object) -> NoReturn:
    raise sqlite3.ProgrammingError("the transaction has ended")
