"""The lock that writers of one database take in turns: `flock` on a file at the database's side.

An engine's own lock knows no fairness and no holder. SQLite's busy timeout sleeps for so long that
one of eight processes starves; bolt's lock waits without end. This one is polled at random, short
intervals, gives up after a timeout, and tells who holds it.

Polling alone is not fair: a process that commits in a loop leaves the lock free for some
microseconds between holding it for milliseconds, and a poll seldom falls there. So whoever waits
says so by a shared lock on a second file, and whoever releases looks there now and then and, if it
comes back at once, waits a turn like the others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from storebridge.driver.contract import DriverError, ErrorKind

_FIRST_SLEEP = 0.000_2
_LONGEST_SLEEP = 0.005
_LOOK_INTERVAL = 0.002
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class LockFile:
    """A lock between processes (and between two objects of one process) on the file `path`.

    The file is made by the first `acquire`, with the permissions `mode` whatever the umask, and
    never removed: a lock on a removed file excludes nobody. The first one who must wait makes
    another, whose name ends in `-wait`, in the same way. Made by root, it is given to the owner
    of `beside`, so that root does not lock the owner out. The system releases the lock when the
    process ends, however it ends. A child after `fork` does not hold it, and cannot release it.

    Used by one thread at a time.
    """

    def __init__(self, path: Path, mode: int, *, beside: Path | None = None) -> None:
        self._path = path
        self._mode = mode
        self._beside = beside
        self._fd: int | None = None
        self._waiting_room = path.with_name(path.name + "-wait")
        self._waiting_fd: int | None = None
        self._next_look = 0.0
        self._give_way_until = 0.0

    def acquire(self, timeout: float, *, shared: bool = False) -> None:
        """Take the lock, alone or together with others that share it.

        DriverError of kind LOCKED, with the holder, if it cannot be had in `timeout` seconds; of
        kind READ_ONLY if the file cannot be made or opened for want of permission.
        """
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        while True:
            fd = self._fd if self._fd is not None else self._open()
            try:
                if timeout and time.monotonic() < self._give_way_until:
                    raise BlockingIOError
                fcntl.flock(fd, how)
            except BlockingIOError:
                self._wait(fd, how, timeout)
            self._give_way_until = 0.0
            if os.fstat(fd).st_nlink:
                return
            self.close()  # someone removed the file: others lock its successor

    def release(self) -> None:
        """Give the lock back. Nothing happens if it is not held."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            now = time.monotonic()
            if now > self._next_look:
                self._next_look = now + _LOOK_INTERVAL
                if self._others_wait():
                    self._give_way_until = now + _LONGEST_SLEEP

    def holder(self) -> int | None:
        """The id of a process that holds the lock, another one than this where there are several.

        None if nobody holds it or the system does not tell. Makes no file.
        """
        own = os.getpid()
        found = None
        for pid in holders(self._path):
            found = pid
            if pid != own:
                break
        return found

    def close(self) -> None:
        """Release the lock and the file. The object can be used again."""
        for fd in (self._fd, self._waiting_fd):
            if fd is not None:
                os.close(fd)
        self._fd = self._waiting_fd = None

    def _open(self) -> int:
        self._fd = self._open_or_create(self._path)
        _opened.add(self)
        return self._fd

    def _open_or_create(self, path: Path) -> int:
        try:
            while True:
                with suppress(FileNotFoundError):
                    return os.open(path, _FLAGS)
                with suppress(FileExistsError):
                    return self._create(path)
        except OSError as error:
            raise _refused(path, error) from error

    def _create(self, path: Path) -> int:
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, self._mode)
        os.fchmod(fd, self._mode)
        if self._beside is not None and os.geteuid() == 0:
            owner = os.stat(self._beside)
            os.fchown(fd, owner.st_uid, owner.st_gid)
        return fd

    def _wait(self, fd: int, how: int, timeout: float) -> None:
        if self._waiting_fd is None:
            self._waiting_fd = self._open_or_create(self._waiting_room)
        with suppress(BlockingIOError):  # someone is looking at this very moment
            fcntl.flock(self._waiting_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        try:
            self._poll(fd, how, timeout)
        finally:
            fcntl.flock(self._waiting_fd, fcntl.LOCK_UN)

    def _poll(self, fd: int, how: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        longest = _LONGEST_SLEEP if self._give_way_until else _FIRST_SLEEP
        while (left := deadline - time.monotonic()) > 0:
            # Random, so that no two processes stay in step; soon of up to 5 ms, so that whoever
            # has waited for long gets as many tries as whoever has just come.
            time.sleep(min(left, random.uniform(0, longest)))
            longest = min(longest * 2, _LONGEST_SLEEP)
            with suppress(BlockingIOError):
                fcntl.flock(fd, how)
                return
        raise self._locked(timeout)

    def _others_wait(self) -> bool:
        if self._waiting_fd is None:
            try:
                self._waiting_fd = os.open(self._waiting_room, _FLAGS)
            except OSError:  # nobody ever waited
                return False
        try:
            fcntl.flock(self._waiting_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._waiting_fd, fcntl.LOCK_UN)
        return False

    def _locked(self, timeout: float) -> DriverError:
        holder = self.holder()
        who = "another process" if holder is None else f"process {holder}"
        message = f"{self._path}: locked by {who}; waited {timeout:g} s, try again later"
        return DriverError(ErrorKind.LOCKED, message, holder=holder)


_opened: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked child shares its parent's lock: it could release it, and would hold it for as long
    as it lives, even when the parent is dead. Closing the child's descriptor does neither.
    """
    for lock in list(_opened):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)


def holders(path: Path) -> Iterator[int]:
    """The processes with an flock on a file, from lines of /proc/locks such as
    `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1835 0 EOF`; one that waits has `->` behind its number.
    A process outside of our pid namespace is 0.
    """
    try:
        file = os.stat(path)
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.split() for line in locks]
    except OSError:
        return
    wanted = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for words in lines:
        if words[1] == "FLOCK" and words[5] == wanted and words[4] != "0":
            yield int(words[4])


def _refused(path: Path, error: OSError) -> DriverError:
    if error.errno in _NO_PERMISSION:
        return DriverError(
            ErrorKind.READ_ONLY,
            f"{path}: no permission to write; open read-only, or as the user who owns the database",
        )
    if error.errno in _NO_SPACE:
        return DriverError(ErrorKind.FULL, f"{path}: no space left on the device")
    return DriverError(ErrorKind.CONFIGURATION, f"{path}: {error.strerror}")
