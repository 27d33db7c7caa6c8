"""Writing a transaction's changes to the file, so that a power cut at any moment loses none
but the one under way.

The order is bbolt's: new pages onto free space and a sync; then the meta page that makes them the
database's state, and a sync. Pages of the last state are never written to: what a commit frees is
handed out again only by later ones (see `DB._release`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .datafile import DataFile
from .errors import CorruptError, DatabaseFailedError
from .freelist import Freelist
from .meta import META_END, NO_FREELIST, Meta
from .rewrite import TreeWriter
from .tree import PagedTree, Pages

if TYPE_CHECKING:
    from .bucket import Bucket

_STEP = 16 << 20
_SMALLEST = 32 << 10


def grown_size(size: int) -> int:
    """How long to make a file that needs `size` bytes: room to spare, so that it grows rarely."""
    if size <= _STEP:
        return max(_SMALLEST, 1 << (size - 1).bit_length())
    return -(-size // _STEP) * _STEP


class Commit:
    """One commit: the pages that it takes, frees and writes."""

    def __init__(
        self, file: DataFile, pages: Pages, freelist: Freelist, meta: Meta, dropped: set[int]
    ) -> None:
        self.file = file
        self.pages = pages
        self.freelist = freelist
        self.old = meta
        self.high_water = meta.high_water
        self.done = False  # once the file's state is the new one
        self._dropped = dropped
        self._freed: set[int] = set()
        self._written: list[tuple[int, bytes]] = []

    # The space that trees are rewritten in

    def allocate(self, count: int) -> int:
        page = self.freelist.allocate(count)
        if not page:
            page = self.high_water
            self.high_water += count
        for number in range(page, page + count):
            self.pages.cache.forget(number)
        return page

    def free(self, page: int, overflow: int) -> None:
        for number in range(page, page + overflow + 1):
            if number in self._freed or number in self._dropped:
                raise CorruptError(f"page {number} is referenced twice")
            self._freed.add(number)

    def write(self, page: int, content: bytes) -> None:
        self._written.append((page, content))

    # The steps

    def build(self, root: Bucket, *, keep_freelist: bool, trim: bool = False) -> Meta:
        """Lay out all new pages in memory; the meta of the state that they make up.

        `trim`: it ends before the free pages at the file's end.
        """
        root._spill_children(self)
        tree = root._tree
        assert isinstance(tree, PagedTree)
        page = tree.root
        if root._changes:
            writer = TreeWriter(self, root.fill_percent)
            new = writer.rewrite(page, root._changes, root._changed_keys())
            page = new if isinstance(new, int) else writer.put(new)
        txid = self.old.txid + 1
        if self.old.keeps_freelist:
            self._free_old_freelist()
        self.freelist.free(txid, self._freed | self._dropped)
        if trim:
            self.high_water = self.freelist.trim(self.high_water)
        freelist = self._place_freelist() if keep_freelist else NO_FREELIST
        return Meta(self.old.page_size, page, self.old.sequence, freelist, self.high_water, txid)

    def _free_old_freelist(self) -> None:
        _, _, overflow = self.pages.header(self.old.freelist)
        self.free(self.old.freelist, overflow)

    def _place_freelist(self) -> int:
        count = -(-self.freelist.encoded_size() // self.old.page_size)
        page = self.allocate(count)
        self.write(page, self.freelist.encode(page, count - 1, self.old.page_size))
        return page

    def write_pages(self, *, sync: bool) -> None:
        """Put the new pages on disk."""
        needed = (self.high_water + 1) * self.old.page_size  # a page to spare, as in bbolt
        if needed > self.file.size():
            self.file.truncate(grown_size(needed))
            if sync:
                self.file.sync()
        for offset, content in self._runs():
            self.file.write(content, offset)
        if sync:
            self.file.sync_data()

    def _runs(self) -> Iterable[tuple[int, bytes]]:
        """The pages by position, neighbours joined: one system call each."""
        size = self.old.page_size
        start, end = 0, -1
        parts: list[bytes] = []
        for page, content in sorted(self._written):
            if page * size != end:
                if parts:
                    yield start, b"".join(parts)
                start, parts = page * size, []
            parts.append(content)
            end = page * size + len(content)
        if parts:
            yield start, b"".join(parts)

    def write_meta(self, meta: Meta, *, sync: bool) -> None:
        """Make the new pages the state of the database.

        Where this fails nobody can know which of the two states the disk has, so the page is put
        back as it was; DatabaseFailedError where even that fails.
        """
        offset = meta.txid % 2 * meta.page_size
        # From the map: a read of the file would set its access time, and the sync write that too.
        before = self.pages.data[offset : offset + META_END]
        try:
            self.file.write(meta.encode(), offset)
            if sync:
                self.file.sync_data()
            self.done = True
        except BaseException as problem:  # an interrupt by the user counts as well
            if not self.done:
                self._put_back(before, offset, problem)
            raise

    def _put_back(self, before: bytes, offset: int, problem: BaseException) -> None:
        try:
            self.file.write(before, offset)
            self.file.sync_data()
        except BaseException:
            raise DatabaseFailedError(
                f"{self.file.path}: writing the meta page failed ({problem!r}), and so did"
                " putting back the old one; open the database again"
            ) from problem

    def undo(self, size: int, *, rewrite_meta: bool) -> None:
        """Give back all space that was taken, a longer file included.

        `rewrite_meta`: the last state's meta page was not known to be on disk. A sync that failed
        may have given up on it, so it is written again for the next sync to find.
        """
        self.freelist.undo(self.old.txid + 1)
        if rewrite_meta:
            self.file.write(self.old.encode(), self.old.txid % 2 * self.old.page_size)
        with contextlib.suppress(OSError):  # an overlong file is no harm
            if self.file.size() > size:
                self.file.truncate(size)
