"""Making a file shorter where it is.

Pages at the file's end are written anew, by ordinary commits, and so come to lie on free pages
before it. Where the last pages are free, a commit can make the database end earlier, and once that
state is on disk the file is cut short. Nothing is ever written over, so nothing more can be lost
than in any other commit; no second file is needed, and no other process sees one in the place of
the one that it waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .bucket import Bucket
from .db import DB
from .page import LEAF
from .stats import free_page_count, space
from .tree import PagedTree, open_tree
from .tx import Tx

BATCH = 128  # leaves moved by one commit: some milliseconds
_LOOK = 1024  # leaves looked at in a row
_FEW = 16  # free pages that are not worth another round
_SHARE = 64  # nor is less than this part of the file


class _Place(NamedTuple):
    """A leaf to move: the bucket that it lies in, its first key, and how many pages it takes."""

    path: tuple[bytes, ...]
    key: bytes
    pages: int


def shrink(db: DB, between: Callable[[], object] = lambda: None) -> bool:
    """Move what lies at the file's end into free space, and cut the file short.

    Works in short write transactions, and calls `between` after each, and while it looks for what
    is to move. Takes no more memory than a key for each leaf of that. Values that need several
    pages in a row may find no such room: then the file stays longer than `compact` would make a
    copy.

    Returns False where a read transaction older than the call, or more than one round of it, kept
    pages from being used again: there may be more to gain after its end. Raises as any write
    transaction does; what was done until then stays.
    """
    last = None
    while True:
        size, free = space(db)
        if free <= max(_FEW * db.page_size, size // _SHARE):
            return True
        if last is not None and size >= last:
            return not db._has_readers()
        last = size
        _settle(db, between)
        _move_all(db, between)
        _settle(db, between)


def _move_all(db: DB, between: Callable[[], object]) -> None:
    with db.view() as tx:
        limit = tx.size // db.page_size - free_page_count(tx)
        places = _beyond(tx, limit, between)
    for start in range(0, len(places), BATCH):
        _move(db, places[start : start + BATCH], limit)
        between()


def _beyond(tx: Tx, limit: int, between: Callable[[], object]) -> list[_Place]:
    """The leaves that lie, or below a branch that lies, at page `limit` or behind it. What others
    change meanwhile is found, or not, by the next round.
    """
    pages = tx._pages
    waiting: list[tuple[tuple[bytes, ...], int]] = [((), tx._meta.root)]
    places = []
    looked = 0
    while waiting:
        path, root = waiting.pop()
        branch_is_beyond = False
        for page, flags, count, overflow, _ in pages.tree_pages(root):
            beyond = page + overflow >= limit
            if flags != LEAF:
                # Its first leaf comes next, and takes all branches above along.
                branch_is_beyond = branch_is_beyond or beyond
                continue
            looked += 1
            if looked % _LOOK == 0:
                between()
            if count and (beyond or branch_is_beyond):
                places.append(_Place(path, pages.first_key(page), overflow + 1))
                branch_is_beyond = False
            for name, value in pages.nested(page, count, overflow):
                tree, _ = open_tree(pages, value)
                if isinstance(tree, PagedTree):
                    waiting.append(((*path, name), tree.root))
    return places


def _move(db: DB, places: list[_Place], limit: int) -> None:
    """Write these leaves anew, as far as there is room for them before page `limit`."""
    with db.update() as tx:
        assert db._freelist is not None
        sizes = {place.pages for place in places}
        room = {size: db._freelist.has_run(size, limit) for size in sizes}
        for place in places:
            bucket = _find(tx, place.path) if room[place.pages] else None
            if bucket is not None:
                bucket._touch(place.key)


def _find(tx: Tx, path: tuple[bytes, ...]) -> Bucket | None:
    """The bucket, if nobody removed it meanwhile."""
    bucket = tx._root
    for name in path:
        if not bucket.has_bucket(name):
            return None
        bucket = bucket.bucket(name)
    return bucket


def _settle(db: DB, between: Callable[[], object]) -> None:
    """Have the pages that the last commits freed available (a commit later they are, with `relaxed`
    two) and the file cut short, until both meta pages name a state that ends where the file does.
    """
    commits, shorter = 0, True
    while commits < 2 or shorter:
        with db.update() as tx:
            tx._trims = True
            before = tx.size
        commits += 1
        between()
        with db.view() as tx:
            shorter = tx.size < before
