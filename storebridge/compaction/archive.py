"""An archive of what retention removes: compressed JSON lines, which `zcat` reads."""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from msgspec import Raw

from storebridge.canonical import encoder
from storebridge.compaction.hooks import Removal
from storebridge.errors import ConfigurationError, CorruptStoreError
from storebridge.events import Event

_HEAD = struct.Struct("<4sIBBH2sHQ")
"""A gzip member's header with one extra field, `SB`: the size of the member in bytes, by which the
next one is found without reading this one. Behind it comes a checksum of the header."""
_CHECK = struct.Struct("<H")
_HEAD_SIZE = _HEAD.size + _CHECK.size
_MAGIC = b"\x1f\x8b\x08\x06"
_TAIL = struct.Struct("<II")


class Archived(msgspec.Struct, frozen=True):
    """A record as it was when it was removed."""

    store: str
    id: str
    record: Raw
    """The body, as it was stored; `from_json(archived.record)` is its members."""
    history: tuple[Event, ...]


_decode = msgspec.json.Decoder(Archived).decode


class Archiver:
    """Appends what is about to be removed to a file, for
    `database.on_compact(archive=Archiver(path))`.

    What was given to it is on disk before it is removed from the database. A process that is killed
    in between has at worst archived a record that is still there, and that the next run archives
    again. The file is only readable by its owner; several processes may append to it.
    """

    def __init__(self, path: str | Path) -> None:
        """ConfigurationError when it is first used, if the file is something else."""
        self._path = Path(path)
        self._last: _Last | None = None

    def __call__(self, removals: Sequence[Removal]) -> None:
        lines = [encoder.encode(Archived(r.store, r.id, Raw(r.body), r.history)) for r in removals]
        member = _member(b"".join(line + b"\n" for line in lines))
        with open(self._path, "ab+", opener=_opener) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            last = self._last if self._last is not None and self._last.is_in(file) else None
            end = _end(file, self._path, 0 if last is None else last.begin)
            file.truncate(end)  # what a process that was killed wrote half
            file.write(member)
            file.flush()
            os.fsync(file.fileno())
            self._last = _Last(end, member[:_HEAD_SIZE], member[-_TAIL.size :])
        if last is None:
            # Perhaps new, and whoever made it was killed before its name was on disk.
            _sync_folder(self._path.parent)


class _Last(NamedTuple):
    """The member that was written last: where it is still there, nothing before it need be looked
    at. The file may have been cut short, or moved away and begun anew."""

    begin: int
    head: bytes
    tail: bytes

    def is_in(self, file: BinaryIO) -> bool:
        """Whether the member is in this file."""
        size = _size(self.head)
        assert size is not None
        file.seek(self.begin)
        head = file.read(_HEAD_SIZE)
        file.seek(self.begin + size - _TAIL.size)
        return (head, file.read(_TAIL.size)) == (self.head, self.tail)


def read_archive(path: str | Path) -> Iterator[Archived]:
    """What was archived, in the order in which it was. A record may come twice where a run was
    killed. CorruptStoreError for a file that is damaged, but for an end that was not written."""
    path = Path(path)
    with open(path, "rb") as file:
        end = _end(file, path, 0)
        file.seek(0)
        while file.tell() < end:
            begin = file.tell()
            size = _size(file.read(_HEAD_SIZE))
            assert size is not None
            text = _text(file.read(size - _HEAD_SIZE))
            if text is None:
                raise CorruptStoreError(f"{path}: damaged at byte {begin}")
            for line in text.splitlines():
                yield _decode(line)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _member(text: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(text) + packer.flush()
    size = _HEAD_SIZE + len(packed) + _TAIL.size
    head = _HEAD.pack(_MAGIC, 0, 0, 255, 12, b"SB", 8, size)
    check = _CHECK.pack(zlib.crc32(head) % 2**16)
    return head + check + packed + _TAIL.pack(zlib.crc32(text), len(text) % 2**32)


def _size(head: bytes) -> int | None:
    """How large the member is that begins so; None if it is none of ours."""
    if len(head) < _HEAD_SIZE:
        return None
    magic, _, _, _, _, name, _, size = _HEAD.unpack(head[: _HEAD.size])
    check = _CHECK.pack(zlib.crc32(head[: _HEAD.size]) % 2**16)
    is_ours = (magic, name, head[_HEAD.size :]) == (_MAGIC, b"SB", check)
    return int(size) if is_ours else None


def _text(packed: bytes) -> bytes | None:
    """What a member says; None if it is damaged."""
    try:
        text = zlib.decompress(packed[: -_TAIL.size], -zlib.MAX_WBITS)
    except zlib.error:
        return None
    whole = packed[-_TAIL.size :] == _TAIL.pack(zlib.crc32(text), len(text) % 2**32)
    return text if whole else None


def _end(file: BinaryIO, path: Path, begin: int) -> int:
    """Where the last whole member ends, looking from the beginning of one; what is behind it was
    not written to its end. ConfigurationError where something else is in the file."""
    length = os.fstat(file.fileno()).st_size
    while begin < length:
        file.seek(begin)
        head = file.read(_HEAD_SIZE)
        size = _size(head)
        if size is None:
            cut = len(head) < _HEAD_SIZE and head[:4] == _MAGIC[: len(head)]
            if any(head) and not cut:
                raise ConfigurationError(f"{path}: no archive of storebridge's, at byte {begin}")
            return begin
        file.seek(begin + size - _TAIL.size)
        # A disk that lost power may have noted the length, and not what is there.
        if begin + size > length or not any(file.read(_TAIL.size)):
            return begin
        begin += size
    return begin
