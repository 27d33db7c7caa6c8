"""The journal beside a TinyDB file: what was committed since the file was last written.

Lines of JSON. The first says what the file was, which the others are changes of:

    {"sum":"5f3a09c1","journal":1,"database":"9c…","commit":6,"durability":"full","base":{…}}
    {"sum":"03b8d1f0","commit":7,"synced":6,"tables":{"job":{"17":{"id":"j-17",…},"4":null}}}

`sum` is the CRC-32 of what follows it, so that a line of which a power cut has left a part is
known. A journal belongs to one opening of the database: the next one that finds it writes the file
anew before it begins its own, so nothing is ever put behind what is of doubt.
"""

from __future__ import annotations

import os
import stat
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from storebridge.driver import DriverError, Durability, ErrorKind
from storebridge_tinydb.atomicfile import give_like, sync_folder

VERSION = 1
_SYNC_SECONDS = 1.0
"""With `relaxed`, the longest time for which a commit in a row of commits is not synced."""
_REST = len('{"sum":"01234567",')

_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class BaseMark(msgspec.Struct):
    """Which content of the file a journal is about."""

    size: int
    mtime_ns: int
    sha256: str


class Header(msgspec.Struct):
    """The first line, without its sum."""

    journal: int
    database: str
    """Of which database: drawn when it was made."""
    commit: int
    """The last commit that is in the file."""
    durability: Durability
    base: BaseMark


class Line(msgspec.Struct):
    """A commit, without its sum."""

    commit: int
    synced: int
    """The last commit that was on disk for certain when this one was written."""
    tables: dict[str, dict[str, Raw]]
    """By table and document id: the document as it is from now on, null where it is no more."""


class Found(NamedTuple):
    """A journal that was found on disk."""

    header: Header
    lines: list[Line]

    @property
    def last(self) -> int:
        """The number of the last commit in it."""
        return self.lines[-1].commit


def path_beside(path: Path) -> Path:
    """Where the journal of a file is."""
    return path.with_name(path.name + "-journal")


def read(path: Path, *, sync: bool = False) -> Found | None:
    """The journal at a path; None if there is none with a commit in it. `sync`: what is in it is
    on disk afterwards, whoever wrote it.

    DriverError of kind CORRUPT for damage that no power cut does, of kind CONFIGURATION for a
    journal of a later version.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        data = file.read()
        if sync:
            os.fsync(fd)
    if sync:
        sync_folder(path.parent)
    return _parse(path, data)


def _parse(path: Path, data: bytes) -> Found | None:
    first, *rest = data.split(b"\n")
    if not any(rest):  # it was being made
        return None
    header = _checked(first, 0, Header)
    if header is None:
        raise _damaged(path, 1)
    if header.journal != VERSION:
        raise DriverError(
            ErrorKind.CONFIGURATION, f"{path}: written by a newer storebridge: upgrade storebridge"
        )
    lines: list[Line] = []
    seed = zlib.crc32(first)
    for number, text in enumerate(rest):
        line = _checked(text, seed, Line)
        if line is None or line.commit != header.commit + number + 1:
            if _was_on_disk(header, rest[number:], header.commit + number + 1, seed):
                raise _damaged(path, number + 2)
            break
        lines.append(line)
    return Found(header, lines) if lines else None


def _was_on_disk(header: Header, rest: list[bytes], commit: int, seed: int) -> bool:
    """Whether the first of these lines, which is damaged, had been synced when it was whole."""
    behind = [text for text in rest[1:] if text]
    if header.durability == "full":
        return bool(behind)
    lines = (_checked(text, seed, Line) for text in behind)
    return any(line is not None and line.synced >= commit for line in lines)


def _checked(text: bytes, seed: int, kind: type[T]) -> T | None:
    """A line, if it is as it was written."""
    rest = text[_REST:]
    if text != _summed(rest, seed):
        return None
    try:
        return msgspec.json.decode(b"{" + rest, type=kind)
    except ValueError:
        return None


def _summed(rest: bytes, seed: int) -> bytes:
    return b'{"sum":"%08x",' % zlib.crc32(rest, seed) + rest


def _damaged(path: Path, line: int) -> DriverError:
    return DriverError(
        ErrorKind.CORRUPT,
        f"{path}: line {line} is damaged, and it is not the last: restore a backup of it and of the"
        " file beside it, or move it away to go on without what was committed since it began",
    )


class Journal:
    """A new journal, being written. What `append` has returned from is in it.

    OSError if the system refuses; then nothing of the line is in it.
    """

    def __init__(self, path: Path, header: Header, like: os.stat_result) -> None:
        """Make it, with the owner and the permissions of the file that it is about."""
        self.path = path
        self.header = header
        self.commit = self._synced = header.commit
        self.trusted = True
        """False once a sync has failed: what the disk has of it is not known any more."""
        self._sync_at = time.monotonic() + _SYNC_SECONDS
        self._tail = False
        path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        try:
            give_like(self._fd, like)
            os.fchmod(self._fd, stat.S_IMODE(like.st_mode))
            first = _summed(_encode(header)[1:], 0)
            self._seed = zlib.crc32(first)
            self.size = self._write(first, 0)
            if header.durability != "off":
                os.fsync(self._fd)
                sync_folder(path.parent)
        except BaseException:
            self.remove()
            raise

    def append(self, commit: int, tables: Mapping[str, Mapping[str, bytes]]) -> None:
        """Add a commit."""
        self._cut()
        durability = self.header.durability
        synced = commit - 1 if durability == "full" else self._synced
        line = _summed(_encode(Line(commit, synced, _raw(tables)))[1:], self._seed)
        self._tail = True
        try:
            size = self._write(line, self.size)
            if durability == "full" or (durability == "relaxed" and self._is_sync_due()):
                self._sync(commit)
        except BaseException:
            with suppress(OSError):
                self._cut()
            raise
        # From here on it is committed.
        self.size, self.commit, self._tail = size, commit, False

    def _cut(self) -> None:
        """Take off what an append that failed has left."""
        if self._tail:
            os.ftruncate(self._fd, self.size)
            self._tail = False

    def remove(self) -> None:
        """Close it and take it away."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close it. Can be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, line: bytes, offset: int) -> int:
        """Where it ends. On a disk that is nearly full the system at first writes only a part."""
        rest = memoryview(line + b"\n")
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            rest, offset = rest[written:], offset + written
        return offset

    def _is_sync_due(self) -> bool:
        return time.monotonic() >= self._sync_at

    def _sync(self, commit: int) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError:
            # The system may have forgotten what it could not write: asking again proves nothing.
            self.trusted = False
            raise
        self._synced = commit
        self._sync_at = time.monotonic() + _SYNC_SECONDS


def _raw(tables: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, Raw]]:
    return {
        name: {number: Raw(text) for number, text in texts.items()}
        for name, texts in tables.items()
    }
