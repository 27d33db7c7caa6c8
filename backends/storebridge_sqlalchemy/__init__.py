"""The SQLAlchemy backend: a database on a PostgreSQL server that processes on many machines share,
or in a SQLite file, and its tables for SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storebridge_sqlalchemy.backend import backend, pysqlite

if TYPE_CHECKING:
    from storebridge_sqlalchemy.metadata import engine_of, metadata_of

__all__ = ["backend", "engine_of", "metadata_of", "pysqlite"]


def __getattr__(name: str) -> Any:
    # A location is recognised without SQLAlchemy, whose import takes a while.
    if name in ("engine_of", "metadata_of"):
        from storebridge_sqlalchemy import metadata

        return getattr(metadata, name)
    raise AttributeError(name)
