"""A file that several processes lock, read and replace.

The lock is aiotinydb's, `flock` on the file itself; but where aiotinydb writes into the file, here
a new file takes its name, and a lock on a file without a name excludes nobody. So whoever gets the
lock looks whether its file still has the name.

The storages of aiotinydb itself do not look: one that waits while the file is replaced would go on
to change a file that nobody sees again; and TinyDB's own, which keeps its file open, would do so
for the rest of its life. Therefore a file that somebody else has open for writing is written into,
as they do; and if one opens it at the very moment at which it is replaced, it gets its name back.
Then, and only then, other programs can find it half written, which is no JSON; here a complete
copy beside it, whose name ends in `-redo`, is read instead, and completes it after a kill.
"""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from storebridge.driver.lockfile import LockFile
from storebridge.errors import StoreLockedError
from storebridge_tinydb.atomicfile import sync_folder, write_beside
from storebridge_tinydb.inplace import is_marked, is_written_elsewhere, rewrite, spoil

LOCK_TIMEOUT = 30.0
"""Seconds. aiotinydb holds the lock for as long as a block of its users takes."""

LONGEST_POLL = 0.005
_FIRST_POLL = 0.000_2
_READS = 100
_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB


class SharedFile:
    """The file at `path`, whichever it is at the moment. Used by one thread at a time."""

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        # Absolute, as the file is opened again and again; but not resolved: links may change.
        self.path = Path(os.fsdecode(path)).absolute()
        self.closed: str | None = None
        """Why it can be used no more, once that is so."""
        self._locked: FileIO | None = None
        _all.add(self)

    def create(self, *, folders: bool) -> None:
        """Make the file, empty, and the folders that it lies in, where they are missing."""
        if folders:
            with suppress(FileExistsError):
                self.path.parent.mkdir(parents=True)
        with suppress(FileExistsError):
            # Not for writing: that would keep others from replacing it.
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(self._target(), flags, 0o666))

    def read(self) -> bytes:
        """All of it. Needs no lock: nobody here leaves it half written."""
        self._refuse_closed()
        content = self._read_once()
        for _ in range(_READS if self._locked is None else 0):
            # What was written into while it was read is marked now, or not what it was read as.
            again, content = content, self._read_once()
            if again == content:
                break
        return content

    def _read_once(self) -> bytes:
        content = b""
        for _ in range(_READS):
            content = self.path.read_bytes()
            if not is_marked(content):
                break
            with suppress(FileNotFoundError):  # just completed, so read that
                return self._beside("redo").read_bytes()
        return content

    def lock(self, timeout: float, give_up: threading.Event | None = None) -> None:
        """Wait until nobody else has the lock, unless `give_up` is set meanwhile (CancelledError).

        StoreLockedError, with the holder, if it cannot be had in `timeout` seconds.
        """
        self._refuse_closed()
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
        target, beside, spare = self._target(), self._beside("new"), self._beside("old")
        write_beside(target, content)
        try:
            new = FileIO(beside)
            fcntl.flock(new, _EXCLUSIVE)
            _link(target, spare)
            if not is_written_elsewhere(old) and self._rename(old, new):
                sync_folder(target.parent)
            else:
                os.replace(beside, self._beside("redo"))
                sync_folder(target.parent)
                self._write_into(content)
                if is_written_elsewhere(new):
                    spoil(new)
        finally:
            beside.unlink(missing_ok=True)
            spare.unlink(missing_ok=True)
            for file in (old, new):
                if file is not None and file is not self._locked:
                    _release(file)

    def close(self) -> None:
        """Unlock, and refuse any further use. Can be repeated."""
        self.unlock()
        self.closed = self.closed or "the storage is closed"

    def leave(self) -> None:
        """What a forked child does: the parent's lock is not its own, nor what is done under it."""
        if self._locked is not None:
            self._locked.close()
            self._locked = None
            self.closed = "locked before a fork; open it again in the child"

    def locked_by_other(self, timeout: float) -> Exception:
        """What to raise after waiting in vain."""
        holder = LockFile(self.path, 0).holder()
        who = {None: "another process", os.getpid(): "this process"}.get(
            holder, f"process {holder}"
        )
        return StoreLockedError(
            f"{self.path}: locked by {who}; waited {round(timeout, 2):g} s, try again later", holder
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
                self._complete()
                return True

    def _rename(self, old: FileIO, new: FileIO) -> bool:
        """Let the new file take the name. False if somebody has opened the old one meanwhile, which
        then has it again.
        """
        target, beside, spare = self._target(), self._beside("new"), self._beside("old")
        os.replace(beside, target)
        self._locked = new
        if not is_written_elsewhere(old):
            return True
        if not spare.exists():
            spoil(old)
            return True
        os.link(target, beside)
        os.replace(spare, target)
        self._locked = old
        return False

    def _write_into(self, content: bytes) -> None:
        try:
            rewrite(self._target(), content)
        finally:
            if not is_marked(self._target()):
                self._beside("redo").unlink()

    def _complete(self) -> None:
        """Do again what somebody did not come to the end of."""
        with suppress(FileNotFoundError):
            content = self._beside("redo").read_bytes()
            if is_marked(self._target()):
                rewrite(self._target(), content)
            self._beside("redo").unlink()

    def _target(self) -> Path:
        return Path(os.path.realpath(self.path))

    def _beside(self, purpose: str) -> Path:
        target = self._target()
        return target.with_name(f"{target.name}-{purpose}")

    def _refuse_closed(self) -> None:
        if self.closed is not None:
            raise ValueError(f"{self.path}: {self.closed}")

    def _has_name(self, file: FileIO) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.path), os.fstat(file.fileno()))
        return False


_all: weakref.WeakSet[SharedFile] = weakref.WeakSet()


def _leave_all() -> None:
    for file in list(_all):
        file.leave()


os.register_at_fork(after_in_child=_leave_all)


def _release(file: FileIO) -> None:
    # Closing alone leaves the lock to a child that was forked meanwhile.
    fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def _link(path: Path, spare: Path) -> None:
    """Give a file a second name. Some file systems have none; then it cannot be brought back."""
    spare.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(path, spare)
