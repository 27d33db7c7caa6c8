"""Who has an environment open.

LMDB keeps what its processes share in `lock.mdb`, and every one of them has its own map of
`data.mdb`: put another file in that one's place, and what they write is lost. So whoever has the
environment open shares a lock on `data.mdb` for as long, and whoever replaces the file holds it
alone. Reading permission is enough for it, so no reader is overlooked.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from contextlib import suppress
from pathlib import Path

from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.lockfile import holders

_POLL = 0.002


class Presence:
    """This opener's share of the lock. Does not outlive a fork: the child has to open anew."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._fd: int | None = None

    def share(self, timeout: float) -> None:
        """Be present, once nobody is replacing the file. DriverError of kind LOCKED after `timeout`
        seconds.
        """
        deadline = time.monotonic() + timeout
        while self._fd is None:
            fd = os.open(self._data, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._wait(fd, deadline, timeout)
                if os.path.samestat(os.fstat(fd), os.stat(self._data)):
                    self._keep(fd)
                    return
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # it was replaced while we waited

    def is_alone(self) -> bool:
        """Whether nobody else is present. If so, nobody can come until `share_again` or `move`.

        Only for who holds the writers' lock: to ask is to be away for a moment.
        """
        assert self._fd is not None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.share_again()
            return False
        return True

    def share_again(self) -> None:
        """Let others come."""
        assert self._fd is not None
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def move(self, fd: int) -> None:
        """Be present at the file that took the old one's place, on which `fd` holds the lock
        alone, and let others come.
        """
        self.close()
        self._keep(fd)
        self.share_again()

    def others(self) -> str:
        """Somebody else who is present, for people."""
        for pid in holders(self._data):
            if pid != os.getpid():
                return f"process {pid}"
        return "another process"

    def close(self) -> None:
        """Be gone."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _keep(self, fd: int) -> None:
        self._fd = fd
        _present.add(self)

    def _wait(self, fd: int, deadline: float, timeout: float) -> None:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            if time.monotonic() >= deadline:
                raise DriverError(
                    ErrorKind.LOCKED,
                    f"{self._data}: {self.others()} is making it smaller; waited {timeout:g} s,"
                    " try again",
                    holder=next(holders(self._data), None),
                )
            time.sleep(_POLL)


_present: weakref.WeakSet[Presence] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked child would be present on its parent's behalf, even when that is dead."""
    for presence in list(_present):
        presence.close()


os.register_at_fork(after_in_child=_close_in_child)
