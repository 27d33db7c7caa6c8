"""The file below a database: its lock, reading, writing, syncing and mapping it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
import time
from pathlib import Path
from typing import ClassVar

from .errors import DatabaseTooLargeError, LockTimeoutError

_POLL_SECONDS = 0.05
_ADDRESS_LIMIT = None if sys.maxsize > 2**32 else 2**31 - 1


class DataFile:
    """An open and locked file. All changes to it go through `write`, `truncate` and the syncs."""

    # Tests put a smaller one here, to be a machine of 32 bits.
    address_limit: ClassVar[int | None] = _ADDRESS_LIMIT

    def __init__(self, path: str, *, read_only: bool, lock_timeout: float) -> None:
        self.path = path
        self.fd = _open_locked(path, read_only, lock_timeout)

    def size(self) -> int:
        """The file's size in bytes.

        Not by fstat: who asks for a file's times makes Linux note the next write's time finely,
        which dirties the inode and makes every sync dearer.
        """
        return os.lseek(self.fd, 0, os.SEEK_END)

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer at the end of the file."""
        return os.pread(self.fd, size, offset)

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        _write(self.fd, data, offset)

    def truncate(self, size: int) -> None:
        """Make the file this long."""
        os.ftruncate(self.fd, size)

    def sync_data(self) -> None:
        """Return once everything written is on disk."""
        os.fdatasync(self.fd)

    def sync(self) -> None:
        """Return once everything written and the file's size are on disk."""
        os.fsync(self.fd)

    def map(self) -> mmap.mmap:
        """The whole file, for reading; later writes below its present size show in it."""
        size = self.size()
        if self.address_limit is not None and size > self.address_limit:
            raise DatabaseTooLargeError(
                f"{self.path} has {size} bytes; this machine's address space maps at most"
                f" {self.address_limit}: compact it, or open it on a 64-bit system"
            )
        try:
            return mmap.mmap(self.fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        except OSError as problem:
            if problem.errno != errno.ENOMEM:
                raise
            raise DatabaseTooLargeError(f"no room to map the {size} bytes of {self.path}") from None

    def close(self, *, unlock: bool = True) -> None:
        """Give up the lock and the file.

        A forked child has the parent's lock, not one like it: it must not unlock.
        """
        if unlock:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


def _open_locked(path: str, read_only: bool, timeout: float) -> int:
    """A descriptor of the file that the path names, once nobody else's lock is in the way."""
    flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
    kind = fcntl.LOCK_SH if read_only else fcntl.LOCK_EX
    deadline = time.monotonic() + timeout
    while True:
        fd = os.open(path, flags)
        try:
            _lock(fd, kind, path, timeout, deadline)
            # Whoever held the lock may have put another file in this one's place meanwhile.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, kind: int, path: str, timeout: float, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LockTimeoutError(path, timeout, lock_holder(fd)) from None
            time.sleep(min(_POLL_SECONDS, left))
        else:
            return


def lock_holder(fd: int) -> int | None:
    """The process that holds a lock on the file, as far as the system tells."""
    status = os.fstat(fd)
    name = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        # "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF"; a waiter has "->" before its kind.
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == name:
            pid = int(fields[4])
            return pid if pid > 0 else None
    return None


def _write(fd: int, data: bytes, offset: int) -> None:
    """Write all of it: on a disk that is nearly full the system at first writes only a part."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)


def create_file(path: str, content: bytes, mode: int) -> None:
    """Make a file of this content appear at once and durably; leave one that exists alone."""
    folder = os.path.dirname(path) or "."
    fresh = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}.{time.time_ns()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(fd, mode)  # exactly this, whatever the umask
            _write(fd, content, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        place_file(fresh, path)
    finally:
        if os.path.exists(fresh):
            os.unlink(fresh)


def place_file(fresh: str, path: str) -> None:
    """Give a finished file its name, durably, unless the name is taken."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not os.path.exists(path):
            os.rename(fresh, path)
    sync_folder(os.path.dirname(path) or ".")


def sync_folder(folder: str) -> None:
    """Return once the names in a folder are on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
