"""What the Go command's `page` prints of one page, read from a file as it lies there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from .errors import CorruptError, InvalidFileError
from .freelist import freelist_ids
from .gotext import format_bytes, is_printable, quote
from .meta import META_END, is_page_size, meta_fields
from .page import (
    BRANCH,
    FREELIST,
    HEADER,
    LEAF,
    META,
    BucketValue,
    bucket_header,
    decode_branch,
    decode_leaf,
    type_name,
)


def read_file_facts(file: BinaryIO) -> tuple[int, int]:
    """The page size and high water that the first meta page tells, checksum or not."""
    file.seek(0)
    head = file.read(META_END)
    if len(head) < META_END:
        raise InvalidFileError("the file is too short for a meta page")
    fields = meta_fields(head)
    if not is_page_size(fields.page_size):
        raise InvalidFileError(f"a meta page names an impossible page size, {fields.page_size}")
    return fields.page_size, fields.high_water


def page_count(file: BinaryIO) -> int:
    """The pages to show of a file: all that are used, as far as they are there."""
    size, high_water = read_file_facts(file)
    return min(high_water, -(-os.fstat(file.fileno()).st_size // size))


def page_lines(file: BinaryIO, number: int, form: str) -> tuple[int, Iterator[bytes]]:
    """How many pages a page continues on, and the lines to print for it.

    Raises CorruptError for a page that is not itself, EOFError beyond the file's end.
    """
    size, high_water = read_file_facts(file)
    content = _read(file, number * size, size)
    found, flags, count, overflow = HEADER.unpack_from(content)
    if found != number:
        raise CorruptError(f"error: invalid value due to unexpected Page id: {found} != {number}")
    if overflow >= max(high_water - 3, 0):
        raise CorruptError(
            f"error: invalid value, Page claims to have {overflow} overflow pages"
            f" (>=hwm={high_water}). Interrupting to avoid risky OOM"
        )
    if overflow:
        content = _read(file, number * size, size * (overflow + 1))
    return overflow, _lines(content, flags, count, overflow, form)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    # What a damaged page asks for may be more than fits in memory.
    if offset + size > os.fstat(file.fileno()).st_size:
        raise EOFError("EOF")
    file.seek(offset)
    return file.read(size)


def _lines(content: bytes, flags: int, count: int, overflow: int, form: str) -> Iterator[bytes]:
    number = HEADER.unpack_from(content)[0]
    yield f"Page ID:    {number}".encode()
    yield f"Page Type:  {type_name(flags)}".encode()
    yield f"Total Size: {len(content)} bytes".encode()
    yield f"Overflow pages: {overflow}".encode()
    if flags == META:
        yield from _meta_lines(content)
    elif flags == LEAF:
        yield from _leaf_lines(content, count, form)
    elif flags == BRANCH:
        yield from _branch_lines(content, count)
    elif flags == FREELIST:
        yield from _freelist_lines(content, count, overflow)


def _meta_lines(content: bytes) -> Iterator[bytes]:
    meta = meta_fields(content)
    yield f"Version:    {meta.version}".encode()
    yield f"Page Size:  {meta.page_size} bytes".encode()
    yield f"Flags:      {meta.flags:08x}".encode()
    yield f"Root:       <pgid={meta.root}>".encode()
    yield f"Freelist:   <pgid={meta.freelist}>".encode()
    yield f"HWM:        <pgid={meta.high_water}>".encode()
    yield f"Txn ID:     {meta.txid}".encode()
    yield f"Checksum:   {meta.checksum:016x}".encode()
    yield b""


def _leaf_lines(content: bytes, count: int, form: str) -> Iterator[bytes]:
    yield f"Item Count: {count}".encode()
    yield b""
    keys, values, _ = decode_leaf(content, count)
    for key, value in zip(keys, values, strict=True):
        if type(value) is BucketValue:
            shown = "<pgid={},seq={}>".format(*bucket_header(value)).encode()
        else:
            shown = format_bytes(value, form)
        yield _key(key) + b": " + shown
    yield b""


def _branch_lines(content: bytes, count: int) -> Iterator[bytes]:
    yield f"Item Count: {count}".encode()
    yield b""
    for key, child in zip(*decode_branch(content, count), strict=True):
        yield _key(key) + f": <pgid={child}>".encode()
    yield b""


def _freelist_lines(content: bytes, count: int, overflow: int) -> Iterator[bytes]:
    ids = freelist_ids(content, count)
    yield f"Item Count: {len(ids)}".encode()
    yield f"Overflow: {overflow}".encode()
    yield b""
    for number in ids:
        yield str(number).encode()
    yield b""


def _key(key: bytes) -> bytes:
    return (quote(key) if is_printable(key) else key.hex()).encode()
