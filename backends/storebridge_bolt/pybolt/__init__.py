"""pybolt: bolt databases in plain Python, in the format of Go's bbolt.

    from storebridge_bolt import pybolt

    with pybolt.DB("lab.db") as db:
        with db.update() as tx:
            runs = tx.create_bucket_if_missing(b"runs")
            runs[b"0001"] = b"started"
        with db.view() as tx:
            print(tx.bucket(b"runs")[b"0001"])

A `DB` is an open file, a `Tx` one consistent view of it, a `Bucket` a sorted dictionary of bytes
that may hold further buckets, a `Cursor` a position in one.
"""

from .bucket import Bucket
from .cursor import Cursor
from .db import DB, Durability
from .errors import (
    BoltError,
    BucketExistsError,
    BucketNotFoundError,
    CorruptError,
    DatabaseClosedError,
    DatabaseFailedError,
    DatabaseTooLargeError,
    IncompatibleValueError,
    InvalidFileError,
    InvalidKeyError,
    LockTimeoutError,
    ReadOnlyError,
    TxError,
)
from .tx import Tx

__all__ = [
    "DB",
    "BoltError",
    "Bucket",
    "BucketExistsError",
    "BucketNotFoundError",
    "CorruptError",
    "Cursor",
    "DatabaseClosedError",
    "DatabaseFailedError",
    "DatabaseTooLargeError",
    "Durability",
    "IncompatibleValueError",
    "InvalidFileError",
    "InvalidKeyError",
    "LockTimeoutError",
    "ReadOnlyError",
    "Tx",
    "TxError",
]
