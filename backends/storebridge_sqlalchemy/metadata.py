"""The tables as SQLAlchemy knows them: a table `job-history` is `job_history`, its key fields and
columns are columns, and the body is text.

Columns other than the key may be NULL, so that a table to which a column was added later is the
same as a new one. Text is compared by code point, whatever the database's own collation.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg as dialect

from storebridge.driver import Field, Index, Table

LONGEST_NAME = 63
"""Bytes of a name in PostgreSQL; it would cut off the rest."""

DIALECT = dialect.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TYPES: dict[str, sa.types.TypeEngine[Any]] = {"text": _TEXT, "integer": sa.BigInteger()}


class Opened(Protocol):
    """What is needed of an opened database: a `storebridge.Database` is one."""

    driver: Any
    location: Any

    def tables(self) -> list[Table]:
        """Every table that it has."""


def metadata_of(database: Opened) -> sa.MetaData:
    """The tables of an opened database, to be joined with tables of your own.

    Of any database that is kept in SQL: one on PostgreSQL or in a SQLite file, whichever backend
    opened it. `sqlalchemy.Table("job_history", metadata)` gives a table; a prefix that the location
    names is part of its name, a schema is the metadata's. Read from them: what others than
    storebridge write to them leaves counters and events behind.
    """
    schema = getattr(database.driver, "given_schema", None)
    prefix = getattr(database.driver, "prefix", "")
    return make_metadata(database.tables(), schema, prefix)


def engine_of(database: Opened) -> sa.Engine:
    """A new engine on the same PostgreSQL database or SQLite file, to be disposed of by the caller.

    What it writes is in transactions of its own. On SQLite keep those short: there is one writer
    at a time, and stores wait for `lock_timeout`.
    """
    path = database.location.path
    if path is not None:
        url = sa.URL.create("sqlite+pysqlite", database=str(path))
        timeout = database.location.options.lock_timeout
        return sa.create_engine(url, connect_args={"timeout": timeout})
    connect = functools.partial(psycopg.connect, **database.driver.connect_arguments)
    return sa.create_engine("postgresql+psycopg://", creator=connect)


def make_metadata(tables: Iterable[Table], schema: str | None, prefix: str) -> sa.MetaData:
    """Tables in a schema, their names behind a prefix, with their indexes."""
    metadata = sa.MetaData(schema=schema)
    for table in tables:
        made = make_table(metadata, table, prefix)
        for index in table.indexes:
            make_index(made, table, index, prefix)
    return metadata


def sql_name(name: str, prefix: str = "") -> str:
    """A name of the contract as SQL has it; a long one ends in a digest of itself."""
    name = prefix + name.replace("-", "_")
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}_{digest}"


def index_name(table: Table, index: Index, prefix: str) -> str:
    """Indexes share one name space with tables."""
    return sql_name(f"{table.name}-by-{index.name}", prefix)


def optional_fields(table: Table, index: Index) -> list[str]:
    """The fields of an index by which an entry may be absent from it."""
    optional = {field.name for field in table.columns if field.optional}
    return [name for name in index.fields if name in optional]


def make_table(metadata: sa.MetaData, table: Table, prefix: str) -> sa.Table:
    """A table without its indexes."""
    return sa.Table(
        sql_name(table.name, prefix),
        metadata,
        *(_column(field, key=True) for field in table.key),
        *(_column(field, key=False) for field in table.columns),
        sa.Column("body", sa.Text(), nullable=False),
    )


def make_index(made: sa.Table, table: Table, index: Index, prefix: str) -> sa.Index:
    """An index of a table; a partial one where entries may be absent."""
    present = [made.c[name].is_not(None) for name in optional_fields(table, index)]
    where = sa.and_(*present) if present else None
    return sa.Index(
        index_name(table, index, prefix),
        *(made.c[name] for name in index.fields),
        unique=index.unique,
        postgresql_where=where,
        sqlite_where=where,
    )


def _column(field: Field, *, key: bool) -> sa.Column[Any]:
    return sa.Column(
        field.name, _TYPES[field.type], primary_key=key, nullable=not key, autoincrement=False
    )
