"""Hearing of commits by what happens to a file: Linux's inotify. Elsewhere nothing is heard, and
whoever waits looks by itself.

Told of is what happens on this machine; of a file on a network drive only what this machine does.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from storebridge.driver.ears import Ears

_IN_MODIFY = 0x2
_IN_CLOSE_NOWRITE = 0x10
_FOR_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_SETTLE = 0.002
"""Seconds in which who has written to a file can do what makes it count: the system is apt to let
who hears of it run before who did it."""
_LOOK = 1.0
"""Seconds after which is looked whether it is still the same file, and whether anybody wants to
hear; and between two attempts, where there is no file yet or the system gives no more watches."""


def ring(path: str | Path) -> None:
    """Let those who listen at a file hear something: opens it for reading and closes it, which
    changes nothing. Where that is not possible nobody hears anything."""
    try:
        os.close(os.open(path, _FOR_READING))
    except OSError:
        return  # not by `suppress`, which takes as long as the rest: this is on a commit's path


class FileEars(Ears):
    """Hears when somebody, in whichever process, rings at the file `path`; `written`: also when it
    is written to."""

    def __init__(self, path: Path, *, written: bool = False) -> None:
        super().__init__()
        self._path = path
        self._events = _IN_CLOSE_NOWRITE | (_IN_MODIFY if written else 0)
        self._pause = _SETTLE if written else 0.0

    def listen(self, stop: threading.Event) -> None:
        if sys.platform != "linux":
            return
        while not stop.is_set():
            fd = _watch(self._path, self._events)
            if fd is None:
                stop.wait(_LOOK)
                continue
            try:
                self.tell()  # of what was missed
                self._hear(fd, stop)
            finally:
                os.close(fd)

    def stop_listening(self) -> None:
        ring(self._path)

    def _hear(self, fd: int, stop: threading.Event) -> None:
        inode = _inode(self._path)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while not stop.is_set():
            if poll.poll(_LOOK * 1000):
                time.sleep(self._pause)
                os.read(fd, 65536)
                self.tell()
            elif _inode(self._path) != inode:
                return


def _watch(path: Path, events: int) -> int | None:
    """What becomes readable whenever one of the events happens to a file; None if that cannot be
    had now."""
    import ctypes  # only who listens pays for it

    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        return None
    if libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(events)) < 0:
        os.close(fd)
        return None
    return fd


def _inode(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_ino
    return None
