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
from storebridge.driver.ears import Ears

_PAUSE = 1.0
"""Seconds between two attempts to connect."""
_LOOK = 0.2
"""Seconds after which it is looked whether anybody still wants to hear."""


class NoticeEars(Ears):
    """Listens by a connection of its own."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], channel: str) -> None:
        super().__init__()
        self._connect = connect
        self._listen = f'LISTEN "{channel}"'
        self.notify = f'NOTIFY "{channel}"'
        """The statement that is heard."""

    def listen(self, stop: threading.Event) -> None:
        while not stop.is_set():
            with suppress(psycopg.Error, DriverError), self._connect() as connection:
                connection.execute(self._listen)
                self.tell()  # of what was missed
                while not stop.is_set():
                    for _ in connection.notifies(timeout=_LOOK):
                        self.tell()
            stop.wait(_PAUSE)
