"""Users of the server who are not its administrator."""

from __future__ import annotations

import re

GRANTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
)
"""As the backend's README tells."""


def as_role(target: str, role: str) -> str:
    """The target, as this user."""
    return re.sub(r"//[^@]*@", f"//{role}@", target)
