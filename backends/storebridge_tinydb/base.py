"""The JSON file of an open database: locked against others, and known well enough to notice when
one of those who do not ask for locks has changed it nevertheless.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from io import FileIO
from pathlib import Path

from storebridge.driver import DriverError, ErrorKind
from storebridge.driver.lockfile import LockFile
from storebridge_tinydb.atomicfile import give_like, sync_folder, write_beside
from storebridge_tinydb.journal import BaseMark
from storebridge_tinydb.sharedfile import SharedFile


class _File(SharedFile):
    def locked_by_other(self, timeout: float) -> Exception:
        holder = LockFile(self.path, 0).holder()
        who = "another process" if holder is None else f"process {holder}"
        return DriverError(
            ErrorKind.LOCKED, f"{self.path}: open in {who}; waited {timeout:g} s", holder=holder
        )


class _ReadFile(_File):
    """A file that others may read, too."""

    def _try_lock(self) -> bool:
        while self._locked is None or not self._has_name(self._locked):
            self.unlock()
            self._locked = FileIO(self.path)
            try:
                fcntl.flock(self._locked, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                self.unlock()
                return False
        return True


class Base:
    """The file, locked. DriverError of kind LOCKED if that takes longer than `lock_timeout`."""

    def __init__(self, path: Path, *, read_only: bool, lock_timeout: float) -> None:
        self.path = path
        self._timeout = lock_timeout
        self._file = (_ReadFile if read_only else _File)(path)
        self._file.lock(lock_timeout)
        self._next = ""
        self._digest = ""
        self.status = os.stat(path)
        """Size, owner and permissions, as it was left."""

    def read(self) -> bytes:
        """What it holds. From now on this, and nothing else, is expected there."""
        data = self._file.read()
        self._note(_digest(data))
        return data

    @property
    def mark(self) -> BaseMark:
        """Which content is expected in it."""
        return BaseMark(self.status.st_size, self.status.st_mtime_ns, self._digest)

    def check(self, *, thorough: bool = False) -> None:
        """DriverError if somebody has changed it. `thorough`: even if neither its size nor its time
        tells.
        """
        try:
            if _identity(os.stat(self.path)) == _identity(self.status) and not thorough:
                return
            found = _digest(self._file.read())
        except FileNotFoundError:
            found = "nothing"
        if found == self._next:  # ours, by a `replace` that did not come to its end
            sync_folder(self.path.parent)
        elif found != self._digest:
            raise DriverError(
                ErrorKind.OTHER, f"{self.path}: changed by another program while it was open here"
            )
        self._file.lock(self._timeout)
        self._note(found)

    def replace(self, content: bytes) -> None:
        """Let the file hold this. On failure it holds what it did."""
        self.check(thorough=True)
        self._next = _digest(content)
        self._file.replace(content)
        self._note(self._next)

    def keep(self, content: bytes) -> Path:
        """Put beside it, for the same people, what has no place in it any more."""
        kept = self.path.with_name(self.path.name + "-kept")
        fresh = write_beside(kept, content, mode=stat.S_IMODE(self.status.st_mode))
        with open(fresh, "rb") as file:
            give_like(file.fileno(), self.status)
        os.replace(fresh, kept)
        sync_folder(kept.parent)
        return kept

    def close(self) -> None:
        """Give up the lock."""
        self._file.close()

    def leave(self) -> None:
        """What a forked child does."""
        self._file.leave()

    def _note(self, digest: str) -> None:
        self.status = os.stat(self.path)
        self._digest = digest


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
