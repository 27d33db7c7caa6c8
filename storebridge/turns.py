"""Turns of the threads of one process: one of them writes at a time."""

from __future__ import annotations

import logging
from threading import RLock
from time import perf_counter

from storebridge.errors import StoreLockedError
from storebridge.statistics import Statistics

logger = logging.getLogger("storebridge")


class Turn:
    """The right to write, held by one thread at a time.

    A lock that knows its owner: an exception out of a signal handler may strike between any two
    steps, and whoever cleans up has to tell how far the interrupted ones had come.
    """

    def __init__(self, name: str, timeout: float, statistics: Statistics) -> None:
        self._name = name
        self._timeout = timeout
        self._statistics = statistics
        self._lock = RLock()

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread holds it."""
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]

    def take(self) -> None:
        """Wait for the turn, if the thread does not have it. StoreLockedError after the timeout."""
        if not self.is_mine and not self._lock.acquire(blocking=False):
            self._wait()

    def give(self) -> None:
        """Let the next thread write, if this one was writing."""
        if self.is_mine:
            self._lock.release()

    def _wait(self) -> None:
        started = perf_counter()
        got = self._lock.acquire(timeout=self._timeout)
        self.note_wait(perf_counter() - started, "another thread")
        if not got:
            raise StoreLockedError(
                f"{self._name}: another thread of this process wrote for {self._timeout:g} s"
            )

    def note_wait(self, seconds: float, whom: str) -> None:
        """Count a wait for somebody else's writing; log a long one."""
        self._statistics.lock_waits += 1
        self._statistics.lock_wait_seconds += seconds
        if seconds > self._statistics.slow_after:
            logger.warning("%s: waited %.1f s for %s", self._name, seconds, whom)
