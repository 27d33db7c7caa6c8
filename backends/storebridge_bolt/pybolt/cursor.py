"""Cursors: walking a bucket's keys both ways, buckets included."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import TxError
from .page import BucketValue
from .tree import Leaf

if TYPE_CHECKING:
    from .bucket import Bucket

Entry = tuple[bytes, bytes | None]


class Cursor:
    """A position among a bucket's keys.

    Each move returns the entry that it lands on as (key, value), the value being None for a nested
    bucket, or None beyond the last or before the first entry. A move back from beyond the end
    lands on the last entry, and likewise at the start; a new cursor stands before the first.
    The bucket may change meanwhile: a cursor holds on to its key, not to a page. It is of use
    until the transaction ends, the entries that it returned for good.
    """

    __slots__ = ("_bucket", "_index", "_key", "_leaf", "_past_end", "_version")

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._key: bytes | None = None  # where it stands; None: off either end
        self._past_end = False
        self._leaf: Leaf | None = None
        self._index = 0
        self._version = -1

    @property
    def bucket(self) -> Bucket:
        """The bucket that this cursor walks."""
        return self._bucket

    def first(self) -> Entry | None:
        """Go to the first entry."""
        return self._forward(None, 0)

    def last(self) -> Entry | None:
        """Go to the last entry."""
        return self._backward(None)

    def seek(self, key: bytes) -> Entry | None:
        """Go to `key`, or to the first entry after it."""
        leaf = self._bucket._leaf(key, False)
        return self._forward(leaf, bisect_left(leaf.keys, key))

    def next(self) -> Entry | None:
        """Go to the next entry."""
        if not self._bucket._live:
            self._bucket._refuse()
        if self._key is None:
            return None if self._past_end else self.first()
        if self._leaf is not None and self._version == self._bucket._version:
            return self._forward(self._leaf, self._index + 1)
        leaf = self._bucket._leaf(self._key, False)
        return self._forward(leaf, bisect_right(leaf.keys, self._key))

    def prev(self) -> Entry | None:
        """Go to the entry before."""
        if not self._bucket._live:
            self._bucket._refuse()
        if self._key is None:
            return self.last() if self._past_end else None
        fresh = self._leaf is not None and self._version == self._bucket._version
        if fresh and self._index > 0 and self._leaf is not None:
            return self._land(self._leaf, self._index - 1)
        return self._backward(self._key)

    def delete(self) -> None:
        """Remove the entry that the cursor stands on; `next` then goes to the one after it.

        Raises TxError where it stands on none, IncompatibleValueError on a nested bucket, and
        ReadOnlyError in a read transaction.
        """
        if self._key is None:
            raise TxError("the cursor stands on no entry")
        self._bucket.delete(self._key)

    def __iter__(self) -> Iterator[Entry]:
        """All entries from the first on, moving the cursor along."""
        entry = self.first()
        while entry is not None:
            yield entry
            entry = self.next()

    def _forward(self, leaf: Leaf | None, index: int) -> Entry | None:
        """Land on an index of a leaf, or on the first entry of the leaves after it."""
        if leaf is None:
            leaf = self._bucket._leaf(None, False)
        while index >= len(leaf.keys):
            if leaf.upper is None:
                self._leave(past_end=True)
                return None
            leaf, index = self._bucket._leaf(leaf.upper, False), 0
        return self._land(leaf, index)

    def _backward(self, below: bytes | None) -> Entry | None:
        """Land on the last entry below a key."""
        while True:
            leaf = self._bucket._leaf(below, True)
            index = len(leaf.keys) if below is None else bisect_left(leaf.keys, below)
            if index:
                return self._land(leaf, index - 1)
            if leaf.lower is None:
                self._leave(past_end=False)
                return None
            below = leaf.lower

    def _land(self, leaf: Leaf, index: int) -> Entry:
        self._leaf, self._index = leaf, index
        self._version = self._bucket._version
        self._key = key = leaf.keys[index]
        value = leaf.values[index]
        return key, None if value.__class__ is BucketValue else value

    def _leave(self, *, past_end: bool) -> None:
        self._key, self._leaf, self._past_end = None, None, past_end
