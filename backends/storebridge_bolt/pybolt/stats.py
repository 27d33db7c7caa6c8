"""What a database is made of: figures for buckets, a list of pages, the tree of buckets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

from .bucket import Bucket
from .commit import grown_size
from .db import DB
from .errors import CorruptError
from .freelist import stored_count, stored_freelist
from .page import ELEMENT_SIZE, HEADER, HEADER_SIZE, LEAF, type_name
from .tree import InlineTree, PagedTree, Pages, open_tree, used_pages
from .tx import Tx

_LEAF_END = Struct("<III")  # position, key size, value size: after the element's flags
_BRANCH_END = Struct("<II")


@dataclass(slots=True)
class BucketStats:
    """Figures for a bucket and all buckets in it, with bbolt's meanings.

    Bytes in use count headers, elements, keys and values; `key_count` counts nested buckets too.
    """

    branch_pages: int = 0
    branch_overflow_pages: int = 0
    leaf_pages: int = 0
    leaf_overflow_pages: int = 0
    key_count: int = 0
    depth: int = 0
    branch_bytes: int = 0
    branch_bytes_used: int = 0
    leaf_bytes: int = 0
    leaf_bytes_used: int = 0
    bucket_count: int = 0
    inline_bucket_count: int = 0
    inline_bytes_used: int = 0

    def add(self, other: BucketStats) -> None:
        """Add figures of a neighbour: all add up but the depth, where the deeper one counts."""
        for name in self.__slots__:
            total = getattr(self, name) + getattr(other, name)
            setattr(self, name, total)
        self.depth = max(self.depth - other.depth, other.depth)


def bucket_stats(bucket: Bucket) -> BucketStats:
    """The figures of a bucket as it was at the beginning of its transaction.

    Reads every page's header and its last element, not the data.
    """
    return _tree_stats(bucket.tx._pages, bucket._tree, set())


def _tree_stats(pages: Pages, tree: PagedTree | InlineTree, seen: set[int]) -> BucketStats:
    stats = BucketStats(bucket_count=1)
    if isinstance(tree, InlineTree):
        stats.inline_bucket_count = stats.depth = 1
        stats.key_count = len(tree.keys)
        sizes = sum(map(len, tree.keys)) + sum(map(len, tree.values))
        stats.inline_bytes_used = HEADER_SIZE + ELEMENT_SIZE * len(tree.keys) + sizes
        return stats
    if tree.root in seen:
        raise CorruptError(f"page {tree.root} is the root of two buckets")
    seen.add(tree.root)
    inner = BucketStats()
    for page, flags, count, overflow, depth in pages.tree_pages(tree.root):
        stats.depth = max(stats.depth, depth + 1)
        if flags == LEAF:
            stats.leaf_pages += 1
            stats.leaf_overflow_pages += overflow
            stats.key_count += count
            stats.leaf_bytes_used += _used(pages, page, count, _LEAF_END, 4)
            for _, value in pages.nested(page, count, overflow):
                inner.add(_tree_stats(pages, open_tree(pages, value)[0], seen))
        else:
            stats.branch_pages += 1
            stats.branch_overflow_pages += overflow
            stats.branch_bytes_used += _used(pages, page, count, _BRANCH_END, 0)
    size = pages.page_size
    stats.branch_bytes = (stats.branch_pages + stats.branch_overflow_pages) * size
    stats.leaf_bytes = (stats.leaf_pages + stats.leaf_overflow_pages) * size
    depth = stats.depth + inner.depth
    stats.add(inner)
    stats.depth = depth
    return stats


def _used(pages: Pages, page: int, count: int, end: Struct, skip: int) -> int:
    """The bytes up to where the last element's data end."""
    if not count:
        return HEADER_SIZE
    last = HEADER_SIZE + ELEMENT_SIZE * (count - 1)
    fields: tuple[int, ...] = end.unpack_from(pages.data, page * pages.page_size + last + skip)
    return last + sum(fields)


class PageInfo(NamedTuple):
    """A page's number, type ("free" where nothing uses it), items, and pages it continues on."""

    id: int
    type: str
    items: int
    overflow: int


def list_pages(tx: Tx) -> Iterator[PageInfo]:
    """All pages in order; those that only continue another are left out."""
    pages, meta = tx._pages, tx._meta
    free = _free_pages(tx)
    page = 0
    while page < meta.high_water:
        _, flags, count, overflow = HEADER.unpack_from(pages.data, page * meta.page_size)
        if page in free:
            yield PageInfo(page, "free", 0, 0)
            overflow = 0
        else:
            yield PageInfo(page, type_name(flags), count, overflow)
        page += 1 + overflow


class Space(NamedTuple):
    """Bytes on the disk, and how many of them hold nothing."""

    size: int
    free: int


def space(db: DB) -> Space:
    """What a database takes. The end of the file, which is there to grow into, is not counted: it
    takes no blocks of the disk.
    """
    with db.view() as tx:
        end, page_size = tx.size, db.page_size
        size = db._file.size()
        if size <= grown_size(end + page_size):
            size = end
        return Space(size, size - end + free_page_count(tx) * page_size)


def free_page_count(tx: Tx) -> int:
    """How many pages hold nothing, or only what was replaced. Reads no more than a page, where the
    file keeps its freelist.
    """
    meta, pages = tx._meta, tx._pages
    if meta.keeps_freelist:
        return stored_count(pages, meta)
    return len(_free_pages(tx))


def _free_pages(tx: Tx) -> set[int]:
    meta, pages = tx._meta, tx._pages
    if meta.keeps_freelist:
        return set(stored_freelist(pages, meta))
    used = used_pages(pages, meta.root)
    return {page for page in range(2, meta.high_water) if not used[page]}


@dataclass(slots=True)
class BucketOutline:
    """A bucket's name, how many keys with values it has, and the buckets in it."""

    name: bytes
    key_count: int = 0
    buckets: list[BucketOutline] = field(default_factory=list)


def outline(tx: Tx) -> BucketOutline:
    """The tree of all buckets; the topmost one is called "root"."""
    root = BucketOutline(b"root")
    waiting: list[tuple[BucketOutline, PagedTree | InlineTree]] = [(root, tx._root._tree)]
    seen: set[int] = set()
    while waiting:
        entry, tree = waiting.pop()
        if isinstance(tree, InlineTree):
            entry.key_count = len(tree.keys)
            continue
        if tree.root in seen:
            raise CorruptError(f"page {tree.root} is the root of two buckets")
        seen.add(tree.root)
        for page, flags, count, overflow, _ in tx._pages.tree_pages(tree.root):
            if flags == LEAF:
                nested = tx._pages.nested(page, count, overflow)
                entry.key_count += count - len(nested)
                for name, value in nested:
                    child = BucketOutline(name)
                    entry.buckets.append(child)
                    waiting.append((child, open_tree(tx._pages, value)[0]))
    return root
