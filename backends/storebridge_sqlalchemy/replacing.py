"""Putting a database in the place of another on a server, in one transaction.

The new one is made under the same names in a schema beside. Then the old tables, views and the
function go to a schema where they are kept, and the new ones to where those were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from time import monotonic, sleep
from typing import Any, NamedTuple

import psycopg

from storebridge.driver import DriverError, ErrorKind
from storebridge_sqlalchemy import dependents, grants, uses
from storebridge_sqlalchemy.address import PATTERNS, Address
from storebridge_sqlalchemy.creation import Place
from storebridge_sqlalchemy.errors import kind, one_line
from storebridge_sqlalchemy.options import INCOMING
from storebridge_sqlalchemy.pool import connect
from storebridge_sqlalchemy.views import function_name

_REPLACED = "_replaced"
_POLL = 0.05
_RELATIONS = """
SELECT c.relname::text, CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::int8,
    c.relowner::regrole::text, pg_has_role(c.relowner, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s)
UNION ALL
SELECT p.proname::text || '(text)', 'FUNCTION', p.oid::int8, p.proowner::regrole::text,
    pg_has_role(p.proowner, 'USAGE')
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = %(function)s
ORDER BY 1
"""
_MAY = """
SELECT current_database()::text, current_user::text,
    has_database_privilege(current_database(), 'CREATE')
