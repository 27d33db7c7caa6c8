"""Files that are compressed as their suffix says: .gz, .xz, .zst, else not."""

from __future__ import annotations

import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from storebridge.errors import BackendUnavailableError

_ZSTD_LEVEL = 3
_XZ_PRESET = 2
"""The default takes five times as long and saves a tenth."""
_GZIP_LEVEL = 6


class Format(NamedTuple):
    """How to write and read a compressed stream over a plain one, which stays open."""

    write: Callable[[BinaryIO], BinaryIO]
    read: Callable[[BinaryIO], BinaryIO]
    errors: tuple[type[Exception], ...]
    """What reading raises for data that is not, or not wholly, of the format."""


def format_of(path: Path) -> Format:
    """How a file of this name is compressed. BackendUnavailableError where what that needs is not
    installed."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return _GZIP
    if suffix == ".xz":
        return _XZ
    return _zstd() if suffix == ".zst" else PLAIN


@contextmanager
def writing(format: Format, file: BinaryIO) -> Iterator[BinaryIO]:
    """The stream to write to; at the end of the block all is in the file, and the file open."""
    stream = format.write(file)
    try:
        yield stream
    finally:
        if stream is not file:
            stream.close()
        file.flush()


def _write_gzip(file: BinaryIO) -> BinaryIO:
    # Without name and time: the same content makes the same file.
    stream = gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)
    return cast(BinaryIO, io.BufferedWriter(stream, 2**16))


def _read_gzip(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))


def _write_xz(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, lzma.LZMAFile(file, "wb", preset=_XZ_PRESET))


def _read_xz(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, lzma.LZMAFile(file, "rb"))


PLAIN = Format(lambda file: file, lambda file: file, ())
_GZIP = Format(_write_gzip, _read_gzip, (gzip.BadGzipFile, EOFError, zlib.error))
_XZ = Format(_write_xz, _read_xz, (lzma.LZMAError, EOFError))


def _zstd() -> Format:
    if sys.version_info >= (3, 14):
        return _zstd_of_python(import_module("compression.zstd"))
    try:
        return _zstd_of_package(import_module("zstandard"))
    except ImportError as error:
        raise BackendUnavailableError(
            "to read or write .zst: pip install 'storebridge[zstd]', or use .gz or .xz"
        ) from error


def _zstd_of_python(zstd: Any) -> Format:
    return Format(
        lambda file: zstd.ZstdFile(file, "wb", level=_ZSTD_LEVEL),
        lambda file: zstd.ZstdFile(file, "rb"),
        (zstd.ZstdError, EOFError),
    )


def _zstd_of_package(zstandard: Any) -> Format:
    return Format(
        lambda file: zstandard.ZstdCompressor(_ZSTD_LEVEL).stream_writer(file, closefd=False),
        lambda file: io.BufferedReader(
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
        ),
        (zstandard.ZstdError,),
    )
