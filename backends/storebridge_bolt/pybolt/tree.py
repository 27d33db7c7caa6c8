"""Reading the B+trees of one snapshot.

Everything moves by key: a leaf is found together with the bounds of the keys that it may hold,
and the next leaf is the one found from the upper bound. So nothing keeps a stack of pages, a
changed tree cannot confuse an iteration, and because each bound is strictly beyond the key that
was asked for, an iteration ends even where damaged pages form a circle.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from .cache import Branch, LeafData, PageCache
from .errors import CorruptError
from .page import (
    BRANCH,
    ELEMENT_SIZE,
    HEADER,
    HEADER_SIZE,
    LEAF,
    BucketValue,
    bucket_header,
    decode_branch,
    decode_inline,
    decode_leaf,
    type_name,
)

_ELEMENT = Struct("<IIII").unpack_from
_KEY_OF_ELEMENT = Struct("<II").unpack_from
_HEADER = HEADER.unpack_from
_DEPTHS = range(64)  # no tree of two children a branch is deeper: beyond, pages form a circle


class Leaf(NamedTuple):
    """A leaf's contents, and the bounds of what it may hold (None: no bound on that side)."""

    keys: list[bytes]
    values: list[bytes]
    lower: bytes | None
    upper: bytes | None
    nested: bool  # whether some values are buckets


