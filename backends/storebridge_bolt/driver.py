"""The driver: tables over the buckets of a bolt file."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from storebridge.driver.capabilities import Reclaimed, Usage
from storebridge.driver.contract import DriverError, ErrorKind, Traits
from storebridge.driver.fileversion import NumberedVersion
from storebridge.driver.ordered import OrderedTransaction, SpaceName
from storebridge.driver.orderedload import OrderedLoader, OrderedLoadingTransaction
from storebridge_bolt.pybolt import (
    DB,
    BoltError,
    Bucket,
    CorruptError,
    DatabaseClosedError,
    DatabaseTooLargeError,
    InvalidFileError,
    LockTimeoutError,
    ReadOnlyError,
    Tx,
    TxError,
)
from storebridge_bolt.pybolt.check import check
from storebridge_bolt.pybolt.shrink import shrink
from storebridge_bolt.pybolt.stats import space

_KINDS: dict[type[BaseException], ErrorKind] = {
    LockTimeoutError: ErrorKind.LOCKED,
    CorruptError: ErrorKind.CORRUPT,
    InvalidFileError: ErrorKind.CORRUPT,
    ReadOnlyError: ErrorKind.READ_ONLY,
    DatabaseClosedError: ErrorKind.CLOSED,
    TxError: ErrorKind.CLOSED,
    DatabaseTooLargeError: ErrorKind.CONFIGURATION,
}
_NUMBERS = {
    errno.ENOSPC: ErrorKind.FULL,
    errno.EDQUOT: ErrorKind.FULL,
    errno.EFBIG: ErrorKind.FULL,
    errno.EROFS: ErrorKind.READ_ONLY,
    errno.EIO: ErrorKind.OTHER,
}
_FULL = 0.9
"""How full pages become of what comes in order: some room is left for what comes later."""
Space = tuple[bytes, ...]
"""The path of a bucket: handles must outlive transactions, which buckets do not."""


def kind_of(error: BaseException) -> ErrorKind | None:
    """See `Driver.kind`."""
    if isinstance(error, DriverError):
        return error.kind
    if isinstance(error, BoltError):
        return _KINDS.get(type(error), ErrorKind.OTHER)
    return _NUMBERS.get(error.errno or 0) if isinstance(error, OSError) else None


class BoltEngine:
    """A bolt transaction, and the buckets that it has looked into."""

    __slots__ = ("_buckets", "_tx")

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._buckets: dict[Space, Bucket] = {}

    def open_space(self, name: SpaceName, create: bool) -> Space | None:
        """A table's bucket, or its index's in the bucket `<table>-index`."""
        path = _path(name)
        if create:
            bucket = self._tx.create_bucket_if_missing(path[0])
            for part in path[1:]:
                bucket.create_bucket_if_missing(part)
            return path
        within: Tx | Bucket = self._tx
        for part in path:
            if not within.has_bucket(part):
                return None
            within = within.bucket(part)
        return path

    def _bucket(self, space: Space) -> Bucket:
        bucket = self._buckets.get(space)
        if bucket is None:
            bucket = self._buckets[space] = self._tx.bucket(*space)
        return bucket

    def get(self, space: Space, key: bytes) -> bytes | None:
        return self._bucket(space).get(key)

    def put(self, space: Space, key: bytes, value: bytes) -> None:
        self._bucket(space).put(key, value)

    def put_new(self, space: Space, key: bytes, value: bytes) -> bool:
        return self._bucket(space).put_new(key, value)

    def put_sorted(self, space: Space, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        bucket = self._bucket(space)
        if bucket.put_sorted(keys, values):
            bucket.fill_percent = _FULL

    def clear(self, space: Space) -> None:
        *path, name = space
        within: Tx | Bucket = self._tx.bucket(*path) if path else self._tx
        within.delete_bucket(name)
        self._buckets[space] = within.create_bucket(name)

    def delete(self, space: Space, key: bytes) -> None:
        self._bucket(space).delete(key)

    def items(
        self, space: Space, start: bytes, stop: bytes | None, reverse: bool, limit: int
    ) -> list[tuple[bytes, bytes]]:
        return self._bucket(space).items(start, stop, reverse=reverse, limit=limit)

    def count(self, space: Space, start: bytes, stop: bytes | None) -> int:
        return sum(1 for _ in self._bucket(space).scan(start, stop))

    def commit(self) -> None:
        if self._tx.writable:
            self._tx.commit()
        else:
            self._tx.rollback()

    def rollback(self) -> None:
        self._tx.rollback()


def _path(name: SpaceName) -> Space:
    if name.by is None:
        return (name.table.encode(),)
    return (f"{name.table}-index".encode(), name.by.encode())


class BoltDriver(OrderedLoader[Space]):
    """An open bolt file."""

    traits = Traits(processes="one")

    def __init__(self, db: DB, path: Path) -> None:
        super().__init__()
        self._db = db
        self._path = path

    @property
    def _writable(self) -> bool:
        return not self._db.read_only

    @property
    def _folder(self) -> Path:
        return self._path.parent

    def _engine(self, write: bool) -> BoltEngine:
        return BoltEngine(self._db.begin(write))

    def begin(self, write: bool, single: bool = False) -> OrderedTransaction[Space]:
        kind = OrderedLoadingTransaction if write else OrderedTransaction
        return kind(BoltEngine(self._db.begin(write)), self._tables, self._own)

    def kind(self, error: BaseException) -> ErrorKind | None:
        # Once it is open, the system refuses what has nothing to do with how it was asked for.
        return kind_of(error) or (ErrorKind.OTHER if isinstance(error, OSError) else None)

    def holder(self) -> int | None:
        """Nobody else: whoever has the file open keeps all others out."""
        return None

    def check(self) -> Iterator[str]:
        return check(self._db)

    def describe(self) -> dict[str, str | int]:
        with self._db.view() as tx:
            used, number = tx.size, tx.id
        return {
            "engine": "pybolt",
            "page_size": self._db.page_size,
            "pages": used // self._db.page_size,
            "txid": number,
            "size": self._path.stat().st_size,
            "durability": self._db.durability,
        }

    def hold_version(self) -> NumberedVersion:
        return NumberedVersion(self._path, self._last_transaction)

    def _last_transaction(self) -> int:
        with self._db.view() as tx:
            return tx.id

    def usage(self) -> Usage:
        return Usage(*space(self._db))

    def reclaim(self, breathe: Callable[[], None]) -> Reclaimed:
        """Move pages from the end into free ones, in steps, and cut the file short."""
        if not self._writable:
            raise DriverError(ErrorKind.READ_ONLY, f"{self._path}: opened read-only")
        before = self.usage().size
        done = shrink(self._db, breathe)
        reason = "a read transaction of this process still needs the pages that are to be free"
        return Reclaimed(before, self.usage().size, None if done else reason)

    def close(self) -> None:
        self._db.close()
