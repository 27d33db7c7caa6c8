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
_alone: set[str] = set()
"""The folders that this process holds alone, by the one thread at a time that opens or replaces."""


@contextmanager
def while_opening(path: Path | None, timeout: float) -> Iterator[None]:
    """Nobody replaces what is at a path, or, after `timeout` seconds, is waited for."""
    folder = None if path is None else _folder(path)
    if folder is None or folder in _alone:
        yield
        return
    with _locked(folder, fcntl.LOCK_SH, timeout):
        yield


@contextmanager
def while_replacing(path: Path, timeout: float) -> Iterator[None]:
    """No other process opens, or replaces, what is at a path: StoreLockedError if one is at it for
    longer than `timeout` seconds."""
    folder = _folder(path)
    if folder in _alone:
        yield
        return
    with _locked(folder, fcntl.LOCK_EX, timeout) as is_locked:
        if not is_locked:
            raise StoreLockedError(f"{path}: another process is opening it: try again", None)
        _alone.add(folder)
        try:
            yield
        finally:
            _alone.discard(folder)


def _folder(path: Path) -> str:
    return os.path.dirname(os.path.realpath(path))


@contextmanager
def _locked(folder: str, how: int, timeout: float) -> Iterator[bool]:
    """False if others have the lock for too long; True also where there is none to have."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield True  # what cannot be opened is told by who opens what is in it
        return
    try:
        yield _wait(fd, how, time.monotonic() + timeout)
    finally:
        # A child that was forked meanwhile has the descriptor, too, and must not keep the lock.
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _wait(fd: int, how: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        except OSError:
            return True


def _forget() -> None:
    _alone.clear()


os.register_at_fork(after_in_child=_forget)
