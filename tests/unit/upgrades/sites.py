"""Where the databases are that are upgraded: in files, or in schemas of a server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storebridge.location import location_of
from tests.postgres_server import Database

BACKENDS = ("sqlite", "lmdb", "bolt", "tinydb", "postgresql")
New = Callable[[], str]
"""Gives the location of a database that is not there yet."""


def places_of(backend: str, request: pytest.FixtureRequest, folder: Path) -> New:
    """New locations of a backend. The server is started only for who needs it."""
    if backend == "postgresql":
        server: Database = request.getfixturevalue("postgresql")
        return server.target
    numbers = itertools.count()
    return lambda: f"{backend}://{folder}/node-{next(numbers)}"


def with_option(location: str, option: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}{option}"


def path_of(location: str) -> Path | None:
    """None on a server."""
    return location_of(location).path


def schema_of(location: str) -> str:
    return location.rpartition("schema=")[2].partition("&")[0]


def connect(location: str) -> psycopg.Connection[Any]:
    """A plain connection to the server of a location."""
    return psycopg.connect(location.partition("?")[0].replace("+psycopg", ""), autocommit=True)


def kept(location: str) -> list[str]:
    """The locations of what an upgrade has put away."""
    path = path_of(location)
    if path is None:
        base, schema = location.partition("?")[0], schema_of(location)
        names = _schemas(location, f"{schema}_replaced")
        return [f"{base}?schema={name}" for name in names]
    found = path.parent.glob(f"{path.name}.replaced*")
    name = location_of(location).backend.name
    return [f"{name}://{each}" for each in sorted(found) if "-" not in each.suffix]


def everything_at(location: str) -> list[Any]:
    """All files, or all relations, at and beside a location."""
    path = path_of(location)
    if path is not None:
        return sorted(path.parent.rglob("*"))
    with connect(location) as connection:
        return connection.execute(
            "SELECT n.nspname, c.oid, c.relname FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE starts_with(n.nspname, %s) ORDER BY 2",
            [schema_of(location)],
        ).fetchall()


def _schemas(location: str, beginning: str) -> list[str]:
    query = "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, %s) ORDER BY 1"
    with connect(location) as connection:
        return [name for (name,) in connection.execute(query, [beginning])]
