"""The Go command's subcommands: what they print, byte for byte, and how they exit.

Each function takes the file's path and its options, writes to the binary stream `out`, and returns
the exit code. What goes wrong is one line on `err`, also where the Go command panics; a
BrokenPipeError of `out` is passed on. A command line has only to parse arguments:

    sys.exit(render.check(path, sys.stdout.buffer, sys.stderr.buffer))

All of them open the file for reading, beside other readers.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from struct import Struct
from typing import BinaryIO, Concatenate, ParamSpec

from . import check as checking
from .bucket import Bucket
from .compact import compact as compact_file
from .db import DB
from .errors import BoltError, CorruptError
from .gotext import FORMATS, format_bytes, json_string, quote
from .render_page import page_count, page_lines
from .stats import BucketOutline, BucketStats, bucket_stats, list_pages, outline
from .tx import Tx

Options = ParamSpec("Options")
_Command = Callable[Concatenate[str, BinaryIO, BinaryIO, Options], int]

_FLOAT = Struct("<f")
_RULE = b"===============================================\n"

__all__ = [
    "FORMATS",
    "buckets",
    "check",
    "compact",
    "get",
    "info",
    "inspect",
    "keys",
    "page",
    "pages",
    "stats",
]


class _Failure(Exception):
    """The command's answer is an error of this text."""


def _command(function: _Command[Options]) -> _Command[Options]:
    """Check that the file is there, and turn what goes wrong into a line and an exit code."""

    @wraps(function)
    def run(
        path: str, out: BinaryIO, err: BinaryIO, /, *args: Options.args, **kwargs: Options.kwargs
    ) -> int:
        try:
            if not os.path.exists(path):
                raise _Failure(f"source database file {quote(os.fsencode(path))} doesn't exist")
            return function(path, out, err, *args, **kwargs)
        except BrokenPipeError:
            raise  # nobody reads on: there is nothing to say, as little as for the Go command
        except (_Failure, BoltError, OSError, ValueError) as problem:
            line = " ".join(str(problem).split())
            err.write(f"Error: {line}\n".encode(errors="surrogateescape"))
            return 1

    return run


def _open(path: str) -> DB:
    return DB(path, read_only=True)


@_command
def check(
    path: str, out: BinaryIO, err: BinaryIO, *, from_page: int = 0, strict: bool = False
) -> int:
    """`check`: OK, or what is wrong. `strict` finds more than the Go command does."""
    with _open(path) as db:
        count = 0
        for problem in checking.check(db, from_page=from_page, strict=strict):
            out.write(f"{problem}\n".encode())
            count += 1
    if count:
        out.write(f"{count} errors found\n".encode())
        raise _Failure("invalid value")
    out.write(b"OK\n")
    return 0


@_command
def buckets(path: str, out: BinaryIO, err: BinaryIO) -> int:
    """`buckets`: the names of the top buckets, as they are."""
    with _open(path) as db, db.view() as tx:
        for name in tx.buckets():
            out.write(name + b"\n")
    return 0


@_command
def keys(
    path: str, out: BinaryIO, err: BinaryIO, names: Sequence[bytes], *, form: str = "auto"
) -> int:
    """`keys`: the keys and bucket names in a bucket, in one of FORMATS."""
    with _open(path) as db, db.view() as tx:
        for key, _ in _bucket(tx, names).cursor():
            out.write(format_bytes(key, form) + b"\n")
    return 0


@_command
def get(
    path: str,
    out: BinaryIO,
    err: BinaryIO,
    names: Sequence[bytes],
    key: bytes,
    *,
    form: str = "auto",
    parse_form: str = "ascii-encoded",
) -> int:
    """`get`: a key's value, in one of FORMATS. `parse_form` hex: the key is given as such."""
    if parse_form == "hex":
        key = bytes.fromhex(key.decode())
    elif parse_form != "ascii-encoded":
        raise ValueError(f"parseBytes: unsupported format: {parse_form}")
    with _open(path) as db, db.view() as tx:
        value = _bucket(tx, names).get(key)
        if value is None:
            raise _Failure(f'Error key not found for key: {quote(key)} hex: "{key.hex()}"')
        out.write(format_bytes(value, form) + b"\n")
    return 0


def _bucket(tx: Tx, names: Sequence[bytes]) -> Bucket:
    if not names:
        raise _Failure("bucket is required")
    try:
        return tx.bucket(*names)
    except LookupError:
        raise _Failure("bucket not found") from None


@_command
def info(path: str, out: BinaryIO, err: BinaryIO) -> int:
    """`info`: the page size."""
    with _open(path) as db:
        out.write(f"Page Size: {db.page_size}\n".encode())
    return 0


@_command
def stats(path: str, out: BinaryIO, err: BinaryIO, prefix: bytes = b"") -> int:
    """`stats`: figures for all top buckets whose name begins with `prefix`."""
    total, count = BucketStats(), 0
    with _open(path) as db, db.view() as tx:
        for name in tx.buckets():
            if name.startswith(prefix):
                total.add(bucket_stats(tx.bucket(name)))
                count += 1
    for line in _stats_lines(total, count):
        out.write(line.encode() + b"\n")
    return 0


