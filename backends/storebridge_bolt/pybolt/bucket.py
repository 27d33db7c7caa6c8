"""Buckets: sorted keys and values, and buckets inside buckets.

In a write transaction a bucket keeps its changes in a dictionary over the committed tree. They are
merged into pages once, at commit; until then every read looks at both. That is what makes a plain
Python engine fast: a put costs a dictionary entry, not a page.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from operator import lt
from typing import TYPE_CHECKING

from .cursor import Cursor
from .errors import (
    BucketExistsError,
    BucketNotFoundError,
    CorruptError,
    IncompatibleValueError,
    InvalidKeyError,
    ReadOnlyError,
    TxError,
)
from .page import EMPTY_BUCKET, MAX_KEY_SIZE, MAX_VALUE_SIZE, BucketValue
from .rewrite import Space, rewrite_bucket
from .tree import InlineTree, Leaf, PagedTree, open_tree

if TYPE_CHECKING:
    from .tx import Tx

_ABSENT = object()
_FEW = 8  # new keys are inserted one by one into at least this many times as many sorted ones


class Bucket:
    """A bucket, as one transaction sees it; it is of use until that transaction ends.

    It behaves much like a sorted dictionary of `bytes`: `bucket[key]`, `key in bucket`, iteration
    over keys. Keys and values are copies and stay valid for good. All methods raise TxError once
    the transaction is over or the bucket was deleted, CorruptError where the file is damaged, and
    those that change something ReadOnlyError in a read transaction.
    """

    __slots__ = (
        "_above",
        "_changes",
        "_children",
        "_committed_sequence",
        "_fresh",
        "_live",
        "_order",
        "_sequence",
        "_tree",
        "_tx",
        "_version",
        "_writable",
        "fill_percent",
    )

    def __init__(
        self,
        tx: Tx,
        tree: PagedTree | InlineTree,
        sequence: int,
        above: tuple[int, ...] = (),
    ) -> None:
        self._tx = tx
        self._above = above  # the root pages of the buckets that this one lies in
        self._tree = tree
        self._sequence = self._committed_sequence = sequence
        self._live = True
        self._writable = tx.writable
        self._children: dict[bytes, Bucket] = {}
        self._changes: dict[bytes, bytes | None] = {}  # None: deleted
        self._order: list[bytes] = []  # the changed keys, sorted, but for …
        self._fresh: list[bytes] = []  # … those that came since anybody asked for the order
        self._version = 0  # tells cursors that something changed
        self.fill_percent = 0.5
        """How full pages become when a commit splits them, 0.1 to 1.0; 1.0 suits keys that only
        grow. It holds for this transaction."""

    @classmethod
    def ended(cls) -> Bucket:
        """What a transaction that is over has for its root: it refuses everything."""
        bucket = cls.__new__(cls)
        bucket._live = bucket._writable = False
        bucket._children = {}
        return bucket

    @property
    def tx(self) -> Tx:
        """The transaction that this bucket belongs to."""
        return self._tx

    # Values

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`; None where there is none or the key names a bucket."""
        if not self._live:
            self._refuse()
        value = self._changes.get(key, _ABSENT)
        if value is _ABSENT:
            value = self._tree.find(key)
        return value if value.__class__ is bytes else None

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of `key`.

        Raises InvalidKeyError for an empty key or one above 32,768 bytes, IncompatibleValueError
        where the key names a bucket, TypeError for anything but bytes-like objects.
        """
        if not self._writable:
            self._refuse()
        if key.__class__ is not bytes or value.__class__ is not bytes:
            key, value = _plain(key), _plain(value)
        changes = self._changes
        if key in changes:
            if changes[key].__class__ is BucketValue:
                raise IncompatibleValueError(f"{key!r} is a bucket")
        else:
            if not key or len(key) > MAX_KEY_SIZE:
                raise _bad_key(key)
            if self._tree.find(key).__class__ is BucketValue:
                raise IncompatibleValueError(f"{key!r} is a bucket")
            self._fresh.append(key)
        if len(value) > MAX_VALUE_SIZE:
            raise InvalidKeyError(f"a value of {len(value)} bytes is too long")
        changes[key] = value
        self._version += 1

    def put_new(self, key: bytes, value: bytes) -> bool:
        """Set the value of `key` unless it has one; whether it was set. Raises as `put` does."""
        if self._lookup(key) is not None:
            return False
        self.put(key, value)
        return True

    def put_sorted(self, keys: Sequence[bytes], values: Sequence[bytes]) -> bool:
        """As `put` for each of these keys, which are in order, with its value; where they come
        behind all that is there, without looking for each. Whether they did: then a larger
        `fill_percent` suits. Raises as `put` does; then those before are set.
        """
        if not self._writable:
            self._refuse()
        if not self._can_append(keys, values):
            for key, value in zip(keys, values, strict=True):
                self.put(key, value)
            return False
        self._changes.update(zip(keys, values, strict=True))
        self._fresh += keys
        self._version += 1
        return True

    def _can_append(self, keys: Sequence[bytes], values: Sequence[bytes]) -> bool:
        """Whether these are as they should be, in order, and behind all that there is."""
        if not keys or {*map(type, keys), *map(type, values)} != {bytes}:
            return False
        if not all(map(lt, keys, keys[1:])) or max(map(len, keys)) > MAX_KEY_SIZE:
            return False
        if max(map(len, values)) > MAX_VALUE_SIZE or len(keys) != len(values):
            return False
        ends = [b"", *self._tree.leaf(None, True).keys[-1:], *self._changed_keys()[-1:]]
        return max(ends) < keys[0]

    def delete(self, key: bytes) -> bool:
        """Remove `key`; whether it was there.

        Raises IncompatibleValueError where the key names a bucket (see `delete_bucket`).
        """
        if not self._writable:
            self._refuse()
        found = self._lookup(key)
        if found is None:
            return False
        if found.__class__ is BucketValue:
            raise IncompatibleValueError(f"{key!r} is a bucket")
        self._change(_plain(key), None)
        return True

    def __getitem__(self, key: bytes) -> bytes:
        """The value of `key`; KeyError where there is none."""
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    __setitem__ = put

    def __delitem__(self, key: bytes) -> None:
        """Remove `key`; KeyError where it is not there."""
        if not self.delete(key):
            raise KeyError(key)

    def __contains__(self, key: bytes) -> bool:
        """Whether `key` has a value; a bucket is not one."""
        return self.get(key) is not None

    # Ranges

    def __iter__(self) -> Iterator[bytes]:
        """The keys that have values, in order. Changes made meanwhile are seen or not."""
        for key, _ in self.scan():
            yield key

    def items(
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """The keys from `start` on and below `stop`, with their values, at most `limit` of them.

        `reverse` gives the last ones first. Nested buckets are left out.
        """
        found: list[tuple[bytes, bytes]] = []
        for pairs in self._ranges(start, stop, reverse, limit):
            found += pairs
            if limit is not None and len(found) >= limit:
                del found[max(limit, 0) :]
                break
        return found

    def scan(
        self, start: bytes | None = None, stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """What `items` returns, one by one: memory stays flat however many there are.

        Entries changed while this runs are seen or not; all others exactly once.
        """
        for pairs in self._ranges(start, stop, reverse):
            yield from pairs

    def _ranges(
        self, start: bytes | None, stop: bytes | None, reverse: bool, most: int | None = None
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        """The range, a leaf's worth of pairs at a time; of none more than `most` are needed."""
        at = stop if reverse else start
        while True:
            keys, values, lower, upper, nested = self._leaf(at, reverse)
            low, high = 0, len(keys)
            if start is not None and keys and keys[0] < start:
                low = bisect_left(keys, start)
            if stop is not None and keys and keys[-1] >= stop:
                high = bisect_left(keys, stop)
            if most is not None and not nested and high - low > most >= 0:
                low, high = (high - most, high) if reverse else (low, low + most)
            if low or high < len(keys):
                keys, values = keys[low:high], values[low:high]
            pairs = list(zip(keys, values, strict=True))
            if nested:
                pairs = [pair for pair in pairs if pair[1].__class__ is not BucketValue]
            if reverse:
                pairs.reverse()
            yield pairs
            at = lower if reverse else upper
            if at is None or (start is not None and reverse and at <= start):
                return
            if stop is not None and not reverse and at >= stop:
                return

    def cursor(self) -> Cursor:
        """A cursor over keys and nested buckets; it is of use until the transaction ends."""
        if not self._live:
            self._refuse()
        return Cursor(self)

    # Nested buckets and the sequence

    def bucket(self, *names: bytes) -> Bucket:
        """The nested bucket of that name, or path of names; BucketNotFoundError without it."""
        bucket = self
        for name in names:
            child = bucket._child(name)
            if child is None:
                raise BucketNotFoundError(f"there is no bucket {name!r}")
            bucket = child
        return bucket

    def has_bucket(self, name: bytes) -> bool:
        """Whether there is a nested bucket of that name."""
        return self._lookup(name).__class__ is BucketValue

    def buckets(self) -> Iterator[bytes]:
        """The names of nested buckets, in order."""
        at: bytes | None = None
        while True:
            keys, values, _, at, nested = self._leaf(at, False)
            if nested:
                pairs = zip(keys, values, strict=True)
                yield from [key for key, value in pairs if value.__class__ is BucketValue]
            if at is None:
                return

    def create_bucket(self, name: bytes) -> Bucket:
        """A new nested bucket.

        Raises BucketExistsError, IncompatibleValueError where the name is a key with a value, and
        InvalidKeyError for an empty or overlong name.
        """
        if not self._writable:
            self._refuse()
        name = _plain(name)
        if not name or len(name) > MAX_KEY_SIZE:
            raise _bad_key(name)
        found = self._lookup(name)
        if found.__class__ is BucketValue:
            raise BucketExistsError(f"there is a bucket {name!r} already")
        if found is not None:
            raise IncompatibleValueError(f"{name!r} is a key with a value, not a bucket")
        self._change(name, EMPTY_BUCKET)
        return self.bucket(name)

    def create_bucket_if_missing(self, name: bytes) -> Bucket:
        """The nested bucket of that name, made where it is missing. Raises as `create_bucket`."""
        return self._child(name) or self.create_bucket(name)

    def delete_bucket(self, name: bytes) -> None:
        """Remove a nested bucket and everything in it; BucketNotFoundError without it."""
        if not self._writable:
            self._refuse()
        child = self.bucket(name)
        self._tx._drop(child._tree)
        child._end()
        del self._children[name]
        self._change(name, None)

    @property
    def sequence(self) -> int:
        """A number kept with the bucket, 0 at first; assign to it, or see `next_sequence`."""
        if not self._live:
            self._refuse()
        return self._sequence

    @sequence.setter
    def sequence(self, value: int) -> None:
        if not self._writable:
            self._refuse()
        if not 0 <= value < 2**64:
            raise ValueError(f"a sequence is an unsigned number of 64 bits, not {value}")
        self._sequence = value

    def next_sequence(self) -> int:
        """Raise the sequence by one and return it."""
        self.sequence = self._sequence + 1
        return self._sequence

    # Used by cursors, the transaction and the tools of this package

    def _refuse(self) -> None:
        if not self._live:
            raise TxError("the transaction is over, or the bucket was deleted")
        raise ReadOnlyError("this is a read-only transaction")

    def _lookup(self, key: bytes) -> bytes | None:
        if not self._live:
            self._refuse()
        if key in self._changes:
            return self._changes[key]
        return self._tree.find(key)

    def _change(self, key: bytes, value: bytes | None) -> None:
        if key not in self._changes:
            self._fresh.append(key)
        self._changes[key] = value
        self._version += 1

    def _touch(self, key: bytes) -> None:
        """Have the leaf where `key` belongs, and the branches above it, written to other pages."""
        leaf = self._leaf(key, False)
        if leaf.keys:
            self._change(leaf.keys[0], leaf.values[0])

    def _child(self, name: bytes) -> Bucket | None:
        if not self._live:
            self._refuse()
        child = self._children.get(name)
        if child is None:
            value = self._lookup(name)
            if value.__class__ is not BucketValue:
                return None
            assert value is not None
            child = self._children[name] = self._open(name, value)
        return child

    def _open(self, name: bytes, value: bytes) -> Bucket:
        tree, sequence = open_tree(self._tx._pages, value)
        if isinstance(self._tree, InlineTree):
            return Bucket(self._tx, tree, sequence, self._above)
        above = (*self._above, self._tree.root)
        if isinstance(tree, PagedTree) and tree.root in above:
            raise CorruptError(f"bucket {name!r} lies in itself, by page {tree.root}")
        return Bucket(self._tx, tree, sequence, above)

    def _leaf(self, at: bytes | None, reverse: bool) -> Leaf:
        """A leaf of the committed tree, with this transaction's changes to what it may hold."""
        if not self._live:
            self._refuse()
        leaf = self._tree.leaf(at, reverse)
        if not self._changes:
            return leaf
        order = self._changed_keys()
        low = 0 if leaf.lower is None else bisect_left(order, leaf.lower)
        high = len(order) if leaf.upper is None else bisect_left(order, leaf.upper)
        return self._overlaid(leaf, order[low:high]) if low < high else leaf

    def _overlaid(self, leaf: Leaf, changed: list[bytes]) -> Leaf:
        merged: dict[bytes, bytes | None] = dict(zip(leaf.keys, leaf.values, strict=True))
        for key in changed:
            merged[key] = self._changes[key]
        keys = [key for key in sorted(merged) if merged[key] is not None]
        values: list[bytes] = [merged[key] for key in keys]  # type: ignore[misc]
        nested = BucketValue in map(type, values)
        return Leaf(keys, values, leaf.lower, leaf.upper, nested)

    def _changed_keys(self) -> list[bytes]:
        order, fresh = self._order, self._fresh
        if fresh:
            if len(fresh) * _FEW < len(order):
                for key in fresh:
                    insort(order, key)
            else:
                order += fresh
                order.sort()
            fresh.clear()
        return order

    def _end(self) -> None:
        """Make this bucket and those opened in it refuse everything."""
        waiting = [self]
        while waiting:
            bucket = waiting.pop()
            bucket._live = bucket._writable = False
            waiting += bucket._children.values()

    def _spill_children(self, space: Space) -> None:
        """Write what changed in nested buckets; their new values become changes of this one."""
        for name, child in self._children.items():
            child._spill_children(space)
            if child._changes or child._sequence != child._committed_sequence:
                value = rewrite_bucket(
                    space,
                    child._tree,
                    child._sequence,
                    child._changes,
                    child._changed_keys(),
                    child.fill_percent,
                )
                self._change(name, value)


def _plain(data: bytes) -> bytes:
    """Bytes of exactly that type; other bytes-like objects are copied, anything else refused."""
    if data.__class__ is bytes:
        return data
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"keys and values are bytes, not {type(data).__name__}")
    return bytes(data)


def _bad_key(key: bytes) -> InvalidKeyError:
    if not key:
        return InvalidKeyError("a key must not be empty")
    return InvalidKeyError(f"a key of {len(key)} bytes is too long: {MAX_KEY_SIZE} is the most")
