"""Columns and indexes against bodies."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from storebridge.driver import DriverError, ErrorKind, Fault, Key, Table, Values, ValuesOf
from storebridge.driver.pages import all_equal, page_of
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
Wrong = tuple[Key, Values, Values]
"""A key, what its columns are, and what they are to be."""


def faults(all: All, table: Table, values_of: ValuesOf) -> Iterator[Fault]:
    """Columns that disagree with their bodies, and indexes that are gone. That an index agrees
    with the columns is for SQLite to say: `PRAGMA integrity_check`.
    """
    made = {name for (name,) in all("SELECT name FROM sqlite_master WHERE type = 'index'")}
    exists = all("SELECT 1 FROM sqlite_master WHERE name = ?", (unquoted(table.name),))
    for index in stored_indexes(table) if exists else ():
        if unquoted(index_name(table, index)) not in made:
            yield Fault(table.name, None, f"index {index.name} is missing")
    for key, found, expected in _wrong(all, table, values_of):
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
    for key, _, expected in _wrong(all, table, values_of):
        all(update, (*expected, *key))


def _wrong(all: All, table: Table, values_of: ValuesOf) -> Iterator[Wrong]:
    """Entries whose columns are not what their bodies say. Nearly always a whole page is right."""
    width, values_of_page = len(table.key), page_of(values_of)
    for rows in _pages(all, table):
        columns = list(zip(*rows, strict=True))
        expected = values_of_page(columns[:width], columns[width])
        if expected is not None and all_equal(expected, columns[width + 1 :]):
            continue
        for row in rows:
            key, found = row[:width], row[width + 1 :]
            says = values_of(key, row[width])
            if says is not None and says != found:
                yield key, found, says


def _pages(all: All, table: Table) -> Iterator[list[Any]]:
    """Every entry by key, body and columns, in pages by key."""
    key = joined(field.name for field in table.key)
    shown = "".join(f", {quoted(field.name)}" for field in table.columns)
    select = f'SELECT {key}, CAST("body" AS BLOB){shown} FROM {quoted(table.name)}'
    order = f" ORDER BY {key} LIMIT {_PAGE}"
    rows = all(select + order)
    while rows:
        yield rows
        rows = all(f"{select} WHERE {_key_is(table, '>')}{order}", rows[-1][: len(table.key)])


def _key_is(table: Table, operator: str) -> str:
    marks = ", ".join("?" * len(table.key))
    return f"({joined(field.name for field in table.key)}) {operator} ({marks})"


def _difference(table: Table, found: Values, expected: Values) -> str:
    return "; ".join(
        f"column {field.name} is {is_!r}, the body says {says!r}"
        for field, is_, says in zip(table.columns, found, expected, strict=True)
        if is_ != says
    )
