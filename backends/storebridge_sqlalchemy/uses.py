"""Who has a database open: each connection holds an advisory lock on it, shared with all others.
Who puts another database in its place holds the lock alone, from the first look to the last rename.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from storebridge_sqlalchemy.address import Address, owner_of

KEY = (
    "hashtextextended('storebridge use ' || coalesce(%s::text, current_schema()::text)"
    " || ' ' || %s::text, 0)"
)
"""The lock's number. Parameters: the schema, or None for the first of the search path; and the
prefix."""
SHARE = f"pg_advisory_lock_shared({KEY})"
TRY_ALONE = f"SELECT pg_try_advisory_lock({KEY})"
_HOLDERS = f"""
SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ((l.classid::int8 << 32) | l.objid::int8) = {KEY}
ORDER BY a.backend_start
"""
_alone: set[str] = set()
"""What this process holds alone: its own connections do not ask for a share then."""


def holder(ask: Callable[..., list[tuple[Any, ...]]], address: Address) -> tuple[str, int | None]:
    """Who holds the lock, in words; and which process that is, if it is one of this machine."""
    found = ask(_HOLDERS, [address.schema, address.prefix])
    if not found:
        return "somebody", None
    session, application = found[0]
    owner, ourselves = owner_of(application), owner_of(address.connect["application_name"])
    if owner is None:
        return f"session {session} of the server", None
    pid, host = owner
    here = ourselves is not None and host == ourselves[1]
    return f"process {pid}" + ("" if here else f" on {host}"), pid if here else None


def is_alone(address: Address) -> bool:
    """Whether this process holds it alone."""
    return _name(address) in _alone


@contextmanager
def noted_alone(address: Address) -> Iterator[None]:
    """In the block the process, which has the lock, opens what it holds alone."""
    _alone.add(_name(address))
    try:
        yield
    finally:
        _alone.discard(_name(address))


def _name(address: Address) -> str:
    return repr((sorted(address.connect.items()), address.schema, address.prefix))


os.register_at_fork(after_in_child=_alone.clear)
