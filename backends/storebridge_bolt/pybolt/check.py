"""Checking a database: every page used once or free, every key in order.

The findings, and their order, are those of bbolt's own check. `strict` adds what that check lets
pass and a later write by Go dies of.
"""

from __future__ import annotations

from collections.abc import Iterator

from .db import DB
from .errors import CorruptError
from .freelist import stored_freelist
from .gotext import printable
from .page import BRANCH, LEAF, BucketValue, type_name
from .tree import PagedTree, Pages, open_tree
from .tx import Tx

_MAX_DEPTH = 64

Key = bytes | None


def check(db: DB, *, from_page: int = 0, strict: bool = True) -> Iterator[str]:
    """What is wrong with a database, a sentence each; nothing where it is sound.

    `from_page` looks at the tree below one page only. Takes a byte of memory for each page.
    """
    with db.view() as tx:
        yield from _Check(tx, strict).run(from_page)


class _Check:
    def __init__(self, tx: Tx, strict: bool) -> None:
        self.meta = tx._meta
        self.pages: Pages = tx._pages
        self.strict = strict
        self.seen = bytearray(self.meta.high_water)
        self.free = bytearray(self.meta.high_water)

    def run(self, from_page: int) -> Iterator[str]:
        yield from self.read_freelist()
        self.seen[0:2] = b"\1\1"
        high_water = self.meta.high_water
        if from_page == 0:
            yield from self.bucket(self.meta.root)
            yield from self.unreachable()
        elif 2 <= from_page < high_water:
            yield from self.bucket(from_page)
        else:
            yield f"page ID ({from_page}) out of range [2, {high_water})"

    def read_freelist(self) -> Iterator[str]:
        """Note which pages are free; without a list all that no tree reaches."""
        if not self.meta.keeps_freelist:
            return
        page = self.meta.freelist
        try:
            ids = stored_freelist(self.pages, self.meta)
            overflow = self.pages.header(page)[2]
        except CorruptError as problem:
            yield str(problem)
            return
        for number in ids:
            if self.free[number]:
                yield f"page {number}: already freed"
            self.free[number] = 1
        self.seen[page : page + overflow + 1] = b"\1" * (overflow + 1)

    def unreachable(self) -> Iterator[str]:
        if not self.meta.keeps_freelist:
            return
        for number in range(self.meta.high_water):
            if not self.seen[number] and not self.free[number]:
                yield f"page {number}: unreachable unfreed"

    def bucket(self, root: int) -> Iterator[str]:
        """A bucket's tree, and then the buckets in it."""
        waiting = [root]
        while waiting:
            page = waiting.pop()
            sound = True
            for problem in self.reach(page, []):
                sound = False
                yield problem
            if sound:
                nested: list[int] = []
                yield from self.order(page, None, None, [], nested)
                waiting += reversed(nested)

    def reach(self, page: int, above: list[int]) -> Iterator[str]:
        """Note the pages of a tree as used; what is used twice is not followed again."""
        stack = [*above, page]
        shown = " ".join(map(str, stack))
        try:
            flags, _, overflow = self.pages.header(page)
        except CorruptError as problem:
            yield f"{problem} (stack: [{shown}])"
            return
        twice = False
        for number in range(page, page + overflow + 1):
            if self.seen[number]:
                twice = True
                yield f"page {number}: multiple references (stack: [{shown}])"
            self.seen[number] = 1
        if self.free[page]:
            yield f"page {page}: reachable freed"
        elif flags not in (BRANCH, LEAF):
            yield f"page {page}: invalid type: {type_name(flags)} (stack: [{shown}])"
        if flags != BRANCH or twice:
            return
        if len(stack) > _MAX_DEPTH:
            yield f"page {page}: {len(stack)} levels below its bucket (stack: [{shown}])"
            return
        try:
            children = self.pages.branch(page)[1][1:]
        except CorruptError as problem:
            yield str(problem)
            return
        for child in children:
            yield from self.reach(child, stack)

    def order(
        self, page: int, least: Key, below: Key, above: list[int], nested: list[int]
    ) -> Iterator[str]:
        """The order of keys in a tree that `reach` found sound, and its buckets' root pages."""
        stack = [*above, page]
        flags, count, overflow = self.pages.header(page)
        try:
            if flags == LEAF:
                keys, values, _ = self.pages.leaf(page, count, overflow)
            else:
                keys, children = self.pages.branch(page)
        except CorruptError as problem:
            yield str(problem)
            return
        if flags == LEAF:
            previous = least
            for index, key in enumerate(keys):
                yield from _key_order(page, "leaf", index, key, previous, below, stack)
                previous = key
            yield from self.leaf_buckets(page, values, nested)
            if self.strict and not keys and above:
                yield f"page {page}: empty leaf below a branch"
            return
        previous = least
        for index, key in enumerate(keys):
            child = children[index + 1]
            yield from _key_order(child, "branch", index, key, previous, below, stack)
            upper = keys[index + 1] if index + 1 < len(keys) else below
            yield from self.order(child, key, upper, stack, nested)
            if self.strict:
                yield from self.branch_key(page, index, key, child)
            previous = self.last_key(child) or key
        if self.strict and len(keys) == 1:
            yield f"page {page}: branch with a single child"

    def leaf_buckets(self, page: int, values: list[bytes], nested: list[int]) -> Iterator[str]:
        for value in values:
            if type(value) is BucketValue:
                try:
                    tree = open_tree(self.pages, value)[0]
                except CorruptError as problem:
                    yield f"page {page}: {problem}"
                else:
                    if isinstance(tree, PagedTree):
                        nested.append(tree.root)

    def branch_key(self, page: int, index: int, key: bytes, child: int) -> Iterator[str]:
        keys = self.keys(child)
        if keys and keys[0] != key:
            yield f"page {page}: key[{index}] is not the first key of page {child}"

    def keys(self, page: int) -> list[bytes]:
        flags, count, overflow = self.pages.header(page)
        try:
            if flags == LEAF:
                return self.pages.leaf(page, count, overflow)[0]
            return self.pages.branch(page)[0]
        except CorruptError:
            return []  # `order` tells

    def last_key(self, page: int) -> bytes | None:
        """The last key in a tree."""
        try:
            while self.pages.header(page)[0] == BRANCH:
                page = self.pages.branch(page)[1][-1]
        except CorruptError:
            return None
        keys = self.keys(page)
        return keys[-1] if keys else None


def _key_order(
    page: int, kind: str, index: int, key: bytes, previous: Key, below: Key, stack: list[int]
) -> Iterator[str]:
    shown = f"[{' '.join(map(str, stack))}]"
    before = printable(previous or b"")
    where = f"key[{index}]=(hex){printable(key)} on {kind} page({page}) needs to be"
    if index == 0 and previous is not None and previous > key:
        yield (
            f"the first key[{index}]=(hex){printable(key)} on {kind} page({page}) needs to be >="
            f" the key in the ancestor ({before}). Stack: {shown}"
        )
    if index > 0 and previous is not None and previous >= key:
        found = "<" if previous > key else "="
        yield f"{where} > (found {found}) than previous element (hex){before}. Stack: {shown}"
    if below is not None and key >= below:
        yield (
            f"{where} < than key of the next element in ancestor (hex){before}."
            f" Pages stack: {shown}"
        )
