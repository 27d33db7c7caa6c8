"""Hearing at once of what others commit: LISTEN and NOTIFY.

A notice goes out behind the commit, in a transaction of its own: inside, PostgreSQL would have all
that commit on the whole server take turns. A notice can be lost, with a connection or a process; so
whoever listens looks now and then as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from storebridge.driver import DriverError

Heard = Callable[[], object]
_PAUSE = 1.0
"""Seconds between two attempts to connect."""
_LOOK = 0.2
"""Seconds after which it is looked whether anybody still wants to hear."""


class Ears:
    """Listens, in a thread with a connection of its own, as long as anybody wants to hear."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], channel: str) -> None:
        self._connect = connect
        self._listen = f'LISTEN "{channel}"'
        self.notify = f'NOTIFY "{channel}"'
        """The statement that is heard."""
        self._lock = threading.Lock()
        self._hearers: tuple[Heard, ...] = ()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, heard: Heard) -> None:
        """Have this called, in the thread that listens."""
        with self._lock:
            self._hearers = (*self._hearers, heard)
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="storebridge-listen", daemon=True
                )
                self._thread.start()

    def remove(self, heard: Heard) -> None:
        """Call it no more. The thread ends soon after the last one."""
        with self._lock:
            self._hearers = tuple(each for each in self._hearers if each != heard)
            if not self._hearers:
                self._stop.set()
                self._thread = None

    def close(self) -> None:
        """Stop for all, and wait until that is done."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._hearers = ()
            self._stop.set()
        if thread is not None:
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            with suppress(psycopg.Error, DriverError), self._connect() as connection:
                connection.execute(self._listen)
                self._tell()  # of what was missed
                while not stop.is_set():
                    for _ in connection.notifies(timeout=_LOOK):
                        self._tell()
            stop.wait(_PAUSE)

    def _tell(self) -> None:
        for heard in self._hearers:
            heard()
