"""Errors of engines as errors of storebridge: the only place where that is decided."""

from __future__ import annotations

from storebridge.driver import ErrorKind
from storebridge.errors import (
    ConfigurationError,
    ConflictError,
    CorruptStoreError,
    ForeignFileError,
    ReadOnlyError,
    StorageError,
    StorebridgeError,
    StoreClosedError,
    StoreFullError,
    StoreLockedError,
)

_ERRORS: dict[ErrorKind, type[StorebridgeError]] = {
    ErrorKind.LOCKED: StoreLockedError,
    ErrorKind.FULL: StoreFullError,
    ErrorKind.CORRUPT: CorruptStoreError,
    ErrorKind.READ_ONLY: ReadOnlyError,
    ErrorKind.FOREIGN: ForeignFileError,
    ErrorKind.CLOSED: StoreClosedError,
    ErrorKind.CONFLICT: ConflictError,
    ErrorKind.CONFIGURATION: ConfigurationError,
    ErrorKind.OTHER: StorageError,
}


def translated(error: BaseException, kind: ErrorKind, where: str) -> StorebridgeError:
    """Our error for one that came out of a driver, in one line that names the location."""
    message = " ".join(str(error).split())
    if where and where not in message:
        message = f"{where}: {message}"
    if kind is ErrorKind.LOCKED:
        return StoreLockedError(message, holder=getattr(error, "holder", None))
    return _ERRORS[kind](message)
