"""Columns and indexes against bodies."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from storebridge.driver import DriverError, ErrorKind, Fault, Key, Table, Values, ValuesOf
from storebridge_sqlite.schema import (
    create_index,
    index_name,
    joined,
    quoted,
    stored_indexes,
    unquoted,
)

_PAGE = 500

All = Callable[..., list[Any]]
"""Executes a statement and gives all its rows."""
Entry = tuple[Key, bytes, Values]


def faults(all: All, table: Table, values_of: ValuesOf) -> Iterator[Fault]:
    """Columns that disagree with their bodies, and indexes that are gone. That an index agrees
    with the columns is for SQLite to say: `PRAGMA integrity_check`.
    """
    made = {name for (name,) in all("SELECT name FROM sqlite_master WHERE type = 'index'")}
    exists = all("SELECT 1 FROM sqlite_master WHERE name = ?", (unquoted(table.name),))
    for index in stored_indexes(table) if exists else ():
        if unquoted(index_name(table, index)) not in made:
            yield Fault(table.name, None, f"index {index.name} is missing")
    for key, body, found in _entries(all, table):
        expected = values_of(key, body)
        if expected is not None and expected != found:
            yield Fault(table.name, key, _difference(table, found, expected))


def rebuild(all: All, table: Table, values_of: ValuesOf) -> None:
    """Set the columns by the bodies and make the indexes anew. The indexes are dropped first, so
    that entries can swap what they have in a unique one.
    """
    for index in stored_indexes(table):
        all(f"DROP INDEX IF EXISTS {quoted(index_name(table, index))}")
    all(f"REINDEX {quoted(table.name)}")  # what is left is the key's index
    if table.columns:
        _set_columns(all, table, values_of)
    for index in stored_indexes(table):
        try:
            all(create_index(table, index))
        except sqlite3.IntegrityError as error:
            raise DriverError(
                ErrorKind.CORRUPT,
                f"table {table.name}: several bodies have the same fields of the unique index"
                f" {index.name}; change or remove all but one",
            ) from error


def _set_columns(all: All, table: Table, values_of: ValuesOf) -> None:
    assignments = ", ".join(f"{quoted(field.name)} = ?" for field in table.columns)
    update = f"UPDATE {quoted(table.name)} SET {assignments} WHERE {_key_is(table, '=')}"
    for key, body, found in _entries(all, table):
        expected = values_of(key, body)
        if expected is not None and expected != found:
            all(update, (*expected, *key))


def _entries(all: All, table: Table) -> Iterator[Entry]:
    """Every entry, in pages by key."""
    width = len(table.key)
    key = joined(field.name for field in table.key)
    shown = "".join(f", {quoted(field.name)}" for field in table.columns)
    select = f'SELECT {key}, CAST("body" AS BLOB){shown} FROM {quoted(table.name)}'
    order = f" ORDER BY {key} LIMIT {_PAGE}"
    rows = all(select + order)
    while rows:
        for row in rows:
            yield row[:width], row[width], row[width + 1 :]
        rows = all(f"{select} WHERE {_key_is(table, '>')}{order}", rows[-1][:width])


def _key_is(table: Table, operator: str) -> str:
    marks = ", ".join("?" * len(table.key))
    return f"({joined(field.name for field in table.key)}) {operator} ({marks})"


def _difference(table: Table, found: Values, expected: Values) -> str:
    return "; ".join(
        f"column {field.name} is {is_!r}, the body says {says!r}"
        for field, is_, says in zip(table.columns, found, expected, strict=True)
        if is_ != says
    )
