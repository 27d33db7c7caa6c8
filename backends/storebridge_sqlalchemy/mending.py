"""Columns and indexes against bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa

from storebridge.driver import DriverError, ErrorKind, Fault, Key, Table, Values, ValuesOf
from storebridge.driver.pages import all_equal, page_of
from storebridge_sqlalchemy.bodies import decoded
from storebridge_sqlalchemy.creation import Place
from storebridge_sqlalchemy.metadata import index_name
from storebridge_sqlalchemy.statements import Statements, compiled

_PAGE = 500
_IS_OWNER = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)"

Ask = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""Executes a statement and gives all its rows."""
Do = Callable[[str, Sequence[Any]], None]


def missing_indexes(ask: Ask, place: Place, table: Table) -> set[str]:
    """The names of a table's indexes that are not there."""
    names = {index_name(table, index, place.prefix): index.name for index in table.indexes}
    sql = "SELECT indexname::text FROM pg_indexes WHERE schemaname = %s AND indexname = ANY(%s)"
    made = {name for (name,) in ask(sql, [place.schema, list(names)])}
    return {name for sql_name, name in names.items() if sql_name not in made}


def faults(ask: Ask, place: Place, statements: Statements, values_of: ValuesOf) -> Iterator[Fault]:
    """Columns that disagree with their bodies, and indexes that are gone. That an index agrees
    with the columns is for PostgreSQL to say: `amcheck`.
    """
    table = statements.table
    for name in sorted(missing_indexes(ask, place, table)):
        yield Fault(table.name, None, f"index {name} is missing")
    for key, found, expected in _wrong(ask, statements, values_of):
        yield Fault(table.name, key, _difference(table, found, expected))


def rebuild(ask: Ask, do: Do, place: Place, statements: Statements, values_of: ValuesOf) -> None:
    """Set the columns by the bodies, and make the indexes that are missing. Columns that are wrong
    are emptied first, so that entries can swap what they have in a unique index.
    """
    table = statements.table
    try:
        if ask(_IS_OWNER, [statements.name])[0][0]:
            do(f"REINDEX TABLE {statements.name}", [])
        if statements.columns:
            update = statements.update(statements.columns)
            nothing = (None,) * len(statements.columns)
            for key, _, _ in _wrong(ask, statements, values_of):
                do(update, [*nothing, *key])
            for key, _, expected in _wrong(ask, statements, values_of):
                do(update, [*expected, *key])
        for statement in place.index_ddl(table, missing_indexes(ask, place, table)):
            do(statement, [])
        ask("SELECT 1", [])  # whether all of this was done
    except DriverError as error:
        if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
            raise
        raise DriverError(
            ErrorKind.CORRUPT,
            f"table {table.name}: several bodies have the same fields of a unique index: {error};"
            " change or remove all but one",
        ) from error


def _wrong(
    ask: Ask, statements: Statements, values_of: ValuesOf
) -> Iterator[tuple[Key, Values, Values]]:
    """Entries whose columns are not what their bodies say: key, columns, what is to be there."""
    made, key = statements.made, [statements.made.c[name] for name in statements.key]
    shown = [*key, made.c.body, *(made.c[name] for name in statements.columns)]
    page = sa.select(*shown).order_by(*key).limit(sa.literal_column(str(_PAGE)))
    behind = sa.tuple_(*key) > sa.tuple_(
        *(
            sa.bindparam(k, type_=made.c[n].type)
            for k, n in zip(statements.keys, statements.key, strict=True)
        )
    )
    next_page = compiled(page.where(behind), *statements.keys)
    width = len(key)
    rows = ask(compiled(page), [])
    values_of_page = page_of(values_of)
    while rows:
        columns = list(zip(*rows, strict=True))
        bodies = list(map(decoded, columns[width]))
        says = values_of_page(columns[:width], bodies)
        if says is None or not all_equal(says, columns[width + 1 :]):
            for row, body in zip(rows, bodies, strict=True):
                expected = values_of(row[:width], body)
                if expected is not None and expected != row[width + 1 :]:
                    yield row[:width], row[width + 1 :], expected
        rows = ask(next_page, rows[-1][:width])


def _difference(table: Table, found: Values, expected: Values) -> str:
    return "; ".join(
        f"column {field.name} is {is_!r}, the body says {says!r}"
        for field, is_, says in zip(table.columns, found, expected, strict=True)
        if is_ != says
    )
