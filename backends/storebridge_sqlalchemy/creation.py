"""Making what is missing, and marking it as ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from storebridge.driver import DriverError, ErrorKind, Index, Table
from storebridge_sqlalchemy import views
from storebridge_sqlalchemy.link import Link
from storebridge_sqlalchemy.metadata import (
    DIALECT,
    index_name,
    make_index,
    make_table,
    optional_fields,
    sql_name,
)
from storebridge_sqlalchemy.statements import Ours, qualified

_FIND = """
SELECT c.relname, c.relkind::text, t.relname, i.indisunique, i.indpred IS NOT NULL,
    array(SELECT a.attname::text FROM pg_attribute a
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class t ON t.oid = i.indrelid
WHERE n.nspname = %s AND c.relname = ANY(%s)
"""

Ask = Callable[..., list[tuple[Any, ...]]]
"""Executes a statement and gives all its rows."""


class Found(NamedTuple):
    """A relation that is there."""

    kind: str
    """As in `pg_class`: r a table, i an index, v a view."""
    of: str | None
    """The table of an index."""
    unique: bool | None
    partial: bool
    columns: tuple[str, ...]


class Place:
    """Where the tables are: a schema, and what their names begin with."""

    def __init__(self, schema: str, prefix: str) -> None:
        self.schema = schema
        self.prefix = prefix
        self.ours = Ours(sa.MetaData(schema=schema), prefix)

    def read_layout(self, ask: Ask) -> int | None:
        """The layout that the mark says; None: there is no mark, so nothing of ours."""
        return max(self.read_marked(ask).values(), default=None)

    def read_marked(self, ask: Ask) -> dict[str, int]:
        """The names of our tables and views, each with the layout that it is of."""
        name = qualified(self.ours.mark)
        if ask("SELECT to_regclass(%s)", [name])[0][0] is None:
            return {}
        return dict(ask(f"SELECT name, layout FROM {name}"))

    def find(self, ask: Ask, tables: Sequence[Table]) -> dict[str, Found]:
        """What there is of these tables, their indexes and views, by name."""
        names = [*self._names(tables)]
        names += [self.index_name(table, index) for table in tables for index in table.indexes]
        rows = ask(_FIND, [self.schema, names])
        return {
            name: Found(kind, of, unique, partial, tuple(columns))
            for name, kind, of, unique, partial, columns in rows
        }

    def is_made(self, link: Link, tables: Sequence[Table], layout: int) -> bool:
        """Whether the database is at these tables and this layout."""
        return next(self._missing(link.single, tables, layout), None) is None

    def _missing(self, ask: Ask, tables: Sequence[Table], layout: int) -> Iterator[str]:
        """The statements that bring the database to these tables and this layout. DriverError of
        kind FOREIGN where somebody else's tables have our names.
        """
        found, marked = self.find(ask, tables), self.read_marked(ask)
        self._refuse_foreign(found, tables, marked)
        mark = qualified(self.ours.mark)
        if not marked:
            yield from (_ddl(CreateTable(table)) for table in self.ours.tables)
            yield views.create_function(self.schema, self.prefix)
        made = [name for name in self._names(tables) if name not in marked]
        if made:
            rows = ", ".join(f"('{name}', {layout})" for name in made)
            yield f"INSERT INTO {mark} VALUES {rows}"
        if set(marked.values()) - {layout}:
            yield f"UPDATE {mark} SET layout = {layout}"
        for table in tables:
            yield from self._missing_of(table, found)
            yield from self._stale_view(table, found)

    def _names(self, tables: Sequence[Table]) -> Iterator[str]:
        """Tables and views, our own ones too, as they are called here."""
        yield from (table.name for table in self.ours.tables)
        for table in tables:
            yield self.name(table.name)
            if table.view is not None:
                yield self.name(table.view.name)

    def make(self, link: Link, tables: Sequence[Table], layout: int, durable: bool) -> None:
        """Make what is missing, one process at a time, all of it or nothing."""
        try:
            self._make(link, tables, layout, durable)
        except DriverError as error:
            if error.kind is not ErrorKind.READ_ONLY:
                raise
            raise DriverError(
                ErrorKind.CONFIGURATION,
                f"may not make the tables that are missing: have their owner open it"
                f" once, or grant CREATE on the schema {self.schema}: {error}",
            ) from error

    def _make(self, link: Link, tables: Sequence[Table], layout: int, durable: bool) -> None:
        link.send("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE")
        if durable:
            link.send("SET LOCAL synchronous_commit = on")
        # Of the schema: two prefixes in a new one would both make it.
        key = f"storebridge {self.schema}"
        link.ask("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
        if not link.ask("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self.schema]):
            link.send(f'CREATE SCHEMA "{self.schema}"')
        link.send_all(list(self._missing(link.ask, tables, layout)))
        link.commit()

    def index_ddl(self, table: Table, missing: set[str]) -> list[str]:
        """The statements that make these indexes of a table."""
        if not missing:
            return []
        made = self._made(table)
        return [
            _ddl(CreateIndex(make_index(made, table, index, self.prefix)))
            for index in table.indexes
            if index.name in missing
        ]

    def name(self, name: str) -> str:
        """A name of the contract as it is called here."""
        return sql_name(name, self.prefix)

    def index_name(self, table: Table, index: Index) -> str:
        """An index as it is called here."""
        return index_name(table, index, self.prefix)

    def _refuse_foreign(
        self, found: dict[str, Found], tables: Sequence[Table], marked: Mapping[str, int]
    ) -> None:
        owners = {
            self.index_name(table, index): self.name(table.name)
            for table in tables
            for index in table.indexes
        }
        for name, relation in found.items():
            ours = relation.of == owners[name] if name in owners else name in marked
            if not ours:
                raise DriverError(
                    ErrorKind.FOREIGN,
                    f"the schema {self.schema} has a {name} that is not one of"
                    " storebridge; choose another one with ?schema=, or other names with ?prefix=",
                )

    def _missing_of(self, table: Table, found: dict[str, Found]) -> Iterator[str]:
        existing = found.get(self.name(table.name))
        if existing is None:
            yield _ddl(CreateTable(self._made(table)))
        else:
            for field in table.columns:
                if field.name not in existing.columns:
                    made = self._made(table)
                    column = _ddl(CreateColumn(made.c[field.name]))
                    yield f"ALTER TABLE {qualified(made)} ADD COLUMN {column}"
        changed = set()
        for index in table.indexes:
            name, partial = self.index_name(table, index), bool(optional_fields(table, index))
            there = found.get(name)
            own = self.name(table.name)
            if there != Found("i", own, index.unique, partial, index.fields):
                changed.add(index.name)
                if there is not None:
                    yield f'DROP INDEX "{self.schema}"."{name}"'
        yield from self.index_ddl(table, changed)

    def _made(self, table: Table) -> sa.Table:
        return make_table(sa.MetaData(schema=self.schema), table, self.prefix)

    def _stale_view(self, table: Table, found: dict[str, Found]) -> Iterator[str]:
        """A view that shows more than ours is of a process with a newer record version: both would
        take turns in replacing it.
        """
        if table.view is None:
            return
        there = found.get(self.name(table.view.name))
        shown = there.columns if there else ()
        wanted = views.view_columns(table)
        if there is None or not set(shown).issuperset(wanted):
            if set(shown) - set(wanted):
                yield f'DROP VIEW "{self.schema}"."{self.name(table.view.name)}"'
            yield views.create_view(table, self.schema, self.prefix, shown)


def _ddl(element: sa.schema.DDLElement | CreateColumn) -> str:
    return " ".join(str(element.compile(dialect=DIALECT)).split())
