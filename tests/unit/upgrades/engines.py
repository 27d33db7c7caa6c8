"""All that is in a file, as its engine has it, read without storebridge."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
from storebridge_bolt.pybolt import DB, Bucket

from storebridge.meta import INCOMPLETE


def engine_content(name: str, path: Path) -> Any:
    """What is at a path, to be compared with another of its backend. Left out is the total that was
    not 0 while a database was filled: where it still stands it is 0.
    """
    return _READERS[name](path)


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
