"""How a location is opened. SQLAlchemy and psycopg are imported only then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import storebridge_sqlite

from storebridge.driver import Driver, DriverError, ErrorKind, Options
from storebridge.driver.capabilities import Replacement
from storebridge_sqlalchemy.options import INCOMING, LIBPQ_OPTIONS, OWN_OPTIONS


class PysqliteBackend:
    """SQLite files as the `sqlite` backend keeps them, for those who read them with SQLAlchemy.

    There is one program that knows how such a file is locked, opened for reading and repaired after
    a kill; a second one would be a second opinion on the same file.
    """

    name = "sqlite+pysqlite"
    schemes: tuple[str, ...] = ()
    suffixes = storebridge_sqlite.backend.suffixes
    extra_options = storebridge_sqlite.backend.extra_options

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the file is a SQLite database."""
        return storebridge_sqlite.backend.recognises(path, head)

    def open(self, target: str, options: Options) -> Driver:
        """Open the file at a path, or make it."""
        import sqlalchemy  # noqa: F401 - who asks for it by name has it

        return storebridge_sqlite.backend.open(target, options)

    def files(self, target: str) -> list[Path]:
        """The file, and those at its side."""
        return storebridge_sqlite.backend.files(target)

    def shell(self, target: str) -> list[str] | None:
        """The `sqlite3` command."""
        return storebridge_sqlite.backend.shell(target)


class SqlalchemyBackend:
    """A PostgreSQL server through SQLAlchemy and psycopg, and SQLite files."""

    name = "sqlalchemy"
    schemes = ("postgresql+psycopg", "postgresql", "sqlite+pysqlite")
    suffixes: tuple[str, ...] = ()
    extra_options = (*OWN_OPTIONS, *LIBPQ_OPTIONS, *PysqliteBackend.extra_options)

    def recognises(self, path: Path, head: bytes) -> bool:
        """No file is its own: a SQLite file is one of the `sqlite` backend."""
        return False

    def open(self, target: str, options: Options) -> Driver:
        """Open what is at a URL of a server, or at a path."""
        allowed = pysqlite.extra_options if _is_path(target) else OWN_OPTIONS + LIBPQ_OPTIONS
        for name in options.extra:
            if name not in allowed:
                where = "a SQLite file" if _is_path(target) else "a server"
                raise DriverError(
                    ErrorKind.CONFIGURATION,
                    f"unknown option {name!r} of {where}; there are: {', '.join(allowed)}",
                )
        if _is_path(target):
            return pysqlite.open(target, options)
        from storebridge_sqlalchemy.address import address_of
        from storebridge_sqlalchemy.driver import PostgresDriver

        address = address_of(target, options.extra)
        return PostgresDriver(address, replace(options, extra={}))

    def files(self, target: str) -> list[Path]:
        """Those of a SQLite file; a server has none that anybody could rename."""
        return pysqlite.files(target) if _is_path(target) else []

    def alone(
        self, target: str, options: Options, is_due: Callable[[int], bool]
    ) -> AbstractContextManager[Replacement | None]:
        """Keep everybody else from opening what is at a URL of a server."""
        from storebridge_sqlalchemy.address import address_of
        from storebridge_sqlalchemy.replacing import alone

        return alone(address_of(target, options.extra), options.lock_timeout, is_due)

    def is_beside(self, target: str, options: Options) -> bool:
        """By the name of the schema."""
        return options.extra.get("schema", "").endswith(INCOMING)

    def shell(self, target: str) -> list[str] | None:
        """`psql`, which asks for a password or finds it in ~/.pgpass; `sqlite3` on a file."""
        if _is_path(target):
            return pysqlite.shell(target)
        from storebridge_sqlalchemy.address import address_of

        return ["psql", address_of(target, {}).conninfo_to_look]


def _is_path(target: str) -> bool:
    return target.startswith("/")


pysqlite = PysqliteBackend()
backend = SqlalchemyBackend()