"""
_MAY_IN = """
SELECT has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE')
FROM pg_namespace WHERE nspname = %s
"""
_ELSE = "or export it, and import it into a new place"


class Relation(NamedTuple):
    """A table, a view or the function of ours."""

    name: str
    """As SQL has it, without the schema; of the function with its parameter."""
    word: str
    """What it is, in SQL."""
    oid: int
    owner: str
    """As SQL has it."""
    is_mine: bool
    """Whether this user is its owner, or of the role that is."""


class Replacement:
    """A database that nobody else has open, and what is to take its place.

    Every error is a DriverError.
    """

    def __init__(self, connection: psycopg.Connection[Any], schema: str, address: Address) -> None:
        self._connection = connection
        self._schema, self._prefix = schema, address.prefix
        self._made = _beside(schema, INCOMING)
        self.options = {"schema": self._made}
        """By which the place is opened where the new one is made."""

    def require_rights(self) -> None:
        """DriverError of kind CONFIGURATION, which says what to grant, where this user may not do
        what is to come."""
        with _told():
            for each in self._relations(self._schema):
                if not each.is_mine:
                    raise DriverError(
                        ErrorKind.CONFIGURATION,
                        f"its tables are owned by {each.owner}: have that user open it once, which"
                        f" upgrades it, {_ELSE}",
                    )
            ((database, user, may_make),) = self._ask(_MAY)
            kept = self._free_schema()
            for schema in (self._schema, self._made, kept):
                found = self._ask(_MAY_IN, [schema])
                if found and not found[0][0]:
                    raise DriverError(
                        ErrorKind.CONFIGURATION,
                        f'an upgrade makes tables in it: GRANT USAGE, CREATE ON SCHEMA "{schema}"'
                        f' TO "{user}", {_ELSE}',
                    )
                if not found and not may_make:
                    raise DriverError(
                        ErrorKind.CONFIGURATION,
                        f"an upgrade needs the schemas {self._made} and {kept}:"
                        f' CREATE SCHEMA … AUTHORIZATION "{user}" for both, or'
                        f' GRANT CREATE ON DATABASE "{database}" TO "{user}", {_ELSE}',
                    )
            self._views_upon()

    def put_in_place(self) -> str:
        """Put the new one in place. Returns where the old one is kept. All of it or nothing."""
        with _told(), self._transaction():
            old, new = self._relations(self._schema), self._relations(self._made)
            names = ", ".join(f'"{self._schema}"."{r.name}"' for r in old if r.word == "TABLE")
            self._connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            views = dependents.views_upon(self._connection, [each.oid for each in old])
            rights = grants.of(self._connection, [each.oid for each in old])
            owners = {each.name: each.owner for each in old}
            kept = self._free_schema()
            if not self._ask(_MAY_IN, [kept]):
                self._connection.execute(f'CREATE SCHEMA "{kept}"')
            self._move(old, self._schema, kept)
            self._move(new, self._made, self._schema)
            for each in new:
                owner = owners.get(each.name, each.owner)
                name = f"{each.word} {self._named(self._schema, each)}"
                if owner != each.owner:
                    self._connection.execute(f"ALTER {name} OWNER TO {owner}")
                for statement in grants.statements(rights.get(each.name), name):
                    self._connection.execute(statement)
            dependents.turn_over(self._connection, views)
        self._drop_made()
        return f"schema {kept}"

    def remove(self) -> None:
        """Remove what was made beside, whole or not."""
        with _told(), self._transaction():
            made = self._relations(self._made)
            for word in ("VIEW", "TABLE", "FUNCTION"):
                for each in made:
                    if each.word == word:
                        self._connection.execute(f"DROP {word} {self._named(self._made, each)}")
        self._drop_made()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # Not psycopg's own, which ends without a word where the connection was lost.
        self._connection.execute("BEGIN")
        try:
            # With an empty path the server writes all names with their schema.
            self._connection.execute("SET LOCAL search_path = ''")
            self._connection.execute("SET LOCAL synchronous_commit = on")
            yield
        except BaseException:
            with suppress(psycopg.Error):
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _ask(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()

    def _relations(self, schema: str) -> list[Relation]:
        place = Place(schema, self._prefix)
        names = [*place.read_marked(self._ask)]
        function = function_name(self._prefix)
        asked = {"schema": schema, "names": names, "function": function}
        return [Relation(*row) for row in self._ask(_RELATIONS, asked)]

    def _views_upon(self) -> None:
        with self._transaction():
            old = [each.oid for each in self._relations(self._schema)]
            dependents.views_upon(self._connection, old)

    def _free_schema(self) -> str:
        """Where nothing is that an earlier upgrade has kept."""
        for number in count(1):
            schema = _beside(self._schema, _REPLACED + (f"_{number}" if number > 1 else ""))
            if not Place(schema, self._prefix).read_marked(self._ask):
                return schema
        raise AssertionError("there are ever more names")

    def _move(self, relations: list[Relation], origin: str, to: str) -> None:
        for each in relations:
            name = self._named(origin, each)
            self._connection.execute(f'ALTER {each.word} {name} SET SCHEMA "{to}"')

    def _named(self, schema: str, relation: Relation) -> str:
        name, bracket, rest = relation.name.partition("(")
        return f'"{schema}"."{name}"{bracket}{rest}'

    def _drop_made(self) -> None:
        # Somebody else may have something in it, or have made it for us.
        with suppress(psycopg.Error):
            self._connection.execute(f'DROP SCHEMA IF EXISTS "{self._made}"')


@contextmanager
def alone(
    address: Address, timeout: float, is_due: Callable[[int], bool]
) -> Iterator[Replacement | None]:
    """Keep everybody else from opening the database in the block, so that another can be put in its
    place. None: its layout is none that it `is_due` of, perhaps since another process was at it.

    DriverError of kind LOCKED if a process has it open for longer than `timeout` seconds; of kind
    CONFIGURATION where rights are missing.
    """
    connection = connect(address)
    try:
        with _told():
            schema = (
                address.schema or connection.execute("SELECT current_schema()").fetchall()[0][0]
            )
            waits = str(max(1, int(timeout * 1000)))
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [waits])
            is_ours = _wait(connection, address, Place(schema, address.prefix), timeout, is_due)
        if not is_ours:
            yield None
            return
        replacement = Replacement(connection, schema, address)
        replacement.require_rights()
        with uses.noted_alone(address):
            yield replacement
    finally:
        connection.close()


def _wait(
    connection: psycopg.Connection[Any],
    address: Address,
    place: Place,
    timeout: float,
    is_due: Callable[[int], bool],
) -> bool:
    """False: somebody else has done it."""
    deadline = monotonic() + timeout

    def ask(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        return connection.execute(sql, parameters).fetchall()

    while True:
        ((is_ours,),) = ask(uses.TRY_ALONE, [address.schema, address.prefix])
        layout = max(place.read_marked(ask).values(), default=None)
        if layout is None or not is_due(layout):
            return False
        if is_ours:
            return True
        if monotonic() >= deadline:
            who, pid = uses.holder(ask, address)
            raise DriverError(
                ErrorKind.LOCKED,
                f"{who} has it open, or upgrades it: stop it, or wait, then do the same again",
                holder=pid,
            )
        sleep(_POLL)


def _beside(schema: str, ending: str) -> str:
    """The name of a schema that belongs to another; one that an option can name."""
    name = schema + ending
    if PATTERNS["schema"][0].fullmatch(name):
        return name
    digest = hashlib.sha256(schema.encode()).hexdigest()[:8]
    return f"storebridge_{digest}{ending}"


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        found = kind(error) or ErrorKind.OTHER
        if found is ErrorKind.READ_ONLY:
            raise DriverError(
                ErrorKind.CONFIGURATION, f"may not upgrade it: {one_line(error)}: grant it, {_ELSE}"
            ) from error
        raise DriverError(found, one_line(error)) from error
