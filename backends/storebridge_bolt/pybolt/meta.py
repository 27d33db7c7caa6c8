"""Meta pages: where a state of the database begins, and which of the two counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from .errors import InvalidFileError
from .page import FREELIST, HEADER, HEADER_SIZE, LEAF, MAX_PAGE_SIZE, META, MIN_PAGE_SIZE

MAGIC = 0xED0CDAED
VERSION = 2
NO_FREELIST = 0xFFFF_FFFF_FFFF_FFFF

_BODY = Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root, sequence, freelist, …
_CHECKSUM = Struct("<Q")
_SAME = 16
META_SIZE = _BODY.size + _CHECKSUM.size
META_END = HEADER_SIZE + META_SIZE

_FNV_OFFSET, _FNV_PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1


@dataclass(frozen=True, slots=True)
class Meta:
    """One state of the database: its root bucket, its freelist, how far its pages reach."""

    page_size: int
    root: int
    sequence: int
    freelist: int
    high_water: int
    txid: int

    @property
    def keeps_freelist(self) -> bool:
        """Whether the file holds its freelist, or leaves it to be rebuilt."""
        return self.freelist != NO_FREELIST

    def encode(self, page_id: int | None = None) -> bytes:
        """The meta page's header and body; it goes to page txid % 2 unless told otherwise."""
        body = _BODY.pack(
            MAGIC, VERSION, self.page_size, 0,
            self.root, self.sequence, self.freelist, self.high_water, self.txid,
        )  # fmt: skip
        where = self.txid % 2 if page_id is None else page_id
        return HEADER.pack(where, META, 0, 0) + body + _CHECKSUM.pack(fnv1a(body))


def fnv1a(body: bytes) -> int:
    """FNV-1a, 64 bits, of a meta's body. The first fields are those of every meta of a file."""
    return _fnv1a(body[_SAME:], _fnv1a_of_start(body[:_SAME]))


@lru_cache(maxsize=64)
def _fnv1a_of_start(start: bytes) -> int:
    return _fnv1a(start, _FNV_OFFSET)


def _fnv1a(data: bytes, value: int) -> int:
    for byte in data:
        value = ((value ^ byte) * _FNV_PRIME) & _MASK
    return value


class MetaFields(NamedTuple):
    """What a meta page says, right or not."""

    version: int
    page_size: int
    flags: int
    root: int
    sequence: int
    freelist: int
    high_water: int
    txid: int
    checksum: int


def meta_fields(page: bytes) -> MetaFields:
    """The fields of a meta page; InvalidFileError where it is none."""
    if len(page) < META_END:
        raise InvalidFileError("the file is too short for a meta page")
    magic, *fields = _BODY.unpack_from(page, HEADER_SIZE)
    if magic != MAGIC:
        raise InvalidFileError("not a bolt file: wrong magic number")
    return MetaFields(*fields, *_CHECKSUM.unpack_from(page, HEADER_SIZE + _BODY.size))


def decode_meta(page: bytes) -> Meta:
    """The meta in a page's first bytes; InvalidFileError says what is wrong with it."""
    fields = meta_fields(page)
    if fields.version != VERSION:
        raise InvalidFileError(
            f"bolt file version {fields.version} is not supported, only {VERSION}"
        )
    if fields.checksum != fnv1a(page[HEADER_SIZE : HEADER_SIZE + _BODY.size]):
        raise InvalidFileError("a meta page's checksum is wrong")
    if not is_page_size(fields.page_size):
        raise InvalidFileError(f"a meta page names an impossible page size, {fields.page_size}")
    return Meta(
        fields.page_size,
        fields.root,
        fields.sequence,
        fields.freelist,
        fields.high_water,
        fields.txid,
    )


def is_page_size(size: int) -> bool:
    """Whether pages may have this size: a power of two, large enough for a meta."""
    return MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE and size & (size - 1) == 0


def read_metas(read: Callable[[int, int], bytes]) -> tuple[Meta | None, Meta | None]:
    """Both meta pages, None for one that is not valid; InvalidFileError where neither is.

    `read(size, offset)` reads from the file. Where page 0 is bad its size is unknown, so page 1
    is looked for at every size that there is.
    """
    try:
        first = decode_meta(read(META_END, 0))
    except InvalidFileError as problem:
        second = _find_second(read)
        if second is None:
            raise problem from None
        return None, second
    try:
        other = decode_meta(read(META_END, first.page_size))
    except InvalidFileError:
        return first, None
    return first, other if other.page_size == first.page_size else None


def _find_second(read: Callable[[int, int], bytes]) -> Meta | None:
    size = MIN_PAGE_SIZE
    while size <= MAX_PAGE_SIZE:
        try:
            meta = decode_meta(read(META_END, size))
        except InvalidFileError:
            pass
        else:
            if meta.page_size == size:
                return meta
        size <<= 1
    return None


def choose_meta(first: Meta | None, second: Meta | None) -> Meta:
    """The newer of the metas that are valid; one of them is."""
    metas = [meta for meta in (first, second) if meta is not None]
    return max(metas, key=lambda meta: meta.txid)


def new_file(page_size: int) -> bytes:
    """The four pages of an empty database."""
    metas = [Meta(page_size, 3, 0, 2, 4, txid).encode() for txid in (0, 1)]
    pages = [*metas, HEADER.pack(2, FREELIST, 0, 0), HEADER.pack(3, LEAF, 0, 0)]
    return b"".join(page.ljust(page_size, b"\0") for page in pages)
