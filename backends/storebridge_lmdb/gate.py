"""Native transactions of this process in, or the map's size changing: never both.

LMDB's map cannot be resized under an open transaction. Every native transaction is inside the gate
while it lasts; whoever resizes shuts it and waits until all are out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from storebridge.driver.contract import DriverError, ErrorKind

_POLL = 0.001


class Gate:
    """Going in and out is on the path of every read, so it takes no lock: adding to a set is
    atomic; whoever shuts says so, then looks at the set; whoever enters, the other way round.
    """

    def __init__(self) -> None:
        self._inside: set[object] = set()
        self._shut = False
        self.leave = self._inside.discard
        """Go out, if inside."""
        self._opened = threading.Event()
        self._one_resizes = threading.Lock()

    def enter(self, who: object) -> None:
        """Go in, once the gate is open."""
        self._inside.add(who)
        while self._shut:
            self._inside.discard(who)
            self._opened.wait()
            self._inside.add(who)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is inside."""
        return not self._inside

    @contextmanager
    def emptied(self, timeout: float) -> Iterator[None]:
        """Keep the gate shut for the block, once everyone is out. DriverError of kind LOCKED if
        that takes longer than `timeout` seconds.
        """
        with self._one_resizes:
            self._opened.clear()
            self._shut = True
            try:
                self._wait(timeout)
                yield
            finally:
                self._shut = False
                self._opened.set()

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._inside:
            if time.monotonic() >= deadline:
                raise DriverError(
                    ErrorKind.LOCKED,
                    "lmdb: the map cannot be resized while this process has a transaction open: "
                    f"waited {timeout:g} s, end it and try again",
                )
            time.sleep(_POLL)
