"""Making the data file smaller: a compacted copy is put in its place.

LMDB never gives pages back, and every process has the file mapped. So the swap happens only while
no other process has the environment open (see `presence`) and no transaction of this one is open;
else it is put off. While the copy is made, threads of this process read and write, and processes
may come: then it was made in vain, which is better than to let them wait.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb

from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.space import require_room
from storebridge_lmdb.engine import ReadEngine
from storebridge_lmdb.environment import Environment
from storebridge_lmdb.header import DATA, FRESH, read_meta

_MARGIN = 2**20
"""Bytes of the disk to leave to others."""
_BRIEFLY = 1.0
"""Seconds for which the writers of this process may be kept waiting by a second copy."""
_STEP = 0.01
_CHANGED = "it was written to meanwhile"

Bind = Callable[[lmdb.Environment], None]
"""Is given the environment on the new file, before anybody uses it."""


def reclaim(environment: Environment, bind: Bind, breathe: Callable[[], None]) -> str | None:
    """Put a compacted copy in the data file's place; why not, if so.

    Others write while it is made, where `breathe` lets them; a copy in which that is not is of no
    use. It is made once more while nobody does, if that takes no longer than they can wait.
    """
    began = time.monotonic()
    skipped = _try(environment, bind, breathe)
    if skipped == _CHANGED and time.monotonic() - began < _BRIEFLY:
        skipped = _try(environment, bind, lambda: None)
    return skipped


def _try(environment: Environment, bind: Bind, breathe: Callable[[], None]) -> str | None:
    folder, presence = environment.path, environment.presence
    number, content = _snapshot(environment)
    require_room(folder, content + _MARGIN)
    with _writers_kept_out(environment):
        if not presence.is_alone():
            return f"{presence.others()} has it open"
        presence.share_again()
    try:
        with _fresh_file(folder) as fd:
            _copy(environment, fd, breathe)
            with _writers_kept_out(environment):
                if _snapshot(environment)[0] != number:
                    return _CHANGED
                if not presence.is_alone():
                    return f"{presence.others()} has opened it meanwhile"
                return _swap(environment, fd, number, bind)
    except lmdb.MapResizedError:
        return _CHANGED
    except PermissionError:
        return "no permission to put another file in its place: only its owner, or root, may"


def _copy(environment: Environment, fd: int, breathe: Callable[[], None]) -> None:
    """Write a compacted copy, and have it on disk."""
    failures: list[BaseException] = []

    def write() -> None:
        try:
            environment.native.copyfd(fd, compact=True)
            os.fsync(fd)
        except BaseException as error:
            failures.append(error)

    copier = threading.Thread(target=write, name="storebridge-lmdb-copy")
    engine = ReadEngine(environment)  # within the gate: the map is not resized under the copy
    try:
        copier.start()
        try:
            is_copying = True
            while is_copying:
                copier.join(_STEP)
                is_copying = copier.is_alive()
                breathe()  # once at least, however soon it was done
        finally:
            _await(copier)
    finally:
        engine.rollback()
    if failures:
        raise failures[0]


def _await(copier: threading.Thread) -> None:
    """Wait for its end, whatever a signal handler raises: the file and the environment must stay
    open as long."""
    struck: BaseException | None = None
    while copier.is_alive():
        try:
            copier.join()
        except BaseException as error:
            struck = error
    if struck is not None:
        raise struck


def remove_leftover(folder: Path) -> None:
    """Remove the copy of somebody who was killed; not one that is being made."""
    fresh = folder / FRESH
    with suppress(FileNotFoundError, BlockingIOError):
        fd = os.open(fresh, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fresh.unlink()
        finally:
            os.close(fd)


def _snapshot(environment: Environment) -> tuple[int, int]:
    """The last transaction's number, and how many bytes hold something."""
    engine = ReadEngine(environment)
    try:
        return engine.snapshot_id(), engine.pages_in_use() * environment.page_size()
    finally:
        engine.rollback()


@contextmanager
def _writers_kept_out(environment: Environment) -> Iterator[None]:
    environment.writers.acquire(environment.timeout)
    try:
        yield
    finally:
        environment.writers.release()


@contextmanager
def _fresh_file(folder: Path) -> Iterator[int]:
    """A new, empty file with the data file's owner and mode, whose lock we hold alone: it tells
    that it is no leftover, and once it is the data file, keeps openers waiting. Unless it has
    become that, it is gone in the end.
    """
    remove_leftover(folder)
    fresh, old = folder / FRESH, os.stat(folder / DATA)
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        made = os.fstat(fd)
        if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(fd, old.st_uid, old.st_gid)
        os.fchmod(fd, stat.S_IMODE(old.st_mode))
        yield fd
    finally:
        if not os.path.samestat(os.fstat(fd), os.stat(folder / DATA)):
            fresh.unlink(missing_ok=True)
            os.close(fd)


def _swap(environment: Environment, fd: int, number: int, bind: Bind) -> str | None:
    """Rename the copy, made of the transaction of this number, and open it. We are alone;
    afterwards others may come."""
    folder, presence = environment.path, environment.presence
    placed = False

    def put_in_place() -> None:
        nonlocal placed
        # A program that is not of storebridge may have come and gone since we looked.
        if read_meta(folder / DATA).transaction != number:
            return
        os.replace(folder / FRESH, folder / DATA)
        placed = True
        _sync(folder)

    try:
        if environment.exchange(put_in_place, bind):
            return None if placed else _CHANGED
        return "a program that is not of storebridge has it open"
    except DriverError as error:
        if error.kind is not ErrorKind.LOCKED:
            raise
        return "a read transaction of this process is open"
    finally:
        if placed:
            presence.move(fd)
        else:
            presence.share_again()


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
