"""Every error that pybolt raises on purpose.

    BoltError
    ├── InvalidFileError        not a bolt file, or one cut short
    ├── CorruptError            a bolt file whose pages contradict each other
    ├── LockTimeoutError        somebody else has the file open        (also TimeoutError)
    ├── DatabaseClosedError     the DB was closed, or belongs to the parent process
    ├── DatabaseFailedError     a commit failed and could not be undone; open the file again
    ├── DatabaseTooLargeError   more than this machine's address space can map
    ├── TxError                 the transaction is over, or of the wrong kind
    ├── ReadOnlyError           a write in a read-only transaction or database
    ├── BucketNotFoundError     (also LookupError)
    ├── BucketExistsError
    ├── IncompatibleValueError  a bucket where a value is meant, or the other way round
    └── InvalidKeyError         empty or too long                       (also ValueError)

What the operating system refuses (no such folder, no permission, disk full) stays an `OSError`.
"""

from __future__ import annotations

__all__ = [
    "BoltError",
    "BucketExistsError",
    "BucketNotFoundError",
    "CorruptError",
    "DatabaseClosedError",
    "DatabaseFailedError",
    "DatabaseTooLargeError",
    "IncompatibleValueError",
    "InvalidFileError",
    "InvalidKeyError",
    "LockTimeoutError",
    "ReadOnlyError",
    "TxError",
]


class BoltError(Exception):
    """The base of all that pybolt raises on purpose."""


class InvalidFileError(BoltError):
    """The file is not a bolt file, neither meta page is valid, or it was cut short."""


class CorruptError(BoltError):
    """Pages of the file contradict each other or the format."""


class LockTimeoutError(BoltError, TimeoutError):
    """Somebody else has the file open and did not let go in time.

    `holder` is the process id of that somebody, or None where the system does not tell.
    """

    def __init__(self, path: str, waited: float, holder: int | None) -> None:
        self.path = path
        self.holder = holder
        who = f"process {holder}" if holder else "another process"
        super().__init__(f"{path} is locked by {who} (waited {waited:g} s)")


class DatabaseClosedError(BoltError):
    """The DB was closed, or it was opened before a fork and this is the child."""


class DatabaseFailedError(BoltError):
    """A commit failed half way and could not be undone: the file must be opened again to write."""


class DatabaseTooLargeError(BoltError):
    """The file is larger than this machine's address space can map."""


class TxError(BoltError):
    """The transaction is over, or the call does not fit its kind."""


class ReadOnlyError(BoltError):
    """A write was asked of a read-only transaction or database."""


class BucketNotFoundError(BoltError, LookupError):
    """There is no bucket of that name."""


class BucketExistsError(BoltError):
    """There is a bucket of that name already."""


class IncompatibleValueError(BoltError):
    """The key names a bucket where a value is meant, or the other way round."""


class InvalidKeyError(BoltError, ValueError):
    """The key, bucket name or value is empty where it must not be, or too long."""
