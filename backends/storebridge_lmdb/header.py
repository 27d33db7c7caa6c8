"""What `data.mdb` says of itself, read without mapping it: a page that the meta page names but the
file does not have would end the process with SIGBUS as soon as LMDB looked at it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from storebridge.driver.contract import DriverError, ErrorKind

DATA = "data.mdb"
LOCK = "lock.mdb"
FRESH = "data.mdb-compacting"
"""A compacted copy on its way to become the data file."""

_MAGIC = 0xBEEFC0DE
_FORMAT = 1
_PAGE_SIZES = tuple(2**power for power in range(9, 17))
# The page's header, then MDB_meta: magic, format, address, map size, two MDB_db (the first one's
# pad is the page size), last page, transaction id. LMDB's files are as its C structs are.
HEADER_SIZE = 8 + struct.calcsize("P")
DB = "IHHNNNNN"
_RECORD = struct.Struct(f"@{DB}")
_META = struct.Struct(f"@IIPN{DB}{DB}NN")


class Meta(NamedTuple):
    """The current one of the two meta pages."""

    page_size: int
    pages: int
    """How many pages are in use, from the first."""
    transaction: int
    roots: tuple[int, int]
    """Of the tree of free pages, and of the main database's."""


def has_magic(data: Path) -> bool:
    """Whether a file has LMDB's magic number."""
    with data.open("rb") as file:
        head = file.read(HEADER_SIZE + 4)
    return len(head) == HEADER_SIZE + 4 and struct.unpack_from("@I", head, HEADER_SIZE)[0] == _MAGIC


def read_meta(data: Path) -> Meta:
    """The current meta page. DriverError of kind FOREIGN for what is not an LMDB file of this
    format and machine, CORRUPT for one that is damaged.
    """
    with data.open("rb") as file:
        first = _parse(data, file.read(HEADER_SIZE + _META.size))
        if first.page_size not in _PAGE_SIZES:
            raise _corrupt(data, f"a page size of {first.page_size}")
        file.seek(first.page_size)
        second = _parse(data, file.read(HEADER_SIZE + _META.size), first.page_size)
    return max(first, second, key=lambda meta: meta.transaction)


def pages_of(record: bytes) -> int:
    """How many pages a named database takes, by what the main database has under its name."""
    _, _, _, branches, leaves, overflow, _, _ = _RECORD.unpack(record)
    return int(branches + leaves + overflow)


def missing_pages(data: Path, meta: Meta) -> int:
    """How many of its pages a file does not have. Read the meta page first: the file grows before
    the meta page says so.
    """
    return max(0, meta.pages - data.stat().st_size // meta.page_size)


def _parse(data: Path, head: bytes, place: int = 0) -> Meta:
    if len(head) < HEADER_SIZE + _META.size:
        if place or has_magic(data):
            raise _corrupt(data, "it ends within its meta pages")
        raise _foreign(data)
    fields = _META.unpack_from(head, HEADER_SIZE)
    if fields[0] != _MAGIC and place:
        raise _corrupt(data, "its second meta page is none")
    if fields[0] != _MAGIC or fields[1] != _FORMAT:
        raise _foreign(data)
    return Meta(
        page_size=fields[4],
        pages=fields[-2] + 1,
        transaction=fields[-1],
        roots=(fields[11], fields[19]),
    )


def _foreign(data: Path) -> DriverError:
    bits = 8 * struct.calcsize("P")
    return DriverError(
        ErrorKind.FOREIGN,
        f"{data}: not an LMDB file of format {_FORMAT} as this {bits}-bit machine writes them",
    )


def _corrupt(data: Path, what: str) -> DriverError:
    return DriverError(ErrorKind.CORRUPT, f"{data}: damaged, {what}: restore a backup")