def _stats_lines(total: BucketStats, count: int) -> Iterator[str]:
    yield f"Aggregate statistics for {count} buckets"
    yield ""
    yield "Page count statistics"
    yield f"\tNumber of logical branch pages: {total.branch_pages}"
    yield f"\tNumber of physical branch overflow pages: {total.branch_overflow_pages}"
    yield f"\tNumber of logical leaf pages: {total.leaf_pages}"
    yield f"\tNumber of physical leaf overflow pages: {total.leaf_overflow_pages}"
    yield "Tree statistics"
    yield f"\tNumber of keys/value pairs: {total.key_count}"
    yield f"\tNumber of levels in B+tree: {total.depth}"
    yield "Page size utilization"
    yield f"\tBytes allocated for physical branch pages: {total.branch_bytes}"
    share = _percent(total.branch_bytes_used, total.branch_bytes)
    yield f"\tBytes actually used for branch data: {total.branch_bytes_used} ({share}%)"
    yield f"\tBytes allocated for physical leaf pages: {total.leaf_bytes}"
    share = _percent(total.leaf_bytes_used, total.leaf_bytes)
    yield f"\tBytes actually used for leaf data: {total.leaf_bytes_used} ({share}%)"
    yield "Bucket statistics"
    yield f"\tTotal number of buckets: {total.bucket_count}"
    share = _percent(total.inline_bucket_count, total.bucket_count)
    yield f"\tTotal number on inlined buckets: {total.inline_bucket_count} ({share}%)"
    share = _percent(total.inline_bytes_used, total.leaf_bytes_used)
    yield f"\tBytes used for inlined buckets: {total.inline_bytes_used} ({share}%)"


def _percent(part: int, whole: int) -> int:
    """Cut off, not rounded, after arithmetic in 32-bit floats."""
    return int(_f32(_f32(_f32(part) * 100.0) / _f32(whole))) if whole else 0


def _f32(number: float) -> float:
    return float(_FLOAT.unpack(_FLOAT.pack(number))[0])


@_command
def pages(path: str, out: BinaryIO, err: BinaryIO) -> int:
    """`pages`: a row for each page."""
    with _open(path) as db, db.view() as tx:
        out.write(b"ID       TYPE       ITEMS  OVRFLW\n")
        out.write(b"======== ========== ====== ======\n")
        for entry in list_pages(tx):
            used = entry.type != "free"
            items = str(entry.items) if used else ""
            overflow = str(entry.overflow) if entry.overflow else ""
            row = f"{entry.id:<8} {entry.type:<10} {items:<6} {overflow:<6}\n"
            out.write(row.encode())
    return 0


@_command
def page(
    path: str,
    out: BinaryIO,
    err: BinaryIO,
    numbers: Sequence[int] = (),
    *,
    every: bool = False,
    form: str = "auto",
) -> int:
    """`page`: what is on these pages, or on `every` page, used or not; values in one of FORMATS.

    It reads the file as it lies there, without a lock: it is for looking at damaged ones.
    """
    if every and numbers:
        raise _Failure("invalid args: either use '--all' or 'pageid...'")
    if not every and not numbers:
        raise _Failure("page id required")
    with open(path, "rb") as file:
        count = page_count(file)
        waiting = iter(numbers)
        number = 0 if every else next(waiting, None)
        first = True
        while number is not None and not (every and number >= count):
            if not first:
                out.write(_RULE)
            first = False
            overflow = _print_page(file, number, form, out)
            number = number + 1 + overflow if every else next(waiting, None)
    return 0


def _print_page(file: BinaryIO, number: int, form: str, out: BinaryIO) -> int:
    """Print a page; the pages that it continues on, as far as it could be read."""
    try:
        overflow, lines = page_lines(file, number, form)
        for line in lines:
            out.write(line + b"\n")
    except (CorruptError, EOFError) as problem:
        out.write(f"Prining page {number} failed: {problem}. Continuing...\n".encode())
        return 0
    return overflow


@_command
def compact(
    path: str, out: BinaryIO, err: BinaryIO, target: str, *, tx_max_size: int = 65536
) -> int:
    """`compact`: copy into a new file without free space, in pages of the system's size."""
    before = os.stat(path)
    with _open(path) as db:
        mode = before.st_mode & 0o777
        size = compact_file(db, target, tx_max_size=tx_max_size, mode=mode, page_size=mmap.PAGESIZE)
    gain = before.st_size / size
    out.write(f"{before.st_size} -> {size} bytes (gain={gain:.2f}x)\n".encode())
    return 0


@_command
def inspect(path: str, out: BinaryIO, err: BinaryIO) -> int:
    """`inspect`: the tree of buckets, as JSON."""
    with _open(path) as db, db.view() as tx:
        tree = outline(tx)
    out.write("\n".join(_outline_lines(tree, "", "")).encode() + b"\n")
    return 0


def _outline_lines(entry: BucketOutline, indent: str, end: str) -> Iterator[str]:
    yield indent + "{"
    yield f'{indent}    "name": {json_string(entry.name)},'
    comma = "," if entry.buckets else ""
    yield f'{indent}    "keyN": {entry.key_count}{comma}'
    if entry.buckets:
        yield f'{indent}    "buckets": ['
        for child in entry.buckets:
            last = child is entry.buckets[-1]
            yield from _outline_lines(child, indent + "        ", "" if last else ",")
        yield f"{indent}    ]"
    yield indent + "}" + end
