"""Making what is missing, and marking the file as ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from storebridge.driver import DriverError, ErrorKind, Table
from storebridge_sqlite.connection import Connection
from storebridge_sqlite.schema import (
    APPLICATION_ID,
    CREATE_TALLY,
    column,
    create_index,
    create_table,
    create_view,
    index_name,
    quoted,
    stored_indexes,
    unquoted,
    view_columns,
)


def layout_of(connection: Connection) -> int | None:
    """The layout of a database of ours; None: nothing is there yet."""
    if connection.one("PRAGMA application_id") != APPLICATION_ID:
        return None
    layout: int = connection.one("PRAGMA user_version")
    return layout


def missing(connection: Connection, tables: Sequence[Table], layout: int) -> list[str]:
    """The statements that bring the file to these tables and this layout; none if it is there.

    The mark is among the first of them: executed in one transaction, they leave no moment at which
    our tables are in a file that is not ours.
    """
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
    statements = []
    marked = layout_of(connection)
    if marked is None:
        if found:
            raise DriverError(ErrorKind.FOREIGN, "the file was filled by another program meanwhile")
        statements = [f"PRAGMA application_id = {APPLICATION_ID}", CREATE_TALLY]
    if marked != layout:
        statements.append(f"PRAGMA user_version = {layout}")
    for table in tables:
        statements += _missing_of(connection, table, found)
        statements += _stale_view(connection, table, found, marked != layout)
    return statements


def _missing_of(
    connection: Connection, table: Table, found: dict[str, str | None]
) -> Iterator[str]:
    if unquoted(table.name) not in found:
        yield create_table(table)
    else:
        columns = _columns(connection, table.name)
        for field in table.columns:
            if field.name not in columns:
                yield f"ALTER TABLE {quoted(table.name)} ADD COLUMN {column(field)}"
    for index in stored_indexes(table):
        name, sql = index_name(table, index), create_index(table, index)
        existing = found.get(unquoted(name))
        if existing != sql:
            if existing is not None:
                yield f"DROP INDEX {quoted(name)}"
            yield sql


def _stale_view(
    connection: Connection, table: Table, found: dict[str, str | None], upgrade: bool
) -> Iterator[str]:
    """A view that shows more than ours is left alone: it is of a process with a newer record
    version, and both would take turns in replacing it.
    """
    if table.view is None:
        return
    sql, existing = create_view(table), found.get(unquoted(table.view.name))
    if existing == sql:
        return
    if existing is not None:
        shown = _columns(connection, table.view.name)
        if not upgrade and shown.issuperset(view_columns(table)):
            return
        yield f"DROP VIEW {quoted(table.view.name)}"
    yield sql


def _columns(connection: Connection, name: str) -> set[str]:
    rows = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    return {row[1] for row in rows}
