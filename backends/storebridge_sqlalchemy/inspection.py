"""What the server knows of our tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import psycopg

from storebridge.driver import DriverError, ErrorKind, Reader
from storebridge_sqlalchemy.creation import Place
from storebridge_sqlalchemy.statements import Statements, qualified

Ask = Callable[..., list[tuple[Any, ...]]]
_SETTINGS = ("server_version", "server_encoding", "synchronous_commit", "fsync", "lock_timeout")
_INVALID = """
SELECT x.indexrelid::regclass::text FROM pg_index x
WHERE x.indrelid = ANY(%s::regclass[]) AND NOT (x.indisvalid AND x.indisready)
"""
_FAILED = """
SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()
"""
_CAN_CHECK = """
SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'bt_index_check' AND p.pronargs = 2
WHERE e.extname = 'amcheck' AND has_function_privilege(p.oid, 'EXECUTE')
"""
_INDEXES = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = ANY(%s::regclass[])"
_SESSION = """
SELECT current_database()::text, current_user::text,
    (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), pg_is_in_recovery()
"""
_SIZES = """
SELECT coalesce(sum(pg_table_size(c)), 0)::int8, coalesce(sum(pg_indexes_size(c)), 0)::int8
FROM unnest(%s::regclass[]) AS c
"""
_READERS = """
SELECT pid, age(backend_xmin)::int8 FROM pg_stat_activity
WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
"""


def names_of(ask: Ask, place: Place, tables: Iterable[Statements]) -> list[str]:
    """The tables that there are, ours among them, as the server is told them."""
    names = [*map(qualified, place.ours.tables), *(table.name for table in tables)]
    asked = "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL"
    return [name for (name,) in ask(asked, [names])]


def check(ask: Ask, place: Place, tables: Iterable[Statements]) -> Iterator[str]:
    """One line a problem."""
    names = names_of(ask, place, tables)
    for (name,) in ask(_INVALID, [names]):
        yield f"index {name} is invalid: REINDEX INDEX {name}"
    for (failures,) in ask(_FAILED):
        if failures:
            yield f"{failures} pages of the database failed their checksum: see the server's log"
    for (schema,) in ask(_CAN_CHECK):
        for (name,) in ask(_INDEXES, [names]):
            yield from _check_index(ask, schema, name)


def _check_index(ask: Ask, schema: str, name: str) -> Iterator[str]:
    try:
        ask(f'SELECT 1 FROM (SELECT "{schema}".bt_index_check(%s::regclass, true)) AS c', [name])
    except DriverError as error:
        if error.kind is not ErrorKind.CORRUPT:
            raise
        yield f"{error}: REINDEX INDEX {name}"


def vacuum(connection: psycopg.Connection[Any], names: Sequence[str]) -> str | None:
    """Make the room of removed rows usable again, as autovacuum does in time. A table that somebody
    has locked, or of which we are not the owner, is passed over, and the server says so.
    """
    passed_over: list[str] = []
    connection.add_notice_handler(lambda told: passed_over.append(told.message_primary or ""))
    connection.execute(f"VACUUM (SKIP_LOCKED, ANALYZE) {', '.join(names)}")
    if not passed_over:
        return None
    return f"autovacuum will do it: {passed_over[0]}"


def sizes(ask: Ask, place: Place, tables: Iterable[Statements]) -> tuple[int, int]:
    """Bytes of tables and of indexes."""
    ((of_tables, of_indexes),) = ask(_SIZES, [names_of(ask, place, tables)])
    return of_tables, of_indexes


def readers(ask: Ask) -> list[Reader]:
    """The server's processes that keep old rows from being removed, other programs' too; those of
    other users only if the server shows them."""
    return [Reader(pid, behind) for pid, behind in ask(_READERS)]


def describe(ask: Ask, place: Place, tables: Iterable[Statements]) -> dict[str, str | int]:
    """Settings by their names, and sizes in bytes."""
    settings = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
    described: dict[str, str | int] = dict(ask(settings, [list(_SETTINGS)]))
    ((database, user, tls, standby),) = ask(_SESSION)
    of_tables, of_indexes = sizes(ask, place, tables)
    return described | {
        "database": database,
        "user": user,
        "schema": place.schema,
        "prefix": place.prefix,
        "tls": tls or "off",
        "in_recovery": "on" if standby else "off",
        "table_size": of_tables,
        "index_size": of_indexes,
    }
