"""All that is in a file, or a schema, as its engine has it, read without storebridge."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import psycopg
from storebridge_bolt.pybolt import DB, Bucket

from storebridge.meta import INCOMPLETE
from tests.unit.upgrades.sites import connect, path_of, schema_of


def engine_content(location: str) -> Any:
    """What is at a location, to be compared with another of its backend. Left out is the total that
    was not 0 while a database was filled: where it still stands it is 0.
    """
    path = path_of(location)
    return _postgresql(location) if path is None else _READERS[location.partition(":")[0]](path)


def _postgresql(location: str) -> Any:
    schema = schema_of(location)
    with connect(location) as connection:
        found = {query: _asked(connection, query, schema) for query in _CATALOGUE}
        tables = [row[0] for row in found[_RELATIONS] if row[1] == "r"]
        for table in tables:
            # Who has written is of the process, and when it did.
            if table != "storebridge_commit":
                query = f'SELECT t::text FROM "{schema}"."{table}" AS t'
                rows = [text for (text,) in connection.execute(query)]
                found[table] = sorted(row for row in rows if INCOMPLETE not in row)
    return found


def _asked(connection: psycopg.Connection[Any], query: str, schema: str) -> list[list[str]]:
    rows = connection.execute(query, {"schema": schema}).fetchall()
    return [[str(value).replace(schema, "…") for value in row] for row in rows]


_RELATIONS = """
SELECT relname, relkind, relacl, reloptions, relpersistence FROM pg_class
WHERE relnamespace = to_regnamespace(%(schema)s) AND relkind <> 't' ORDER BY 1
"""
_CATALOGUE = (
    _RELATIONS,
    """SELECT table_name, ordinal_position, column_name, data_type, collation_name, is_nullable,
        column_default FROM information_schema.columns WHERE table_schema = %(schema)s
        ORDER BY 1, 2""",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = %(schema)s ORDER BY 1",
    "SELECT viewname, definition FROM pg_views WHERE schemaname = %(schema)s ORDER BY 1",
    """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = to_regnamespace(%(schema)s) ORDER BY 1""",
    """SELECT pg_get_functiondef(oid), proacl FROM pg_proc
        WHERE pronamespace = to_regnamespace(%(schema)s) ORDER BY 1""",
)


def _sqlite(path: Path) -> Any:
    with sqlite3.connect(path) as connection:
        schema = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        pragmas = [
            connection.execute(f"PRAGMA {pragma}").fetchone()
            for pragma in ("user_version", "application_id", "auto_vacuum", "page_size", "encoding")
        ]
        tables = [name for name, sql in schema if str(sql).startswith("CREATE TABLE")]
        rows = {name: _rows(connection, name) for name in tables}
    connection.close()
    return schema, pragmas, rows


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    return sorted((row for row in rows if INCOMPLETE not in row), key=repr)


def _lmdb(path: Path) -> Any:
    environment = lmdb.open(str(path), readonly=True, max_dbs=256)
    with environment.begin() as transaction:
        names = [bytes(name) for name, _ in transaction.cursor()]
        found = {
            name: [
                (bytes(key), bytes(value))
                for key, value in transaction.cursor(environment.open_db(name, transaction))
                if INCOMPLETE.encode() not in key
            ]
            for name in names
        }
    environment.close()
    return found


def _bolt(path: Path) -> Any:
    with DB(path, read_only=True) as db, db.view() as tx:
        return {name: _bucket(tx.bucket(name)) for name in tx.buckets()}


def _bucket(bucket: Bucket) -> dict[bytes, Any]:
    values = {key: value for key, value in bucket.items() if INCOMPLETE.encode() not in key}
    return values | {name: _bucket(bucket.bucket(name)) for name in bucket.buckets()}


def _tinydb(path: Path) -> Any:
    """Its documents have numbers of no meaning, and one tells which journal is the file's."""
    return {
        table: sorted(
            repr(document)
            for document in documents.values()
            if document.get("name") not in ("journal", f"tally {INCOMPLETE}")
        )
        for table, documents in json.loads(path.read_text()).items()
    }


_READERS: dict[str, Callable[[Path], Any]] = {
    "sqlite": _sqlite,
    "lmdb": _lmdb,
    "bolt": _bolt,
    "tinydb": _tinydb,
}
