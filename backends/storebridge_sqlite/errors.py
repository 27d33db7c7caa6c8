"""What the errors of `sqlite3` mean."""

from __future__ import annotations

import errno
import sqlite3

from storebridge.driver import DriverError, ErrorKind

_KINDS = {
    sqlite3.SQLITE_BUSY: ErrorKind.LOCKED,
    sqlite3.SQLITE_LOCKED: ErrorKind.LOCKED,
    sqlite3.SQLITE_PROTOCOL: ErrorKind.LOCKED,
    sqlite3.SQLITE_FULL: ErrorKind.FULL,
    sqlite3.SQLITE_CORRUPT: ErrorKind.CORRUPT,
    sqlite3.SQLITE_NOTADB: ErrorKind.CORRUPT,
    sqlite3.SQLITE_READONLY: ErrorKind.READ_ONLY,
    sqlite3.SQLITE_PERM: ErrorKind.READ_ONLY,
    sqlite3.SQLITE_AUTH: ErrorKind.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: ErrorKind.CONFIGURATION,
}
_WRITING = {
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
_UNDECODABLE = "Could not decode to UTF-8"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def kind(error: BaseException) -> ErrorKind | None:
    """The kind of an error out of `sqlite3` or of this package; None: neither."""
    if isinstance(error, DriverError):
        return error.kind
    if isinstance(error, OSError):
        return _kind_of_os_error(error)
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return _kind_without_code(error)
    if code in _WRITING:
        # SQLite says FULL only where the system says ENOSPC; a quota, a file size limit and some
        # file systems answer in other words.
        return ErrorKind.FULL
    return _KINDS.get(code & 0xFF, ErrorKind.OTHER)


def primary_code(error: sqlite3.Error) -> int | None:
    """The error's code without its details: SQLITE_BUSY for SQLITE_BUSY_RECOVERY."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_missing_table(error: sqlite3.Error) -> bool:
    """Whether a statement failed because nobody has made its table yet."""
    return str(error).startswith("no such table: ")


def _kind_without_code(error: sqlite3.Error) -> ErrorKind:
    """Errors of the Python module itself."""
    if isinstance(error, sqlite3.ProgrammingError):
        return ErrorKind.CLOSED if "closed" in str(error) else ErrorKind.OTHER
    return ErrorKind.CORRUPT if str(error).startswith(_UNDECODABLE) else ErrorKind.OTHER


def _kind_of_os_error(error: OSError) -> ErrorKind:
    return ErrorKind.FULL if error.errno in _NO_SPACE else ErrorKind.OTHER
