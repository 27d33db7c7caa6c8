"""What the errors of psycopg mean."""

from __future__ import annotations

import psycopg

from storebridge.driver import DriverError, ErrorKind

_KINDS = {
    "55P03": ErrorKind.LOCKED,  # lock_not_available
    "40001": ErrorKind.CONFLICT,  # serialization_failure
    "40P01": ErrorKind.CONFLICT,  # deadlock_detected
    # Only where somebody else inserted the same meanwhile: otherwise it was looked for before.
    "23505": ErrorKind.CONFLICT,  # unique_violation
    "53100": ErrorKind.FULL,  # disk_full
    "XX001": ErrorKind.CORRUPT,  # data_corrupted
    "XX002": ErrorKind.CORRUPT,  # index_corrupted
    "25006": ErrorKind.READ_ONLY,  # read_only_sql_transaction
    "42501": ErrorKind.READ_ONLY,  # insufficient_privilege
    "42703": ErrorKind.READ_ONLY,  # undefined_column: of a layout that nobody has made yet
    "3D000": ErrorKind.CONFIGURATION,  # invalid_catalog_name
}
_CLASSES = {"28": ErrorKind.CONFIGURATION}
"""By the first two characters: authorisation."""
_ALL = "Multiple connection attempts failed"


def kind(error: BaseException) -> ErrorKind | None:
    """The kind of an error out of psycopg or of this package; None: neither."""
    if isinstance(error, DriverError):
        return error.kind
    if isinstance(error, psycopg.Error):
        state = error.sqlstate or ""
        return _KINDS.get(state) or _CLASSES.get(state[:2], ErrorKind.OTHER)
    return None


def in_one_line(error: BaseException) -> str:
    """All that is said of a connection that failed: each host that was tried has lines of its own,
    and hints begin on new ones.
    """
    # Before the list of all failures stands the last one, which is in it.
    text = str(error)
    said = ""
    for line in filter(None, map(str.strip, text[max(0, text.find(_ALL)) :].splitlines())):
        if not said:
            said = line
        elif line.startswith("- "):
            said += " " + line[2:] if said.endswith(":") else "; " + line[2:]
        else:
            said += (" " if said[-1] in ".:;,?!" else ". ") + line
    return said


def one_line(error: BaseException) -> str:
    """What an error says, without the hints that the server puts on lines of their own."""
    return str(error).strip().split("\n")[0]
