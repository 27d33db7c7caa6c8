"""Every error that storebridge raises, in one tree.

    StorebridgeError
    ├── ConfigurationError      UnknownBackendError, BackendUnavailableError, ForeignFileError
    ├── RecordError             InvalidRecordError, InvalidQueryError, RecordNotFoundError,
    │                           KeyNotFoundError, RecordExistsError, AmbiguousIdError,
    │                           NewerRecordError
    ├── TransactionError        ReadOnlyError, ConflictError, EventsExpiredError
    └── StorageError            StoreLockedError, CorruptStoreError, StoreFullError,
                                StoreClosedError, LayoutVersionError, IncompleteStoreError,
                                DamagedExportError

A message is one line that says what happened to what, and what to do where that is not obvious.
"""

from __future__ import annotations

import copy
from typing import Any


class StorebridgeError(Exception):
    """Base of all errors of storebridge."""


class ConfigurationError(StorebridgeError):
    """A location, option or variable that cannot be used as given."""


class UnknownBackendError(ConfigurationError):
    """No installed backend opens this kind of location."""


class BackendUnavailableError(ConfigurationError):
    """The backend is known but what it needs is not installed; the message names the extra."""


class ForeignFileError(ConfigurationError):
    """The file exists and is not one of storebridge's. It was left as it was."""


class RecordError(StorebridgeError):
    """Something about one record."""


class InvalidRecordError(RecordError, ValueError):
    """A value that no store accepts: of a wrong type, not JSON, out of range, too long …"""


class InvalidQueryError(RecordError, ValueError):
    """A filter, selector, sort or cursor that cannot be understood."""


class RecordNotFoundError(RecordError, LookupError):
    """No record has this id."""


class KeyNotFoundError(RecordNotFoundError, KeyError):
    """A key-value store has no such key, or no more."""

    __str__ = Exception.__str__  # KeyError's would put the message in quotes


class RecordExistsError(RecordError):
    """The id, or a combination of fields that must be unique, is taken."""


class AmbiguousIdError(RecordError):
    """More than one id starts with this prefix."""


class NewerRecordError(RecordError):
    """A newer version of the service wrote this record; writing it would drop fields."""


class TransactionError(StorebridgeError):
    """A transaction that cannot go on."""


class ReadOnlyError(TransactionError):
    """A write where only reading is possible."""


class ConflictError(TransactionError):
    """The record is not as the caller expected. Read it again and decide anew.

    `found` is the record as it stands, None where it cannot be told.
    """

    retryable = True

    def __init__(self, message: str, found: Any = None) -> None:
        super().__init__(message)
        self.found = found


class EventsExpiredError(TransactionError):
    """Events behind the given position have been pruned."""


class StorageError(StorebridgeError):
    """The engine or the file beneath it."""


class StoreLockedError(StorageError):
    """Another process or thread held the writer's lock for longer than `lock_timeout`."""

    def __init__(self, message: str, holder: int | None = None) -> None:
        super().__init__(message)
        self.holder = holder
        """Process id of the holder, where the system tells it."""


class CorruptStoreError(StorageError):
    """The file, or a body in it, cannot be read."""


class StoreFullError(StorageError):
    """No room. Nothing of the transaction was kept, nothing else was lost."""


class StoreClosedError(StorageError):
    """The database was closed, or opened before a fork."""


class LayoutVersionError(StorageError):
    """The file was laid out by a newer storebridge."""


class IncompleteStoreError(StorageError):
    """A migration or an import into this database has not come to its end. It goes on when the same
    command is given again."""


class DamagedExportError(StorageError):
    """An export that is cut off, altered or none at all; the message names the line. Nothing of it
    was taken."""


def another(error: BaseException) -> BaseException:
    """The same error once more, for one more caller: raised in two threads or tasks, one object
    would gather the tracebacks of both. One that cannot be copied is shared."""
    try:
        again = copy.copy(error)
    except Exception:
        return error
    again.__cause__ = error
    return again
