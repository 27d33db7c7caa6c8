"""The engine: a file with a line of JSON for each transaction, read into memory when opened."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

from storebridge.driver import DriverError, ErrorKind
from storebridge.driver.sortedmap import Draft, SortedMap

HEADER = b'{"storebridge-toy":1}\n'
Changes = Mapping[bytes, bytes | None]


def open_file(path: Path, mode: int) -> int:
    """Open for writing; a new file has exactly this mode, and is in its folder for good."""
    new = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    if new:
        os.fchmod(fd, mode)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    return fd


def load(path: Path) -> tuple[SortedMap, int]:
    """What the transactions of a file come to, and its length up to the last whole one."""
    data = path.read_bytes()
    if not HEADER.startswith(data[: len(HEADER)]):
        raise DriverError(ErrorKind.FOREIGN, f"{path}: not a toy database")
    end = data.rfind(b"\n") + 1  # a line without an end is a transaction that never was
    draft = SortedMap().draft()
    for number, line in enumerate(data[:end].splitlines()[1:], start=2):
        try:
            _apply(json.loads(line), draft)
        except (ValueError, AttributeError) as error:
            raise DriverError(ErrorKind.CORRUPT, f"{path}: line {number}: {error}") from error
    return draft.frozen(), end


def _apply(changes: dict[str, str | None], draft: Draft) -> None:
    for key, value in changes.items():
        if value is None:
            draft.delete(_bytes(key))
        else:
            draft.put(_bytes(key), _bytes(value))


def append(fd: int, end: int, changes: Changes, sync: bool) -> int:
    """Add a transaction behind `end` and return the new end. If it raises, nothing was added."""
    texts = {_text(k): None if v is None else _text(v) for k, v in changes.items()}
    line = json.dumps(texts, separators=(",", ":")).encode() + b"\n"
    data = line if end else HEADER + line
    try:
        os.ftruncate(fd, end)
        if os.pwrite(fd, data, end) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sync:
            os.fsync(fd)
    except OSError as error:
        os.ftruncate(fd, end)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DriverError(ErrorKind.FULL if full else ErrorKind.OTHER, str(error)) from error
    return end + len(data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
