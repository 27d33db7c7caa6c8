"""An LMDB environment whose map is resized safely."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.lockfile import LockFile
from storebridge_lmdb import sizes
from storebridge_lmdb.access import Guard
from storebridge_lmdb.gate import Gate
from storebridge_lmdb.header import LOCK
from storebridge_lmdb.presence import Presence
from storebridge_lmdb.sizes import Sizes

if TYPE_CHECKING:
    from storebridge_lmdb.engine import WriteEngine

_PATIENCE = 1.0
"""Seconds that an exchange waits for our own transactions, while others wait at the gate."""

log = logging.getLogger("storebridge.lmdb")

_opened: weakref.WeakSet[Environment] = weakref.WeakSet()


def is_open_here(path: Path) -> bool:
    """Whether this process has the environment open: LMDB would corrupt it if opened again."""
    return any(each.is_at(path) and each.pid == os.getpid() for each in list(_opened))


def release_inherited(path: Path) -> None:
    """Close what a forked child has of its parent's environment, so that it can open its own:
    py-lmdb takes the parent's for one of the child's.

    Not while a transaction was open at the fork: to end it would take the parent's place in the
    reader table away.
    """
    for environment in list(_opened):
        if environment.is_at(path) and environment.pid != os.getpid() and environment.is_idle:
            environment.close()


class Environment:
    """The native environment with its gate, its map's sizes, and the locks at its side."""

    def __init__(
        self,
        path: Path,
        native: lmdb.Environment,
        map_sizes: Sizes,
        writers: LockFile,
        guard: Guard | None,
        presence: Presence,
        timeout: float,
        reopen: Callable[[], lmdb.Environment],
    ) -> None:
        self.path = path
        self.native = native
        self.sizes = map_sizes
        self.writers = writers
        self.guard = guard
        """Keeps writers out while we read, where we may not register in LMDB's reader table."""
        self.presence = presence
        self.timeout = timeout
        self.size: int = native.info()["map_size"]
        self._reopen = reopen
        self._sole: int | None = None
        self._gate = Gate()
        self._begin = native.begin
        self._enter = self._gate.enter
        self.leave = self._gate.leave
        """What `begin` began for this one has ended."""
        self.writing: WriteEngine | None = None
        """The write transaction that was begun last, while it has not ended."""
        self.pid = os.getpid()
        _opened.add(self)

    @property
    def is_idle(self) -> bool:
        """Whether no transaction is open."""
        return self._gate.is_empty

    def is_at(self, path: Path) -> bool:
        """Whether it is the environment of this folder."""
        return self.path.resolve() == path.resolve()

    def close(self) -> None:
        """Give everything back."""
        self._close_native()
        self.writers.close()
        self.presence.close()
        _opened.discard(self)

    def page_size(self) -> int:
        """In bytes."""
        size: int = self.native.stat()["psize"]
        return size

    def begin(self, who: object, write: bool) -> lmdb.Transaction[bytes]:
        """Begin a native transaction, for `who` to `leave` when it has ended."""
        while True:
            self._enter(who)
            try:
                return self._begin(None, None, write, False)
            except lmdb.MapResizedError:
                self.leave(who)
                # Another process needed more than our map holds. LMDB raises what is too small to
                # what is in use; its own choice for size 0 would hand us the other's reserve.
                self.resize(self.size, self.timeout)
            except BaseException:
                self.leave(who)
                raise

    def open_database(self, name: bytes) -> object | None:
        """The handle of a named database of a read-only environment; None if it is not there."""
        guard = nullcontext() if self.guard is None else self.guard.held(self.timeout)
        with guard:
            try:
                return self.native.open_db(name, create=False)
            except lmdb.NotFoundError:
                return None

    def release(self, guarded: int | None) -> None:
        """Give back what the guard gave."""
        if self.guard is not None:
            self.guard.release(guarded)

    def resize(self, size: int, timeout: float) -> None:
        """Give the map this size, or what is in use if that is more."""
        with self._gate.emptied(timeout):
            # A map that fails to grow is gone for good, so whether it can is found out before.
            if size > self.size and not sizes.available(size):
                raise self.full("the process cannot map more memory")
            self.native.set_mapsize(size)
            self.size = self.native.info()["map_size"]

    def exchange(
        self, put_in_place: Callable[[], None], bind: Callable[[lmdb.Environment], None]
    ) -> bool:
        """Close the environment, let `put_in_place` exchange its file, open it and let `bind` make
        the handles for it, while our transactions wait at the gate. False, and no exchange, where
        any program has it open by LMDB's own lock. DriverError of kind LOCKED if a transaction of
        ours does not end soon.
        """
        with self._gate.emptied(min(self.timeout, _PATIENCE)):
            # First: where this fails, for want of descriptors, nothing has been closed.
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CLOEXEC)
            is_alone = False
            try:
                self._close_native()
                is_alone = _lock_alone(lock)
                if is_alone:
                    put_in_place()
            finally:
                self.native.close()  # not yet, if a signal handler's exception struck before
                if is_alone:
                    self._sole = lock
                else:
                    os.close(lock)
                self.native = self._reopen()
                self._begin = self.native.begin
                self.size = self.native.info()["map_size"]
                bind(self.native)
            return is_alone

    def _close_native(self) -> None:
        self.native.close()
        if self._sole is not None:
            os.close(self._sole)
            self._sole = None

    def give_back_reserve(self, timeout: float) -> None:
        """Shrink a map that reaches into the reserve, so that inserts use free pages only."""
        if self.size > self.sizes.limit and not self._at_its_smallest():
            try:
                self.resize(self.sizes.limit, timeout)
            except DriverError:
                log.debug("lmdb: a reader is in: the reserve stays open until the next write")

    def _at_its_smallest(self) -> bool:
        used: int = self.native.info()["last_pgno"] + 1
        return self.size <= used * self.page_size()

    def grow(self, removing: bool) -> None:
        """Make room after MapFullError, with no transaction of ours open. DriverError of kind FULL
        if there is none.
        """
        if self.native.reader_check():
            return  # a reader died: the pages that it held may be enough
        size = self.sizes.next(self.size, removing)
        if size is None:
            raise self.full_map()
        self.resize(size, self.timeout)
        log.info("lmdb: the map has grown to %d bytes", self.size)

    def full_map(self) -> DriverError:
        """The error for a map at its limit."""
        return self.full(f"the map's limit is {self.sizes.limit} bytes (map_size)")

    def full(self, why: str) -> DriverError:
        """The error for a database that has no room."""
        return DriverError(
            ErrorKind.FULL, f"{self.path}: full: {why}; delete records or allow more"
        )

    def disk_is_full(self, size: int) -> bool:
        """Whether the data file could not have grown by so much: LMDB calls a short write an
        input/output error.
        """
        try:
            used = (self.path / "data.mdb").stat().st_size
            with tempfile.TemporaryFile(dir=self.path) as probe:
                os.posix_fallocate(probe.fileno(), used, size)
        except OSError:
            return True
        return False


def _lock_alone(lock: int) -> bool:
    """Hold alone the lock that every program with LMDB shares while it has the environment open;
    False if some program does. Whoever opens it now waits.

    LMDB takes the same lock when it opens the environment in this process, finds that it is alone,
    makes `lock.mdb` anew for the file that it finds, and shares it from then on. Locks of this kind
    belong to the process, all of them are gone when any descriptor of the file is closed: so this
    one stays open as long as the environment.
    """
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except OSError:
        return False
    return True
