"""Which pages are free, which will be once nobody reads them, and how both are kept in the file."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice
from operator import indexOf, sub

from .errors import CorruptError
from .meta import Meta
from .page import FREELIST, HEADER, HEADER_SIZE, type_name
from .tree import Pages

_ID_SIZE = 8
_NEAR = 128  # how far to look for pages in a row
_MANY = 4096
_LARGE = 0xFFFF  # from this many ids on, the count is kept as the first id


class Freelist:
    """Free pages in order, lowest first out, and pages freed by recent commits.

    A page freed by transaction N is part of every state before N: it is *pending* until no reader
    looks at such a state and a later state is safe on disk. The file lists both kinds alike.
    """

    def __init__(self, free: Iterable[int] = ()) -> None:
        self._free = sorted(free)
        self._head = 0  # ids before it are handed out: cheaper than taking from a list's front
        self._pending: dict[int, list[int]] = {}
        self._taken: list[int] = []
        self._next = 0  # where the page after the last one handed out would be
        self._no_run_of = 0  # a search for a run this long failed, and nothing was added since

    def __len__(self) -> int:
        return len(self._free) - self._head + sum(map(len, self._pending.values()))

    @property
    def free_count(self) -> int:
        """The pages that may be handed out now."""
        return len(self._free) - self._head

    def ids(self) -> list[int]:
        """All free and pending ids, sorted."""
        ids = self._free[self._head :]
        for pending in self._pending.values():
            ids += pending
        ids.sort()
        return ids

    def release(self, last_txid: int) -> None:
        """Make what transactions up to `last_txid` freed available."""
        for txid in [txid for txid in self._pending if txid <= last_txid]:
            self._add(self._pending.pop(txid))

    def _add(self, ids: list[int]) -> None:
        self._no_run_of = 0
        # Few into many: moving the tail for each is cheaper than another pass over all.
        if len(ids) * 64 < len(self._free):
            for page in ids:
                insort(self._free, page, self._head)
        else:
            self._free = self._free[self._head :] + ids
            self._free.sort()
            self._head = 0

    def allocate(self, count: int) -> int:
        """The first of `count` pages in a row that are now taken; 0 where there are none."""
        if count == 1:
            return self._allocate_one()
        index = self._find_run(count)
        if index is None:
            return 0
        run = self._free[index : index + count]
        del self._free[index : index + count]
        self._taken += run
        return run[0]

    def _find_run(self, count: int) -> int | None:
        """Where the lowest `count` pages in a row begin in the list."""
        if self._no_run_of and count >= self._no_run_of:
            return None
        last = islice(self._free, self._head + count - 1, None)
        first = islice(self._free, self._head, None)
        try:
            return self._head + indexOf(map(sub, last, first), count - 1)
        except ValueError:
            self._no_run_of = count
            return None

    def has_run(self, count: int, below: int) -> bool:
        """Whether `count` pages in a row could be handed out, all of them before page `below`."""
        index = self._find_run(count)
        return index is not None and self._free[index] + count <= below

    def trim(self, high_water: int) -> int:
        """Take out the pages at the file's end; where it ends without them."""
        free = self._free
        while len(free) > self._head and free[-1] == high_water - 1:
            high_water = free.pop()
            self._taken.append(high_water)
        return high_water

    def _allocate_one(self) -> int:
        """The page after the last one handed out, if it is free: neighbours sync faster.

        The first of a commit is the lowest page, or the lowest with some free ones after it.
        """
        free, head = self._free, self._head
        if head == len(free):
            return 0
        index = self._next
        taken = self._taken
        # What lies before the head is handed out, and the index may be an earlier commit's.
        if not (taken and head <= index < len(free) and free[index] == taken[-1] + 1):
            index = head if taken else self._lowest_run()
        page = free[index]
        if index == head:
            self._head = index = head + 1
        else:
            del free[index]
        self._next = index
        taken.append(page)
        return page

    def _lowest_run(self) -> int:
        if len(self._free) - self._head > _MANY:
            return self._head  # taking any other page would move all that follow it
        near = self._free[self._head : self._head + _NEAR]
        for run in (8, 4):
            with suppress(ValueError):
                return self._head + indexOf(map(sub, near[run - 1 :], near), run - 1)
        return self._head

    def free(self, txid: int, pages: Collection[int]) -> None:
        """Note that transaction `txid` no longer uses these pages."""
        for page in pages:
            index = bisect_left(self._free, page, self._head)
            if index < len(self._free) and self._free[index] == page:
                raise CorruptError(f"page {page} is in use, and in the freelist too")
        self._pending.setdefault(txid, []).extend(pages)

    def keep(self) -> None:
        """The commit under way succeeded: what it took is used."""
        self._taken.clear()
        if self._head > 4096 and self._head * 2 > len(self._free):
            del self._free[: self._head]
            self._head = 0

    def undo(self, txid: int) -> None:
        """The commit under way failed: give back what it took, forget what it freed."""
        self._pending.pop(txid, None)
        self._add(self._taken)
        self._taken = []

    def encoded_size(self) -> int:
        """The bytes that `encode` needs, or a little more."""
        count = len(self)
        return HEADER_SIZE + _ID_SIZE * (count + (count >= _LARGE))

    def encode(self, page_id: int, overflow: int, page_size: int) -> bytes:
        """The freelist's pages."""
        ids = self.ids()
        count = len(ids)
        if count >= _LARGE:
            ids.insert(0, count)
        header = HEADER.pack(page_id, FREELIST, min(count, _LARGE), overflow)
        return (header + _pack(ids)).ljust((overflow + 1) * page_size, b"\0")


def _pack(ids: list[int]) -> bytes:
    words = array("Q", ids)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def freelist_ids(page: bytes, count: int) -> list[int]:
    """The ids in a freelist's pages, as they are there."""
    start = HEADER_SIZE
    if count == _LARGE:
        count = int.from_bytes(page[start : start + _ID_SIZE], "little")
        start += _ID_SIZE
    end = start + _ID_SIZE * count
    if end > len(page):
        raise CorruptError(f"the freelist of {len(page)} bytes cannot hold {count} pages")
    words = array("Q", page[start:end])
    if sys.byteorder == "big":
        words.byteswap()
    return words.tolist()


def stored_count(pages: Pages, meta: Meta) -> int:
    """How many ids are in the file's freelist; `meta.keeps_freelist` says whether there is one."""
    flags, count, _ = pages.header(meta.freelist)
    if flags != FREELIST:
        raise CorruptError(f"page {meta.freelist} is a {type_name(flags)} page, not a freelist")
    if count < _LARGE:
        return count
    start = meta.freelist * meta.page_size + HEADER_SIZE
    return int.from_bytes(pages.data[start : start + _ID_SIZE], "little")


def stored_freelist(pages: Pages, meta: Meta) -> list[int]:
    """The ids in the file's freelist, sorted; `meta.keeps_freelist` says whether there is one."""
    flags, count, overflow = pages.header(meta.freelist)
    if flags != FREELIST:
        raise CorruptError(f"page {meta.freelist} is a {type_name(flags)} page, not a freelist")
    ids = sorted(freelist_ids(pages.content(meta.freelist, overflow), count))
    if ids and not (ids[0] >= 2 and ids[-1] < meta.high_water):
        raise CorruptError("the freelist names a page outside the file")
    return ids
