"""Who wants to hear of commits, and a thread that listens for them while anybody does."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable

Heard = Callable[[], object]


class Ears(ABC):
    """A `Notifier`'s listeners. How commits are heard is for a subclass to say: `listen` does it in
    a thread, and `stop_listening` makes it return."""

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        # The garbage collector may end a watcher in the midst of what the lock is for.
        self._lock = threading.RLock()
        self._hearers: list[Heard] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, heard: Heard) -> None:
        """Have this called, in the thread that listens."""
        with self._lock:
            self._hearers.append(heard)
            if self._thread is not None:
                return
            self._stop = threading.Event()
            thread = threading.Thread(
                target=self.listen, args=(self._stop,), name="storebridge-listen", daemon=True
            )
            try:
                thread.start()
            except BaseException:  # there may be no thread to be had: then nobody listens
                self._hearers.remove(heard)
                raise
            self._thread = thread

    def remove(self, heard: Heard) -> None:
        """Call it no more. The thread ends soon after the last one."""
        with self._lock:
            if heard in self._hearers:
                self._hearers.remove(heard)
            if not self._hearers:
                self._end()

    def close(self) -> None:
        """Stop for all, and wait until that is done."""
        with self._lock:
            self._hearers.clear()
            thread = self._end()
        if thread is not None:
            thread.join()

    def _end(self) -> threading.Thread | None:
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            self.stop_listening()
        return thread

    @abstractmethod
    def listen(self, stop: threading.Event) -> None:
        """Call `tell` soon after each commit, until `stop` is set."""

    def stop_listening(self) -> None:  # noqa: B027 - some listeners look by themselves
        """Wake `listen` up to see that it shall stop."""

    def tell(self) -> None:
        """Call who wants to hear."""
        for heard in tuple(self._hearers):
            heard()


_all: weakref.WeakSet[Ears] = weakref.WeakSet()


def _forget_all() -> None:
    """In a forked child: the thread that listens is the parent's, and so are the hearers."""
    for ears in list(_all):
        ears._begin()


os.register_at_fork(after_in_child=_forget_all)
