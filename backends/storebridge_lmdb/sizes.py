"""How large the memory map is, and when it may grow.

A transaction that needs more pages than the map has is lost, and a full map cannot even delete,
because deleting copies pages. So a part beyond the limit is kept for transactions that remove
something.
"""

from __future__ import annotations

import mmap
import re
import sys

from storebridge.driver.contract import DriverError, ErrorKind

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MIB = 2**20
_SIZE = re.compile(r"([1-9][0-9]{0,17})([KMGT]?)")
ROOMY = sys.maxsize > 2**32
"""Whether addresses are 64 bits long: then the map has its full size from the start, as what is not
used costs nothing. Otherwise it starts small and grows."""


class Sizes:
    """The sizes of one environment's map, in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = _whole_pages(limit)
        self.reserve = max(_whole_pages(limit // 8), _MIB)
        self.first = self.limit if ROOMY else min(self.limit, 16 * _MIB)

    def next(self, size: int, removing: bool) -> int | None:
        """The size to grow to; None: it may not. `removing`: for a transaction that removes."""
        if size < self.limit:
            return min(size * 2, self.limit)
        ceiling = self.limit + self.reserve
        if not removing or size == ceiling:
            return None
        # What was made with a larger limit may be beyond the ceiling, and can be deleted as well.
        return ceiling if size < ceiling else size + self.reserve


def parse(text: str | None) -> Sizes:
    """The sizes for the option `map_size`; None: it was not given."""
    if text is None:
        return Sizes(16 * 2**30 if ROOMY else 512 * _MIB)
    match = _SIZE.fullmatch(text.upper())
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if not _MIB <= size <= (2**60 if ROOMY else 2**30):
        to = "on, such as 64M or 16G" if ROOMY else "to 1G, as addresses here have 32 bits"
        raise DriverError(
            ErrorKind.CONFIGURATION, f"map_size={text}: expected a number of bytes from 1M {to}"
        )
    return Sizes(size)


def available(size: int) -> bool:
    """Whether the process could map so much more."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE, prot=0).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