class Pages:
    """The pages of one snapshot: a map of the file, and the database's decoded pages."""

    __slots__ = ("cache", "data", "high_water", "page_size")

    def __init__(self, data: mmap.mmap, page_size: int, high_water: int, cache: PageCache) -> None:
        self.data = data
        self.page_size = page_size
        self.high_water = high_water
        self.cache = cache

    def header(self, page: int) -> tuple[int, int, int]:
        """A page's type, count of elements and overflow, once they make sense."""
        if not 2 <= page < self.high_water:
            raise CorruptError(f"page {page} is outside of the file's {self.high_water} pages")
        found, flags, count, overflow = _HEADER(self.data, page * self.page_size)
        if found != page:
            raise CorruptError(f"page {page} says that it is page {found}")
        if page + overflow >= self.high_water:
            raise CorruptError(f"page {page} reaches {overflow} pages on, beyond the file's end")
        if flags <= LEAF and count * ELEMENT_SIZE >= (overflow + 1) * self.page_size:
            raise CorruptError(f"page {page} cannot hold {count} elements")
        return flags, count, overflow

    def content(self, page: int, overflow: int) -> bytes:
        """A page's bytes, overflow pages included."""
        start = page * self.page_size
        return self.data[start : start + (overflow + 1) * self.page_size]

    def leaf(self, page: int, count: int, overflow: int, *, keep: bool = False) -> LeafData:
        """A leaf page's contents; the lists are shared and not to be changed."""
        cache = self.cache
        leaf = cache.leaves.get(page)
        if leaf is None:
            try:
                leaf = decode_leaf(self.content(page, overflow), count)
            except CorruptError as problem:
                raise CorruptError(f"page {page}: {problem}") from None
            if keep or cache.wants_passed(page):
                cache.keep_leaf(page, leaf, (overflow + 1) * self.page_size)
        return leaf

    def first_key(self, page: int) -> bytes:
        """The first key of a leaf page that has some, without decoding it."""
        element = page * self.page_size + HEADER_SIZE
        position, size = _KEY_OF_ELEMENT(self.data, element + 4)
        return self.data[element + position : element + position + size]

    def branch(self, page: int, *, keep: bool = False) -> Branch:
        """A branch page's keys, and its children with the first one twice. `keep`: for who is
        after one key, and not on the way through many."""
        branch = self.cache.branches.get(page)
        if branch is None and not keep:
            branch = self.cache.passed(page)
        if branch is None:
            flags, count, overflow = self.header(page)
            if flags != BRANCH:
                raise CorruptError(f"page {page} is a {type_name(flags)} page inside a tree")
            try:
                keys, children = decode_branch(self.content(page, overflow), count)
            except CorruptError as problem:
                raise CorruptError(f"page {page}: {problem}") from None
            remember = self.cache.keep_branch if keep else self.cache.pass_branch
            branch = remember(page, keys, children)
        return branch

    def nested(self, page: int, count: int, overflow: int) -> list[tuple[bytes, BucketValue]]:
        """The buckets among a leaf page's entries."""
        content = self.content(page, overflow)
        # Most leaves have none: their flags show it for a fraction of the cost of decoding.
        if not any(content[HEADER_SIZE : HEADER_SIZE + count * ELEMENT_SIZE : ELEMENT_SIZE]):
            return []
        keys, values, _ = self.leaf(page, count, overflow)
        pairs = zip(keys, values, strict=True)
        return [(key, value) for key, value in pairs if type(value) is BucketValue]

    def tree_pages(self, root: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(page, type, count, overflow, depth) of every page of a tree, parents first."""
        waiting = [(root, 0)]
        seen: set[int] = set()
        while waiting:
            page, depth = waiting.pop()
            if page in seen:
                raise CorruptError(f"page {page} is referenced twice")
            seen.add(page)
            flags, count, overflow = self.header(page)
            if flags not in (BRANCH, LEAF):
                raise CorruptError(f"page {page} is a {type_name(flags)} page inside a tree")
            yield page, flags, count, overflow, depth
            if flags == BRANCH:
                children = self.branch(page)[1]
                waiting += [(child, depth + 1) for child in reversed(children[1:])]


class PagedTree:
    """The keys and values below a root page."""

    __slots__ = ("_branches", "_values", "pages", "root")

    def __init__(self, pages: Pages, root: int) -> None:
        self.pages = pages
        self.root = root
        self._branches = pages.cache.branches
        self._values = pages.cache.values

    def find(self, key: bytes) -> bytes | None:
        """The value of a key; a BucketValue where it is a bucket."""
        page = self.root
        branches = self._branches
        for _ in _DEPTHS:
            node = branches.get(page)
            if node is None:
                values = self._values.get(page)
                if values is not None:
                    return values.get(key)
                flags, count, overflow = self.pages.header(page)
                if flags == LEAF:
                    return self._find_in_leaf(page, count, overflow, key)
                node = self.pages.branch(page, keep=True)
            page = node[1][bisect_right(node[0], key)]
        raise CorruptError(f"the tree of page {self.root} has a circle")

    def _find_in_leaf(self, page: int, count: int, overflow: int, key: bytes) -> bytes | None:
        if not self.pages.cache.wants(page):
            return self._search(page, count, overflow, key)
        keys, values, _ = self.pages.leaf(page, count, overflow, keep=True)
        index = bisect_left(keys, key)
        return values[index] if index < len(keys) and keys[index] == key else None

    def _search(self, page: int, count: int, overflow: int, key: bytes) -> bytes | None:
        """Look in a leaf without decoding it."""
        pages = self.pages
        data = pages.data
        start = page * pages.page_size
        end = start + (overflow + 1) * pages.page_size
        first = start + HEADER_SIZE
        low, high = 0, count
        while low < high:
            middle = (low + high) >> 1
            element = first + middle * ELEMENT_SIZE
            position, size = _KEY_OF_ELEMENT(data, element + 4)
            at = element + position
            found = data[at : at + size]
            if found < key:
                low = middle + 1
            elif found == key:
                flags, position, key_size, value_size = _ELEMENT(data, element)
                at = element + position + key_size
                if at + value_size > end:
                    raise CorruptError(f"page {page}: a value reaches beyond its page")
                value = data[at : at + value_size]
                return BucketValue(value) if flags & 1 else value
            else:
                high = middle
        return None

    def leaf(self, key: bytes | None, before: bool) -> Leaf:
        """The leaf where `key` belongs, or with `before` the one of the last keys below it.

        None asks for the first leaf, or with `before` for the last.
        """
        page = self.root
        lower = upper = None
        for _ in _DEPTHS:
            node = self._branches.get(page)
            if node is None:
                flags, count, overflow = self.pages.header(page)
                if flags == LEAF:
                    return self._leaf(page, count, overflow, lower, upper)
                node = self.pages.branch(page)
            keys, children = node
            if key is None:
                index = len(keys) if before else 1
            else:
                # The first child also takes what is below its key, so it sets no lower bound.
                index = (bisect_left(keys, key) if before else bisect_right(keys, key)) or 1
            if index > 1:
                lower = keys[index - 1]
            if index < len(keys):
                upper = keys[index]
            page = children[index]
        raise CorruptError(f"the tree of page {self.root} has a circle")

    def _leaf(
        self, page: int, count: int, overflow: int, lower: bytes | None, upper: bytes | None
    ) -> Leaf:
        keys, values, nested = self.pages.leaf(page, count, overflow)
        if not keys:
            if page != self.root:
                raise CorruptError(f"page {page} is an empty leaf below a branch")
        elif (lower is not None and keys[0] < lower) or keys[0] > keys[-1]:
            raise CorruptError(f"page {page} holds keys out of order")
        return Leaf(keys, values, lower, upper, nested)


class InlineTree:
    """The keys and values of a bucket that lies in its parent's page, or of a new one."""

    __slots__ = ("keys", "values")

    def __init__(self, value: bytes) -> None:
        self.keys, self.values = decode_inline(value)

    def find(self, key: bytes) -> bytes | None:
        index = bisect_left(self.keys, key)
        if index < len(self.keys) and self.keys[index] == key:
            return self.values[index]
        return None

    def leaf(self, key: bytes | None, before: bool) -> Leaf:
        return Leaf(self.keys, self.values, None, None, False)


def open_tree(pages: Pages, value: bytes) -> tuple[PagedTree | InlineTree, int]:
    """The tree and sequence of a bucket's value."""
    root, sequence = bucket_header(value)
    return (PagedTree(pages, root) if root else InlineTree(value)), sequence


def used_pages(pages: Pages, root: int) -> bytearray:
    """A byte for each page, 1 where a tree reaches it; the metas and a freelist are not in it."""
    used = bytearray(pages.high_water)
    waiting = [root]
    while waiting:
        for page, flags, count, overflow, _ in pages.tree_pages(waiting.pop()):
            if any(used[page : page + overflow + 1]):
                raise CorruptError(f"page {page} is referenced twice")
            used[page : page + overflow + 1] = b"\1" * (overflow + 1)
            if flags == LEAF:
                nested = pages.nested(page, count, overflow)
                trees = [open_tree(pages, value)[0] for _, value in nested]
                waiting += [tree.root for tree in trees if isinstance(tree, PagedTree)]
    return used
