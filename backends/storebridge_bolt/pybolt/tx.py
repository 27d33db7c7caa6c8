"""Transactions: one consistent view of a database, to read or to change."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from .bucket import Bucket
from .datafile import sync_folder
from .errors import TxError
from .meta import Meta
from .page import LEAF
from .tree import InlineTree, PagedTree, Pages, open_tree

if TYPE_CHECKING:
    from .db import DB

_CHUNK = 1 << 20


class Writer(Protocol):
    """Anything that takes bytes, such as a file opened for writing."""

    def write(self, data: bytes, /) -> object: ...


class Tx:
    """A transaction, begun by `DB.begin`, and the database's buckets as it sees them.

    A read transaction sees the state at its beginning for as long as it lasts, whatever others
    commit; the space of what they replace cannot be used again meanwhile, so do not keep one open
    for long. A write transaction sees its own changes too. There is one of them at a time.

    As a context manager it commits at the end, or rolls back where an exception ended it. All
    methods raise TxError once it is over. Use a transaction from one thread at a time.
    """

    __slots__ = (
        "__weakref__",
        "_db",
        "_dropped",
        "_meta",
        "_over",
        "_pages",
        "_root",
        "_trims",
        "_writable",
    )

    def __init__(self, db: DB, meta: Meta, pages: Pages, *, writable: bool) -> None:
        self._db = db
        self._meta = meta
        self._pages = pages
        self._writable = writable
        self._over = True  # until whoever begins it has it: what nobody has must not end itself
        self._dropped: set[int] = set()
        self._trims = False  # whether its commit, though it changed nothing, ends the file earlier
        self._root = Bucket(self, PagedTree(pages, meta.root), meta.sequence)

    @property
    def db(self) -> DB:
        """The database that this transaction belongs to."""
        return self._db

    @property
    def writable(self) -> bool:
        """Whether this is a write transaction."""
        return self._writable

    @property
    def id(self) -> int:
        """The number of the state that is read, or of the one that a commit will make."""
        return self._meta.txid + self._writable

    @property
    def size(self) -> int:
        """The bytes that the database takes at the transaction's beginning."""
        return self._meta.high_water * self._meta.page_size

    # Buckets

    def bucket(self, *names: bytes) -> Bucket:
        """The bucket of that name, or path of names; BucketNotFoundError without it."""
        return self._root.bucket(*names)

    def has_bucket(self, name: bytes) -> bool:
        """Whether there is a bucket of that name."""
        return self._root.has_bucket(name)

    def buckets(self) -> Iterator[bytes]:
        """The names of the buckets, in order."""
        return self._root.buckets()

    __iter__ = buckets

    def create_bucket(self, name: bytes) -> Bucket:
        """A new bucket; raises as `Bucket.create_bucket`."""
        return self._root.create_bucket(name)

    def create_bucket_if_missing(self, name: bytes) -> Bucket:
        """The bucket of that name, made where it is missing; raises as `Bucket.create_bucket`."""
        return self._root.create_bucket_if_missing(name)

    def delete_bucket(self, name: bytes) -> None:
        """Remove a bucket and everything in it; BucketNotFoundError without it."""
        self._root.delete_bucket(name)

    # The end

    def commit(self) -> None:
        """Make the changes durable, as the database's `durability` says, and visible to others.

        Raises TxError for a read transaction, and what the disk raises (OSError, for example when
        it is full). After an error the transaction is over, nothing of it was kept, and the
        database goes on as before.
        """
        if self._over:
            raise TxError("the transaction is over")
        if not self._writable:
            raise TxError("a read transaction has nothing to commit; end it with rollback")
        self._db._commit(self)

    def rollback(self) -> None:
        """End the transaction and forget its changes; nothing happens where it is over."""
        if not self._over:
            self._db._finish(self)

    def __enter__(self) -> Tx:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._writable and not self._over:
            self.commit()
        else:
            self.rollback()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            warnings.warn(f"unfinished {self!r}", ResourceWarning, stacklevel=1)
            self._db._finish(self)

    def __repr__(self) -> str:
        kind = "write" if self._writable else "read"
        return f"<pybolt {kind} transaction {self.id} of {self._db.path}>"

    # Copies

    def write_to(self, target: Writer) -> int:
        """Write this state of the database to a binary file, as a database; the bytes written.

        Changes of a write transaction are not in it.
        """
        if self._over:
            raise TxError("the transaction is over")
        meta, size = self._meta, self._meta.page_size
        target.write(meta.encode(0).ljust(size, b"\0"))
        # The other meta page is the same state with a lower number, so that the first one counts.
        older = Meta(size, meta.root, meta.sequence, meta.freelist, meta.high_water, meta.txid - 1)
        target.write(older.encode(1).ljust(size, b"\0"))
        for start in range(2 * size, self.size, _CHUNK):
            target.write(self._pages.data[start : min(start + _CHUNK, self.size)])
        return self.size

    def copy_to(self, path: str | os.PathLike[str], *, mode: int = 0o600) -> None:
        """Copy this state of the database to a new file, which appears complete and durable.

        Raises FileExistsError where there is something of that name.
        """
        path = os.fspath(path)
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists")
        fresh = f"{path}.{os.getpid()}.{time.time_ns()}"
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(fd, "wb") as target:
                os.fchmod(fd, mode)
                self.write_to(target)
                target.flush()
                os.fsync(fd)
            os.rename(fresh, path)
            sync_folder(os.path.dirname(path) or ".")
        finally:
            with suppress(FileNotFoundError):
                os.unlink(fresh)

    # Used by buckets and the database

    def _drop(self, tree: PagedTree | InlineTree) -> None:
        """Free the pages of a deleted bucket's committed tree and of all buckets in it.

        A bucket inside may have been deleted before its parent was: pages are a set.
        """
        waiting = [tree]
        while waiting:
            tree = waiting.pop()
            if isinstance(tree, InlineTree) or tree.root in self._dropped:
                continue
            for page, flags, count, overflow, _ in self._pages.tree_pages(tree.root):
                self._dropped.update(range(page, page + overflow + 1))
                if flags == LEAF:
                    nested = self._pages.nested(page, count, overflow)
                    waiting += [open_tree(self._pages, value)[0] for _, value in nested]

    def _end(self) -> None:
        self._over = True
        self._root._end()
        # A bucket knows its transaction. If that knew its bucket, too, the map of the file that it
        # saw would stay until the garbage collector comes by, and address space may be short.
        self._root = _ENDED


_ENDED = Bucket.ended()
