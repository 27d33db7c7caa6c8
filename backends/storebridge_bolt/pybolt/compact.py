"""Copying a database into a new file, without its free space and with full pages."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from .bucket import Bucket
from .datafile import sync_folder
from .db import DB
from .errors import CorruptError
from .page import MAX_NEW_PAGE_SIZE, BucketValue
from .tree import PagedTree
from .tx import Tx

_Step = tuple[tuple[bytes, ...], bytes, bytes | None, int]  # path, key, value or bucket, sequence


def compact(
    source: DB,
    path: str | os.PathLike[str],
    *,
    tx_max_size: int = 1 << 20,
    mode: int = 0o600,
    page_size: int | None = None,
) -> int:
    """Copy everything in `source` into a new file; returns the new file's bytes.

    Its pages have the source's size unless `page_size` says otherwise.

    The file appears complete and durable, or not at all. Memory is bounded by `tx_max_size`, the
    bytes of keys and values that go into one of the copy's transactions. The source is read in one
    transaction and not changed. Raises FileExistsError where there is something of that name.
    """
    path = os.fspath(path)
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists")
    fresh = f"{path}.{os.getpid()}.{time.time_ns()}"
    try:
        with (
            source.view() as tx,
            DB(
                fresh,
                durability="off",
                mode=mode,
                page_size=page_size or min(source.page_size, MAX_NEW_PAGE_SIZE),
            ) as target,
        ):
            _copy(tx, target, tx_max_size)
        _sync(fresh)
        size = os.path.getsize(fresh)
        os.rename(fresh, path)
        sync_folder(os.path.dirname(path) or ".")
    finally:
        with suppress(FileNotFoundError):
            os.unlink(fresh)
    return size


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _copy(source: Tx, target: DB, tx_max_size: int) -> None:
    tx = target.update()
    try:
        size = 0
        for path, key, value, sequence in _walk(source._root, (), set()):
            step = len(key) + len(value or b"")
            if size + step > tx_max_size > 0:
                tx.commit()
                tx = target.update()
                size = 0
            size += step
            bucket = tx._root.bucket(*path)
            if path:
                bucket.fill_percent = 1.0
            if value is None:
                bucket.create_bucket(key).sequence = sequence
            else:
                bucket.put(key, value)
        tx.commit()
    finally:
        tx.rollback()


def _walk(bucket: Bucket, path: tuple[bytes, ...], seen: set[int]) -> Iterator[_Step]:
    """Every entry, each bucket before what it holds."""
    if isinstance(bucket._tree, PagedTree):
        if bucket._tree.root in seen:
            raise CorruptError(f"page {bucket._tree.root} is the root of two buckets")
        seen.add(bucket._tree.root)
    at: bytes | None = None
    while True:
        leaf = bucket._leaf(at, False)
        for key, value in zip(leaf.keys, leaf.values, strict=True):
            if type(value) is BucketValue:
                child = bucket.bucket(key)
                yield path, key, None, child.sequence
                yield from _walk(child, (*path, key), seen)
                del bucket._children[key]  # there may be many
            else:
                yield path, key, value, 0
        if leaf.upper is None:
            return
        at = leaf.upper
