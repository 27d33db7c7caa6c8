"""What others have built upon our tables, views and function. It hangs on the relation itself and
not on its name, so it would go along with the old database when another takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from storebridge.driver import DriverError, ErrorKind

_DEPENDENTS = """
SELECT DISTINCT
    CASE WHEN c.relkind = 'v' AND r.rulename = '_RETURN' AND pg_has_role(c.relowner, 'USAGE')
        THEN c.oid::int8 END,
    pg_describe_object(d.classid, d.objid, 0)
FROM pg_depend d
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_class c ON c.oid = r.ev_class
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    LEFT JOIN pg_index x ON d.classid = 'pg_class'::regclass AND x.indexrelid = d.objid
    LEFT JOIN pg_class i ON i.oid = x.indexrelid
    LEFT JOIN pg_class t ON t.oid = x.indrelid
WHERE d.deptype IN ('n', 'a') AND d.classid <> 'pg_attrdef'::regclass
    AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY(%(ours)s::oid[])
        OR d.refclassid = 'pg_proc'::regclass AND d.refobjid = ANY(%(ours)s::oid[])
        OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
            SELECT reltype FROM pg_class WHERE oid = ANY(%(ours)s::oid[])))
    AND NOT coalesce(c.oid = ANY(%(ours)s::oid[]), false)
    AND NOT coalesce(k.conrelid = ANY(%(ours)s::oid[]) AND k.contype IN ('p', 'n'), false)
    -- Names of indexes are cut off where they are too long, and then end in a digest.
    AND NOT coalesce(starts_with(i.relname::text, left(t.relname::text || '_by_', 54)), false)
ORDER BY 2
"""
_VIEW = """
SELECT c.oid::regclass::text, array_to_string(c.reloptions, ', '), pg_get_viewdef(c.oid)
FROM pg_class c WHERE c.oid = %s
"""


class View(NamedTuple):
    """A view of somebody else's."""

    name: str
    options: str | None
    definition: str
    """With the schema of all that it names."""


def views_upon(connection: psycopg.Connection[Any], ours: Sequence[int]) -> list[View]:
    """The views that others have made of our relations. The connection's search path is empty.

    DriverError of kind CONFIGURATION where there is anything else: a trigger, a foreign key, an
    index, a materialized view, a view that this user may not replace.
    """
    found = connection.execute(_DEPENDENTS, {"ours": list(ours)}).fetchall()
    others = [what for view, what in found if view is None]
    if others:
        raise DriverError(
            ErrorKind.CONFIGURATION,
            "others have built upon its tables what an upgrade cannot take along: drop it, open the"
            f" database once, and make it again: {'; '.join(others)}",
        )
    views = dict.fromkeys(view for view, _ in found)
    return [View(*connection.execute(_VIEW, [view]).fetchall()[0]) for view in views]


def turn_over(connection: psycopg.Connection[Any], views: Sequence[View]) -> None:
    """Have the views show what has the names now that their relations had before. They stay what
    they were for whoever may read them, or has built upon them."""
    for view in views:
        options = f" WITH ({view.options})" if view.options else ""
        connection.execute(f"CREATE OR REPLACE VIEW {view.name}{options} AS {view.definition}")
