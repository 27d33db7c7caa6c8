"""What lies at a location: nothing, an empty file, a database of ours, or something else.

Decided from the file's bytes alone, before SQLite touches it: opening a file with SQLite can change
it and leave files beside it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NoReturn

from storebridge.driver import DriverError, ErrorKind, Options
from storebridge_sqlite.schema import APPLICATION_ID

MAGIC = b"SQLite format 3\0"
_HEADER = 100
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def prepare(path: Path, options: Options) -> None:
    """See that there is a file that can be opened as asked: ours, or empty and then new."""
    try:
        _prepare(path, options)
    except PermissionError as error:
        raise _configuration(
            path, "no permission; open it as the user who owns it, or change its mode"
        ) from error
    except OSError as error:
        raise _configuration(path, error.strerror or str(error)) from error


def is_marked(head: bytes) -> bool:
    """Whether the first bytes of a file bear our mark."""
    return head.startswith(MAGIC) and _integer(head, 68) == APPLICATION_ID


def _prepare(path: Path, options: Options) -> None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if options.read_only or not options.create:
            raise _configuration(path, "there is no database") from None
        _create(path, options)
        return
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise _configuration(path, f"is {what}; a SQLite database is a file")
    writes = not options.read_only
    _examine(path, "r+b" if writes else "rb")
    if writes and not os.access(path.parent, os.W_OK | os.X_OK):
        raise _configuration(
            path, "no permission to make files beside it; open it read-only, or change the folder"
        )


def _create(path: Path, options: Options) -> None:
    if not path.parent.is_dir():
        raise _configuration(path, f"the folder {path.parent} does not exist; make it first")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, options.mode)
    except FileExistsError:  # someone else was quicker
        _prepare(path, options)
        return
    try:
        os.fchmod(fd, options.mode)
    finally:
        os.close(fd)
    if options.durability == "full":
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _examine(path: Path, mode: str) -> None:
    head, size = _look(path, mode)
    if not head or _is_half_made(path):
        return
    if len(head) < _HEADER and MAGIC.startswith(head[: len(MAGIC)]):
        raise DriverError(ErrorKind.CORRUPT, f"{path}: cut off within its first {_HEADER} bytes")
    if not head.startswith(MAGIC):
        _refuse(path, "not a SQLite database")
    if not is_marked(head):
        _refuse(path, "a SQLite database, but not one of storebridge")
    while _is_cut_off(path, head, size):
        before = head, size
        head, size = _look(path, mode)
        if (head, size) == before:  # else somebody is just writing to it
            raise DriverError(
                ErrorKind.CORRUPT,
                f"{path}: cut off, {size} of {_expected_size(head)} bytes are there; restore it"
                " from a backup",
            )


def _look(path: Path, mode: str) -> tuple[bytes, int]:
    """The first bytes of a file, and its size not earlier than they were read."""
    with open(path, mode, buffering=0) as file:
        head = file.read(_HEADER)
        return head, os.stat(file.fileno()).st_size


def _is_half_made(path: Path) -> bool:
    """Whether a process was killed while it made the database: its lock file is there, and a
    rollback journal that says that the file had been empty. SQLite empties it again.
    """
    if not path.with_name(path.name + "-lock").exists():
        return False
    try:
        with open(path.with_name(path.name + "-journal"), "rb") as file:
            journal = file.read(28)
    except FileNotFoundError:
        return False
    return journal.startswith(_JOURNAL_MAGIC) and _integer(journal, 16) == 0


def _is_cut_off(path: Path, head: bytes, size: int) -> bool:
    """A file shorter than its header says was cut off, unless its write-ahead log has the rest."""
    if size >= _expected_size(head):
        return False
    log = path.with_name(path.name + "-wal")
    return not (log.exists() and log.stat().st_size)


def _expected_size(head: bytes) -> int:
    page = int.from_bytes(head[16:18], "big")
    return (65536 if page == 1 else page) * _integer(head, 28)


def _integer(head: bytes, offset: int) -> int:
    return int.from_bytes(head[offset : offset + 4], "big")


def _refuse(path: Path, what: str) -> NoReturn:
    raise DriverError(ErrorKind.FOREIGN, f"{path}: {what}; choose another location")


def _configuration(path: Path, what: str) -> DriverError:
    return DriverError(ErrorKind.CONFIGURATION, f"{path}: {what}")
