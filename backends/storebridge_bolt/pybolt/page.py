"""How pages and their elements are laid out, and turning them into lists and back.

A page starts with a 16-byte header; a leaf or branch goes on with an array of fixed-size elements
and then all keys and values, packed in the elements' order. Decoding unpacks the whole array in
one call and checks that the data are packed exactly so: that finds a flipped bit in an element, and
costs no more than checking that each stays inside its page.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from operator import sub
from struct import Struct
from struct import error as StructError

from .errors import CorruptError

BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
TYPE_NAMES = {BRANCH: "branch", LEAF: "leaf", META: "meta", FREELIST: "freelist"}

HEADER = Struct("<QHHI")  # id, flags, count, overflow
HEADER_SIZE = 16
_PAGE_ID = Struct("<Q")  # first in a header, last in a branch's element
ELEMENT_SIZE = 16  # of leaf and branch elements alike
BUCKET = Struct("<QQ")  # root page, sequence
BUCKET_FLAG = 1

MAX_KEY_SIZE = 32_768
MAX_VALUE_SIZE = 2**31 - 2
MIN_PAGE_SIZE = 1 << 10
MAX_PAGE_SIZE = 1 << 24  # as far as Go looks for the second meta page
MAX_NEW_PAGE_SIZE = 1 << 16


class BucketValue(bytes):
    """A leaf value that is a nested bucket: its header and, where the root is 0, its inline page.

    The type is the element's bucket flag, so that lists of values need no list of flags beside.
    """

    __slots__ = ()


EMPTY_BUCKET = BucketValue(BUCKET.pack(0, 0) + HEADER.pack(0, LEAF, 0, 0))


@lru_cache(maxsize=4096)
def _leaf_elements(count: int) -> Struct:
    return Struct(f"<{4 * count}I")


@lru_cache(maxsize=4096)
def _branch_elements(count: int) -> Struct:
    return Struct("<" + "IIQ" * count)


def type_name(flags: int) -> str:
    """The name of a page's type, as Go prints it."""
    return TYPE_NAMES.get(flags, f"unknown<{flags:02x}>")


def decode_leaf(page: bytes, count: int) -> tuple[list[bytes], list[bytes], bool]:
    """A leaf's keys, values, and whether some are buckets, given its bytes from the header on."""
    element = HEADER_SIZE
    end = HEADER_SIZE + ELEMENT_SIZE * count
    try:
        fields = _leaf_elements(count).unpack_from(page, HEADER_SIZE)
    except StructError:
        raise CorruptError(f"a leaf of {len(page)} bytes cannot hold {count} elements") from None
    keys: list[bytes] = []
    values: list[bytes] = []
    add_key, add_value = keys.append, values.append
    for position, key_size, value_size in zip(
        fields[1::4], fields[2::4], fields[3::4], strict=True
    ):
        if element + position != end or not key_size:
            raise CorruptError("a leaf's elements do not match its data")
        middle = end + key_size
        add_key(page[end:middle])
        end = middle + value_size
        add_value(page[middle:end])
        element += ELEMENT_SIZE
    if end > len(page):
        raise CorruptError("a leaf's data reach beyond its page")
    nested = any(fields[::4])
    if nested:
        _mark_buckets(values, fields[::4])
    return keys, values, nested


def _mark_buckets(values: list[bytes], flags: tuple[int, ...]) -> None:
    for index, flag in enumerate(flags):
        if flag == BUCKET_FLAG:
            values[index] = BucketValue(values[index])
        elif flag:
            raise CorruptError(f"leaf element {index} has unknown flags {flag:#x}")


def decode_branch(page: bytes, count: int) -> tuple[list[bytes], list[int]]:
    """The keys and child pages of a branch, given its bytes from the header on."""
    if not count:
        raise CorruptError("a branch page has no children")
    element = HEADER_SIZE
    end = HEADER_SIZE + ELEMENT_SIZE * count
    try:
        fields = _branch_elements(count).unpack_from(page, HEADER_SIZE)
    except StructError:
        raise CorruptError(f"a branch of {len(page)} bytes cannot hold {count} elements") from None
    keys: list[bytes] = []
    for position, key_size in zip(fields[::3], fields[1::3], strict=True):
        if element + position != end or not key_size:
            raise CorruptError("a branch's elements do not match its data")
        keys.append(page[end : end + key_size])
        end += key_size
        element += ELEMENT_SIZE
    if end > len(page):
        raise CorruptError("a branch's data reach beyond its page")
    return keys, list(fields[2::3])


