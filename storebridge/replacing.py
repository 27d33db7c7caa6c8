"""Opening a database and putting another in its place exclude each other, across processes.

While one database takes the place of another there is a moment in which nothing is there, and one
in which who has it open is looked up. A process that opened it in between would make an empty one,
or write to the one that is put away. So who opens shares a lock on the folder for that moment, and
who replaces holds it alone. Nothing is left behind in the folder. Where the system has no such lock
(some network file systems), it is done without.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storebridge.errors import StoreLockedError

_POLL = 0.002
_alone: set[tuple[int, int]] = set()
"""The folders that this process holds alone, by the one thread at a time that opens or replaces."""


@contextmanager
def while_opening(path: Path | None, timeout: float) -> Iterator[None]:
    """Nobody replaces what is at a path, or, after `timeout` seconds, is waited for."""
    fd = None if path is None else _folder_of(path)
    if fd is None:
        yield
        return
    try:
        if not _alone or _identity(fd) not in _alone:
            _wait(fd, fcntl.LOCK_SH, timeout)
        yield
    finally:
        _leave(fd)


@contextmanager
def while_replacing(path: Path, timeout: float) -> Iterator[None]:
    """No other process opens, or replaces, what is at a path: StoreLockedError if one is at it for
    longer than `timeout` seconds."""
    fd = _folder_of(path)
    if fd is None:
        yield
        return
    try:
        if _identity(fd) in _alone:
            yield
            return
        if not _wait(fd, fcntl.LOCK_EX, timeout):
            raise StoreLockedError(f"{path}: another process is opening it: try again", None)
        _alone.add(_identity(fd))
        try:
            yield
        finally:
            _alone.discard(_identity(fd))
    finally:
        _leave(fd)


def _folder_of(path: Path) -> int | None:
    """The folder that a file is in, opened; None where it cannot be: who opens the file tells."""
    name = os.path.realpath(path) if os.path.islink(path) else path
    with suppress(OSError):
        return os.open(os.path.dirname(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return None


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _wait(fd: int, how: int, timeout: float) -> bool:
    """False if others have the lock for too long; True also where there is none to have."""
    deadline = 0.0
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            now = time.monotonic()
            deadline = deadline or now + timeout
            if now >= deadline:
                return False
            time.sleep(_POLL)
        except OSError:
            return True


def _leave(fd: int) -> None:
    # A child that was forked meanwhile has the descriptor, too, and must not keep the lock.
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _forget() -> None:
    _alone.clear()


os.register_at_fork(after_in_child=_forget)
