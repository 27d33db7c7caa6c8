"""Opening locations: one database per location and process, whoever opens it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Condition, RLock, get_ident
from typing import Any, Literal, get_args

from storebridge import meta, times
from storebridge.backends import unavailable
from storebridge.configuration import location_from_environment, retention_from_environment
from storebridge.database import Database
from storebridge.driver import Driver, DriverError
from storebridge.driver.capabilities import Replaceable
from storebridge.errors import (
    ConfigurationError,
    LayoutVersionError,
    StorebridgeError,
    StoreFullError,
    StoreLockedError,
)
from storebridge.executions import ExecutionStore
from storebridge.jobs import JobStore
from storebridge.location import Location, location_of
from storebridge.owner import Owner
from storebridge.recount import RecountReport, recount_all
from storebridge.replacing import while_opening, while_replacing
from storebridge.transaction import Unit
from storebridge.translation import translated

logger = logging.getLogger("storebridge")
INCOMING = ".incoming"
"""Behind the name of a database: where what is to take its place is made."""
Recount = Literal["auto", "always", "never"]
Place = tuple[str, ...]
_lock = Condition(RLock())
"""Held while a location is opened; and, for moments, before and after one is closed."""
_shared: dict[Place, tuple[Database, int]] = {}
_busy: dict[Place, tuple[int, Location]] = {}
"""What is being opened, closed or replaced, and by which thread. For who waits lets go of the lock,
also where it opens something else meanwhile."""
_abandoned: list[Database] = []


def open_database(
    location: str | Path | Location,
    *,
    read_only: bool = False,
    create: bool = True,
    recount: Recount = "auto",
    clock: Callable[[], datetime] = times.now,
) -> Database:
    """Open a location, and create it unless `create` is False.

    Opening one that is open in this process gives the same database; it is closed when every
    opener has closed it. `recount`: when the process first opens it, the counters are recomputed
    after an unclean stop, which is logged and told by `stopped_uncleanly` ("auto"); each time
    ("always"); or not before somebody opens it otherwise ("never"). `clock` says what time it is,
    in UTC.

    ConfigurationError and its kinds for what cannot be opened as asked, StorageError and its kinds
    for a file that is locked, corrupt or of a newer layout. A file that is refused is not changed.
    """
    if recount not in get_args(Recount):
        accepted = ", ".join(get_args(Recount))
        raise ConfigurationError(f"recount={recount!r}: accepted are {accepted}")
    asked = _with_options(location_of(location), read_only, create)
    database = open_even_incomplete(asked, recount=recount, clock=clock)
    try:
        _refuse_older(database)
        database.refuse_incomplete()
    except BaseException:
        database.close()
        raise
    return database


def open_even_incomplete(
    location: Location, *, recount: Recount = "auto", clock: Callable[[], datetime] = times.now
) -> Database:
    """As `open_database`, also where a transfer has not come to its end: to go on with it; and, to
    read it, one of an older layout."""
    key = place_of(location)
    with _lock:
        _wait_while_busy(lambda other, _: other == key)
        if key in _shared:
            database, uses = _shared[key]
            _check_same_options(database, location)
        else:
            with _being_busy(key, location):
                database, uses = _open(location, recount, clock), 0
            database._on_close = lambda _: _release(key)
        _shared[key] = (database, uses + 1)
    return database


def open_job_store(
    location: str | Path | None = None,
    *,
    env_prefix: str = "",
    read_only: bool = False,
    create: bool = True,
    recount: Recount = "auto",
    clock: Callable[[], datetime] = times.now,
) -> JobStore:
    """Open the store of jobs at a location, or at the one that the environment configures
    (`JOB_STORE_PATH` and its kin, each behind `env_prefix`). Closing it closes its database."""
    database = _open_for(
        "JOB",
        location,
        env_prefix,
        read_only=read_only,
        create=create,
        recount=recount,
        clock=clock,
    )
    return JobStore(database)


def open_execution_store(
    location: str | Path | None = None,
    *,
    env_prefix: str = "",
    read_only: bool = False,
    create: bool = True,
    recount: Recount = "auto",
    clock: Callable[[], datetime] = times.now,
) -> ExecutionStore:
    """As `open_job_store`, for executions (`EXECUTION_STORE_PATH` and its kin)."""
    database = _open_for(
        "EXECUTION",
        location,
        env_prefix,
        read_only=read_only,
        create=create,
        recount=recount,
        clock=clock,
    )
    return ExecutionStore(database)


def _open_for(role: str, location: str | Path | None, env_prefix: str, **how: Any) -> Database:
    """The database of a role's store: where the environment says, if nobody else does, and with
    what the environment lets go."""
    if location is not None:
        return open_database(location, **how)
    rules = retention_from_environment(role, prefix=env_prefix)
    database = open_database(location_from_environment(role, prefix=env_prefix), **how)
    # Stores that share a database may each say something.
    database.retention = tuple(dict.fromkeys((*database.retention, *rules)))
    return database


def place_of(location: Location) -> Place:
    """By what two locations are known to be one: the file; or the server, and the backend's own
    options, which say where on it."""
    if location.path:
        return location.backend.name, os.path.realpath(location.target)
    options = (f"{name}={value}" for name, value in sorted(location.options.extra.items()))
    return location.backend.name, location.target, *options


def is_same_place(one: Location, other: Location) -> bool:
    """Whether two locations are one file or folder, or the same place on a server, whichever name
    of a backend they are written with."""
    if one.path and other.path:
        return os.path.realpath(one.target) == os.path.realpath(other.target)
    return place_of(one) == place_of(other)


def is_open_here(location: Location) -> bool:
    """Whether this process has the location open, by whichever name of its backend."""
    with _lock:
        return any(is_same_place(location, other.location) for other, _ in _shared.values())


@contextlib.contextmanager
def kept_closed(location: Location) -> Iterator[None]:
    """Nobody, in this process or another, opens the location's file in the block.

    StoreLockedError if this process has it open, or another is opening it for too long.
    """
    assert location.path is not None
    with _lock:
        _wait_while_busy(lambda _, other: is_same_place(location, other))
        if is_open_here(location):
            raise StoreLockedError(
                f"{location.text}: open in this process: close it, then do the same again",
                os.getpid(),
            )
        with (
            _being_busy(place_of(location), location),
            while_replacing(location.path, location.options.lock_timeout),
        ):
            yield


def _with_options(location: Location, read_only: bool, create: bool) -> Location:
    options = location.options
    read_only = read_only or options.read_only
    options = replace(
        options, read_only=read_only, create=create and options.create and not read_only
    )
    return replace(location, options=options)


def _check_same_options(database: Database, location: Location) -> None:
    ours, theirs = database.location.options, location.options
    # Whether the file had to exist matters only to who made it.
    if replace(ours, create=True) != replace(theirs, create=True):
        raise ConfigurationError(
            f"{location.text}: open in this process as {database.location.text} with other options"
        )


def _wait_while_busy(is_meant: Callable[[Place, Location], bool]) -> None:
    """With the lock held: wait until another thread is busy with nothing that is meant."""
    me = get_ident()
    while any(
        thread != me and is_meant(key, location) for key, (thread, location) in _busy.items()
    ):
        _lock.wait()


@contextlib.contextmanager
def _being_busy(key: Place, location: Location) -> Iterator[None]:
    """With the lock held."""
    before = _busy.get(key)
    try:
        _busy[key] = (get_ident(), location)
        yield
    finally:
        if before is None:
            _busy.pop(key, None)
        _lock.notify_all()


def _release(key: Place) -> None:
    """Give up one use; the last one closes. Nobody can open the location anew before it is; what is
    at other places is opened and closed meanwhile."""
    begun: list[Place] = []
    try:
        with _lock:
            _wait_while_busy(lambda other, _: other == key)
            if key not in _shared:
                return  # another thread closed it meanwhile
            database, uses = _shared[key]
            if uses > 1:
                _shared[key] = (database, uses - 1)
                return
            if key not in _busy:
                begun.append(key)
                _busy[key] = (get_ident(), database.location)
        database.close_driver()
    finally:
        try:
            _end_release(key, begun)
        finally:  # what an exception out of a signal handler left
            _end_release(key, begun)


def _end_release(key: Place, begun: list[Place]) -> None:
    with _lock:
        if key in _shared and _shared[key][0].closed:
            del _shared[key]
        if begun:
            _busy.pop(key, None)
            begun.clear()
            _lock.notify_all()


def _open(location: Location, recount: Recount, clock: Callable[[], datetime]) -> Database:
    driver = _open_driver(location)
    database = Database(driver, location, clock)
    try:
        older = _is_older(database)
    except BaseException:
        driver.close()
        raise
    if older and not database.read_only:
        driver.close()
        _upgrade(location)
        driver = _open_driver(location)
        database = Database(driver, location, clock)
    try:
        _check_layout(database)
        database._guarded(driver.create_tables, (meta.META,), meta.LAYOUT)
        database.refresh()
        transfer = database.read(meta.read_transfer)
        if transfer is not None and transfer.verified and not _is_beside(location):
            # Killed when it was in its place already, and only the mark had to go.
            if not database.read_only:
                database._write_alone(meta.remove_transfer, ())
            transfer = None
        if transfer is None:
            _recount(database, recount)
            _reclaim(database)
    except BaseException:
        driver.close()
        raise
    return database


def _open_driver(location: Location) -> Driver:
    timeout = location.options.lock_timeout
    with while_opening(location.path, timeout):
        if not _is_half_replaced(location):
            return _driver_of(location)
    from storebridge.transfer.places import finish

    finish(location)
    with while_opening(location.path, timeout):
        return _driver_of(location)


def _driver_of(location: Location) -> Driver:
    try:
        return location.backend.open(location.target, location.options)
    except ImportError as error:
        # A backend recognises its files without its engine, and imports that only here.
        raise unavailable(location.backend.name, error) from error
    except DriverError as error:
        raise translated(error, error.kind, location.text) from error


def _is_half_replaced(location: Location) -> bool:
    """Whether a process may have been killed between the two renames that put a database in the
    place of another: nothing is there, and must not be made anew."""
    path = location.path
    if path is None or os.path.exists(path) or location.options.read_only:
        return False
    return os.path.lexists(os.path.realpath(path) + INCOMING)


def _is_beside(location: Location) -> bool:
    """Whether it is made there, and is to take the place of another."""
    if location.path is not None:
        return location.target.endswith(INCOMING)
    backend = location.backend
    return isinstance(backend, Replaceable) and backend.is_beside(location.target, location.options)


def _is_older(database: Database) -> bool:
    layout = database._guarded(database.driver.layout)
    return layout is not None and layout < meta.LAYOUT


def _upgrade(location: Location) -> None:
    from storebridge.transfer.upgrading import upgrade

    upgrade(location)


def _refuse_older(database: Database) -> None:
    if database.read_only and _is_older(database):
        raise LayoutVersionError(
            f"{database.location.text}: laid out by an older storebridge: open it for writing once,"
            " which upgrades it and keeps the old one"
        )


def _check_layout(database: Database) -> None:
    layout = database._guarded(database.driver.layout)
    if layout is not None and layout > meta.LAYOUT:
        raise LayoutVersionError(
            f"{database.location.text}: laid out by a newer storebridge (layout {layout}, this one"
            f" knows {meta.LAYOUT}): upgrade storebridge"
        )


def _recount(database: Database, when: Recount) -> None:
    """Where it is time to: recompute the counters, and take the marks of the dead away."""
    openers = database.read(meta.read_openers)
    dead = {name: owner for name, owner in openers.items() if owner.is_alive() is False}
    database.stopped_uncleanly = tuple(dead.values())
    if when == "never" or (when == "auto" and not dead):
        return
    if database.read_only:
        database.recounted = database.recount() if when == "always" else ()
        return
    try:
        database.recounted = tuple(database._write_alone(_recount_and_unmark, (database, dead)))
    except StoreFullError as error:
        # It must open all the same: else nobody could read, or make room. The marks stay.
        database.recounted = database.recount()
        logger.warning("%s; counters that have drifted are mended at the next opening", error)
        return
    drift = sum(len(report.drift) for report in database.recounted)
    if dead or drift:
        pids = ", ".join(str(owner.pid) for owner in dead.values())
        why = f"process {pids} ended without closing" if dead else "opened with recount='always'"
        logger.warning(
            "%s: %s; counters recounted, %d had drifted", database.location.text, why, drift
        )


def _reclaim(database: Database) -> None:
    """Give space back, if the location asks for it. Nothing is removed here: whoever has hooks can
    only add them to a database that is open."""
    above = database.location.options.compact
    if above is None or database.read_only:
        return
    from storebridge.compaction.compact import reclaim
    from storebridge.compaction.pace import Pace

    skipped = reclaim(database, Pace(database), above)
    if skipped is not None:
        logger.info("%s: no space given back: %s", database.location.text, skipped)


def _recount_and_unmark(
    unit: Unit, database: Database, dead: dict[str, Owner]
) -> list[RecountReport]:
    for name in dead:
        meta.remove_entry(unit, name)
    return recount_all(unit.engine, database.refresh().values(), repair=True)


def _abandon_all() -> None:
    global _lock
    _lock = Condition(RLock())
    _busy.clear()
    for database, _ in _shared.values():
        database.abandon()
        # Closing, by the garbage collector too, would disturb the parent.
        _abandoned.append(database)
    _shared.clear()


def _close_all() -> None:
    """A process that ends in order has not crashed, even if it forgot to close."""
    for database, _ in list(_shared.values()):
        with contextlib.suppress(StorebridgeError):
            database.close_driver()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_abandon_all)