def leaf_size(keys: list[bytes], values: list[bytes]) -> int:
    """The bytes that a leaf of these takes, without padding."""
    return HEADER_SIZE + ELEMENT_SIZE * len(keys) + sum(map(len, keys)) + sum(map(len, values))


def branch_size(keys: list[bytes]) -> int:
    """The bytes that a branch of these takes, without padding."""
    return HEADER_SIZE + ELEMENT_SIZE * len(keys) + sum(map(len, keys))


def encode_leaf(page_id: int, keys: list[bytes], values: list[bytes], page_size: int) -> bytes:
    """A leaf's bytes, padded to whole pages; not padded where page_size is 1."""
    count = len(keys)
    parts = [b""] * (2 * count)
    parts[::2] = keys
    parts[1::2] = values
    sizes = list(map(len, parts))
    start = HEADER_SIZE + ELEMENT_SIZE * count
    starts = list(accumulate(sizes, initial=start))
    fields = [0] * (4 * count)
    fields[1::4] = map(sub, starts[:-1:2], range(HEADER_SIZE, start, ELEMENT_SIZE))
    fields[2::4] = sizes[::2]
    fields[3::4] = sizes[1::2]
    if BucketValue in set(map(type, values)):
        fields[::4] = [BUCKET_FLAG if type(value) is BucketValue else 0 for value in values]
    elements = _leaf_elements(count).pack(*fields)
    return _assemble(page_id, LEAF, count, elements, parts, starts[-1], page_size)


def encode_branch(page_id: int, keys: list[bytes], children: list[int], page_size: int) -> bytes:
    """A branch's bytes, padded to whole pages."""
    count = len(keys)
    sizes = list(map(len, keys))
    start = HEADER_SIZE + ELEMENT_SIZE * count
    starts = list(accumulate(sizes, initial=start))
    fields = [0] * (3 * count)
    fields[::3] = map(sub, starts, range(HEADER_SIZE, start, ELEMENT_SIZE))
    fields[1::3] = sizes
    fields[2::3] = children
    elements = _branch_elements(count).pack(*fields)
    return _assemble(page_id, BRANCH, count, elements, keys, starts[-1], page_size)


def patch_branch(content: bytes, page_id: int, children: list[tuple[int, int]]) -> bytes:
    """A branch's bytes under another id, with these children (index, page) replaced."""
    patched = bytearray(content)
    _PAGE_ID.pack_into(patched, 0, page_id)
    for index, child in children:
        _PAGE_ID.pack_into(patched, HEADER_SIZE + ELEMENT_SIZE * index + 8, child)
    return bytes(patched)


def _assemble(
    page_id: int,
    flags: int,
    count: int,
    elements: bytes,
    parts: list[bytes],
    size: int,
    page_size: int,
) -> bytes:
    overflow = 0 if page_size == 1 else (size - 1) // page_size
    header = HEADER.pack(page_id, flags, count, overflow)
    page = b"".join((header, elements, *parts))
    return page if page_size == 1 else page.ljust((overflow + 1) * page_size, b"\0")


def encode_inline(sequence: int, keys: list[bytes], values: list[bytes]) -> BucketValue:
    """The value of an inline bucket: header with root 0, then an unpadded leaf of id 0."""
    return BucketValue(BUCKET.pack(0, sequence) + encode_leaf(0, keys, values, 1))


def decode_inline(value: bytes) -> tuple[list[bytes], list[bytes]]:
    """The keys and values of an inline bucket's value."""
    try:
        page_id, flags, count, overflow = HEADER.unpack_from(value, BUCKET.size)
    except StructError:
        raise CorruptError("an inline bucket is too short for a page") from None
    if page_id or flags != LEAF or overflow:
        raise CorruptError("an inline bucket does not hold a leaf page")
    keys, values, _ = decode_leaf(value[BUCKET.size :], count)
    return keys, values


def bucket_header(value: bytes) -> tuple[int, int]:
    """The root page (0: inline) and the sequence of a bucket's value."""
    if len(value) < BUCKET.size:
        raise CorruptError("a bucket's value is too short for its header")
    root, sequence = BUCKET.unpack_from(value)
    return root, sequence
