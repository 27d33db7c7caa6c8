"""What LMDB's errors mean."""

from __future__ import annotations

import errno
import os
from typing import overload

import lmdb

from storebridge.driver.contract import DriverError, ErrorKind

_KINDS: dict[type[BaseException], ErrorKind] = {
    lmdb.MapFullError: ErrorKind.FULL,
    lmdb.DiskError: ErrorKind.FULL,  # LMDB's name for ENOSPC
    lmdb.CorruptedError: ErrorKind.CORRUPT,
    lmdb.PageNotFoundError: ErrorKind.CORRUPT,
    lmdb.PanicError: ErrorKind.CORRUPT,
    lmdb.InvalidError: ErrorKind.CORRUPT,
    lmdb.VersionMismatchError: ErrorKind.FOREIGN,
    lmdb.IncompatibleError: ErrorKind.FOREIGN,
    lmdb.ReadonlyError: ErrorKind.READ_ONLY,
    lmdb.ReadersFullError: ErrorKind.LOCKED,
}
_NUMBERS = {
    errno.ENOSPC: ErrorKind.FULL,
    errno.EFBIG: ErrorKind.FULL,
    errno.EDQUOT: ErrorKind.FULL,
    errno.EROFS: ErrorKind.READ_ONLY,
}
# py-lmdb has no class for most of the system's errors, only their text.
_TEXTS = {os.strerror(number): kind for number, kind in _NUMBERS.items()}
_TEXTS["closed/deleted/dropped"] = ErrorKind.CLOSED


@overload
def kind_of(error: lmdb.Error) -> ErrorKind: ...
@overload
def kind_of(error: BaseException) -> ErrorKind | None: ...
def kind_of(error: BaseException) -> ErrorKind | None:
    """See `Driver.kind`."""
    if isinstance(error, DriverError):
        return error.kind
    if isinstance(error, OSError):
        return _NUMBERS.get(error.errno or 0)
    if not isinstance(error, lmdb.Error):
        return None
    text = str(error)
    named = (kind for part, kind in _TEXTS.items() if part in text)
    return _KINDS.get(type(error)) or next(named, ErrorKind.OTHER)
