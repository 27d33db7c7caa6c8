"""Who may do what in an environment's folder, and files that never lock its owner out."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.lockfile import LockFile
from storebridge_lmdb.header import DATA, FRESH, LOCK

SIDE_FILE = "storebridge.lock"
OURS = {DATA, LOCK, FRESH, SIDE_FILE, SIDE_FILE + "-wait"}
_LOCK_SIZE = 64 * 1024
"""Room for about a thousand readers: LMDB takes what the file has."""
_POLL = 0.002


def may(path: Path, mode: int) -> bool:
    """Whether this process may do this (`os.R_OK`, `os.W_OK`) with a path."""
    return os.access(path, mode, effective_ids=True)


def make_folder(path: Path, mode: int) -> None:
    """A folder that whoever may read the files in it may enter."""
    path.mkdir()
    path.chmod(mode | (mode & 0o444) >> 2)


def set_modes(path: Path, mode: int) -> None:
    """Give new files the mode that the umask took from them."""
    for name in (DATA, LOCK):
        (path / name).chmod(mode)


def make_data(path: Path, mode: int) -> None:
    """Make an empty data file, if there is none, which LMDB will fill: so that there is something
    to be present at from the beginning.
    """
    with suppress(FileExistsError):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(path / DATA, flags, mode))


def can_register(path: Path) -> bool:
    """Whether a reader can enter itself in the reader table; it makes lock.mdb if it may.

    Only the owner of the data, or root in the owner's name, makes it: the owner could not write
    what another user has made.
    """
    lock = path / LOCK
    owner = (path / DATA).stat()
    if not lock.exists():
        if os.geteuid() not in (0, owner.st_uid) or not may(path, os.W_OK):
            return False
        make_lock(path, stat.S_IMODE(owner.st_mode) & 0o666, owner)
    return may(lock, os.R_OK | os.W_OK)


def make_lock(path: Path, mode: int, owner: os.stat_result | None = None) -> None:
    """Make lock.mdb, if it is not there, with all its blocks: LMDB maps and writes it, and to write
    a block that a full disk cannot give would be a SIGBUS.
    """
    with suppress(FileExistsError):
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            os.fchmod(fd, mode)
            if owner is not None and os.geteuid() == 0:
                os.fchown(fd, owner.st_uid, owner.st_gid)
            os.posix_fallocate(fd, 0, _LOCK_SIZE)
        except OSError:
            (path / LOCK).unlink()
            raise
        finally:
            os.close(fd)


class Guard:
    """Keeps writers of storebridge out while someone reads who cannot register as a reader.

    It shares the lock that writers hold alone, for which reading permission is enough, and makes
    no file: where there is none, no writer has the database open.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SIDE_FILE

    def acquire(self, timeout: float) -> int | None:
        """A token to `release`. DriverError of kind LOCKED after `timeout` seconds."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            return None
        try:
            self._wait(fd, timeout)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def release(self, token: int | None) -> None:
        if token is not None:
            os.close(token)

    @contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Keep writers out for the block."""
        token = self.acquire(timeout)
        try:
            yield
        finally:
            self.release(token)

    def _wait(self, fd: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            if time.monotonic() >= deadline:
                holder = LockFile(self._path, 0o600).holder()
                raise DriverError(
                    ErrorKind.LOCKED,
                    f"{self._path}: process {holder} is writing; waited {timeout:g} s, try again",
                    holder=holder,
                )
            time.sleep(_POLL)
