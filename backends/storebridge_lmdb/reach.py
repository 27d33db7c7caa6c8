"""Whether a data file has every page that its databases reach.

LMDB does not write pages that a transaction took at the end of the file and freed again, so a sound
file may be shorter than its meta page says. It is read without being mapped, for the same reason as
the meta page.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from storebridge_lmdb.header import DB, HEADER_SIZE, Meta

_BRANCH, _LEAF, _PACKED = 0x01, 0x02, 0x20
_OVERFLOW, _DATABASE = 0x01, 0x02
# The end of a page's header: flags, and where the pointers to its nodes end.
_PAGE = struct.Struct("@HH")
_NODE = struct.Struct("@HHHH")
"""Low and high half of a size or of a page's number, flags (the number's third part, where it is
longer than 32 bits), size of the key."""
_NUMBER = struct.Struct("@N")
_RECORD = struct.Struct(f"@{DB}")
_NONE = 2 ** (8 * _NUMBER.size) - 1
"""The root of a tree without pages."""


def is_whole(data: Path, meta: Meta) -> bool:
    """Whether the file has each page that is in use. False also for one that cannot be followed:
    it is damaged.
    """
    there = data.stat().st_size // meta.page_size
    left = [root for root in meta.roots if root != _NONE]
    seen = {0, 1}
    with data.open("rb") as file:
        while left:
            number = left.pop()
            if number in seen or number >= there:
                return False
            seen.add(number)
            page = os.pread(file.fileno(), meta.page_size, number * meta.page_size)
            try:
                for first, count in _below(page):
                    if count:
                        if first + count > there:
                            return False
                    elif first != _NONE:
                        left.append(first)
            except (struct.error, ValueError):
                return False
    return True


def _below(page: bytes) -> Iterator[tuple[int, int]]:
    """What a page refers to: the number of a page of a tree and 0, or the first of so many pages
    that hold a long value.
    """
    flags, lower = _PAGE.unpack_from(page, HEADER_SIZE - 6)
    if flags not in (_BRANCH, _LEAF, _LEAF | _PACKED):
        raise ValueError(f"not a page of a tree: {flags}")
    if flags & _PACKED:
        return
    for (place,) in struct.iter_unpack("@H", page[HEADER_SIZE:lower]):
        low, high, more, key_size = _NODE.unpack_from(page, place)
        number = low | high << 16
        value = place + _NODE.size + key_size
        if flags == _BRANCH:
            yield number | (more << 32 if _NUMBER.size > 4 else 0), 0
        elif more & _OVERFLOW:
            (first,) = _NUMBER.unpack_from(page, value)
            yield first, (HEADER_SIZE - 1 + number) // len(page) + 1
        elif more & _DATABASE:
            yield _RECORD.unpack_from(page, value)[-1], 0
