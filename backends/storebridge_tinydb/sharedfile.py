"""A file that several processes lock, read and replace.

The lock is aiotinydb's, `flock` on the file itself; but where aiotinydb writes into the file, here
a new file takes its name, and a lock on a file without a name excludes nobody. So whoever gets the
lock looks whether its file still has the name. The storages of aiotinydb itself do not look: one
that waits while the file is replaced would go on to change a file that nobody sees again; and
TinyDB's own, which keeps its file open, would do so for the rest of its life. Therefore, if the old
file is open for writing elsewhere when it has lost its name, it gets the new content, and its name
back.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from storebridge.driver.lockfile import LockFile
from storebridge.errors import StoreLockedError
from storebridge_tinydb.atomicfile import sync_folder, write_beside

LOCK_TIMEOUT = 30.0
"""Seconds. aiotinydb holds the lock for as long as a block of its users takes."""

LONGEST_POLL = 0.005
_FIRST_POLL = 0.000_2
_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
_SPOILED = b"This file was replaced while its lock was waited for. Open it again.\n"


class SharedFile:
    """The file at `path`, whichever it is at the moment. Used by one thread at a time."""

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        # Absolute, as the file is opened again and again; but not resolved: links may change.
        self.path = Path(os.fsdecode(path)).absolute()
        self.closed = False
        self._locked: FileIO | None = None

    def read(self) -> bytes:
        """All of it. Needs no lock: no one here leaves it half written."""
        if self.closed:
            raise ValueError(f"{self.path}: the storage is closed")
        return self.path.read_bytes()

    def lock(self, timeout: float, give_up: threading.Event | None = None) -> None:
        """Wait until nobody else has the lock, unless `give_up` is set meanwhile (CancelledError).

        StoreLockedError, with the holder, if it cannot be had in `timeout` seconds.
        """
        if self.closed:
            raise ValueError(f"{self.path}: the storage is closed")
        give_up = give_up or threading.Event()
        deadline = time.monotonic() + timeout
        longest = _FIRST_POLL
        try:
            while not self._try_lock():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self.locked_by_other(timeout)
                # Random, so that no two processes stay in step.
                if give_up.wait(min(left, random.uniform(0, longest))):
                    raise CancelledError
                longest = min(longest * 2, LONGEST_POLL)
        except BaseException:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Give the lock back. Nothing happens if it is not held."""
        if self._locked is not None:
            _release(self._locked)
            self._locked = None

    @contextmanager
    def lock_held(self, timeout: float) -> Iterator[None]:
        """Have the lock for the block; it stays as it was if it is held already."""
        if self._locked is not None:
            yield
            return
        self.lock(timeout)
        try:
            yield
        finally:
            self.unlock()

    def replace(self, content: bytes) -> None:
        """Let the file hold `content`, durably, or, on failure, what it held. The lock is held, and
        is still held afterwards.
        """
        old, new = self._locked, None
        if old is None:
            raise ValueError(f"{self.path}: only whoever has the lock replaces the file")
        target = Path(os.path.realpath(self.path))
        beside = write_beside(target, content)
        spare = target.with_name(target.name + "-old")
        try:
            new = FileIO(beside)
            fcntl.flock(new, _EXCLUSIVE)
            _link(target, spare)
            os.replace(beside, target)
            self._locked = new
            sync_folder(target.parent)
            if _is_written_elsewhere(old):
                nameless = old
                if _bring_back(spare, target, content):
                    self._locked, nameless = old, new
                if _is_written_elsewhere(nameless):
                    _spoil(nameless)
        finally:
            beside.unlink(missing_ok=True)
            spare.unlink(missing_ok=True)
            for file in (old, new):
                if file is not None and file is not self._locked:
                    _release(file)

    def close(self) -> None:
        """Unlock, and refuse any further use. Can be repeated."""
        self.unlock()
        self.closed = True

    def locked_by_other(self, timeout: float) -> StoreLockedError:
        """What to raise after waiting in vain."""
        holder = LockFile(self.path, 0).holder()
        who = {None: "another process", os.getpid(): "this process"}.get(
            holder, f"process {holder}"
        )
        return StoreLockedError(
            f"{self.path}: locked by {who}; waited {timeout:g} s, try again later", holder
        )

    def _try_lock(self) -> bool:
        while True:
            if self._locked is not None and not self._has_name(self._locked):
                self.unlock()
            if self._locked is None:
                self._locked = FileIO(self.path)
            try:
                fcntl.flock(self._locked, _EXCLUSIVE)
            except BlockingIOError:
                return False
            if self._has_name(self._locked):
                return True

    def _has_name(self, file: FileIO) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.path), os.fstat(file.fileno()))
        return False


def _release(file: FileIO) -> None:
    # Closing alone leaves the lock to a child that was forked meanwhile.
    fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def _link(path: Path, spare: Path) -> None:
    """Give a file a second name. Some file systems have none; then it cannot be brought back."""
    spare.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(path, spare)


def _is_written_elsewhere(file: FileIO) -> bool:
    """Whether somebody has this file, which has lost its name, open for writing.

    The system permits a read lease only where nobody does. False where it does not tell: it tells
    a file's owner and root, on Linux.
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # harmless, where SIGIO would kill
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _bring_back(spare: Path, path: Path, content: bytes) -> bool:
    """Write `content`, which `path` holds, into the file that had the name, and give it back.

    At every moment the name is one of a whole file. False if there is no room, or no second name:
    then all stays as it is.
    """
    try:
        with open(spare, "r+b") as file:
            file.write(content)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    os.replace(spare, path)
    sync_folder(path.parent)
    return True


def _spoil(file: FileIO) -> None:
    """Let whoever waits for the lock of a file without a name fail, rather than change it."""
    with open(f"/proc/self/fd/{file.fileno()}", "r+b") as spoiled:
        spoiled.write(_SPOILED)
        spoiled.truncate()
