"""Who may do what with a table, a view or the function: read, to be given on another one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import psycopg

_WHOM = "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END"
_GRANTS = f"""
SELECT c.relname::text, a.privilege_type, NULL::text, {_WHOM}, a.is_grantable
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = ANY(%(ours)s) AND a.grantee <> c.relowner
UNION ALL
SELECT c.relname::text, a.privilege_type, quote_ident(t.attname), {_WHOM}, a.is_grantable
FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped,
    aclexplode(t.attacl) a WHERE c.oid = ANY(%(ours)s)
UNION ALL
SELECT p.proname::text || '(text)', a.privilege_type, NULL::text, {_WHOM}, a.is_grantable
FROM pg_proc p, aclexplode(p.proacl) a WHERE p.oid = ANY(%(ours)s) AND a.grantee <> p.proowner
"""
_CHANGED = (
    "SELECT proname::text || '(text)' FROM pg_proc WHERE oid = ANY(%s) AND proacl IS NOT NULL"
)


class Grant(NamedTuple):
    """A right that somebody besides the owner has."""

    right: str
    column: str | None
    whom: str
    with_option: bool


class Rights(NamedTuple):
    """Those of one relation."""

    is_public: bool
    """Whether all may use it, without any grant: so it is of a function, until that is revoked."""
    grants: list[Grant]


def of(connection: psycopg.Connection[Any], ours: Sequence[int]) -> dict[str, Rights]:
    """The rights on these relations, by their names."""
    by_name: dict[str, list[Grant]] = defaultdict(list)
    for name, *grant in connection.execute(_GRANTS, {"ours": list(ours)}):
        by_name[name].append(Grant(*grant))
    changed = {name for (name,) in connection.execute(_CHANGED, [list(ours)])}
    names = by_name.keys() | changed
    return {name: Rights(name not in changed, by_name[name]) for name in names}


def statements(rights: Rights | None, relation: str) -> Iterator[str]:
    """What gives these rights on a relation, such as `TABLE "jobs"."job"`, whose they are not."""
    if rights is None:
        return
    relation = relation.replace("VIEW ", "TABLE ", 1) if relation.startswith("VIEW ") else relation
    if not rights.is_public and relation.startswith("FUNCTION "):
        yield f"REVOKE ALL ON {relation} FROM PUBLIC"
    for right, column, whom, with_option in rights.grants:
        of_column = "" if column is None else f" ({column})"
        option = " WITH GRANT OPTION" if with_option else ""
        yield f"GRANT {right}{of_column} ON {relation} TO {whom}{option}"
