"""From a location to an open environment: looked at first, so that what is not ours stays as it
is.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lmdb

from storebridge.driver.backend import Options
from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.lockfile import LockFile
from storebridge.driver.ordered import LAYOUT, OWN
from storebridge_lmdb import access, sizes, swap
from storebridge_lmdb.driver import LmdbDriver
from storebridge_lmdb.engine import database_name
from storebridge_lmdb.environment import Environment, is_open_here, release_inherited
from storebridge_lmdb.errors import kind_of
from storebridge_lmdb.header import DATA, missing_pages, read_meta
from storebridge_lmdb.presence import Presence
from storebridge_lmdb.reach import is_whole

_MAX_DATABASES = 256
_MAX_READERS = 500
_FORMAT: dict[str, Any] = {"lib_version": 0} if int(lmdb.__version__.split(".")[0]) >= 3 else {}
"""Since py-lmdb 3.0 there are two file formats; the tools that people have read the first one."""

_ALREADY_OPEN = "already open in this process"

State = Literal["new", "ours"]


def open_driver(path: Path, options: Options) -> LmdbDriver:
    """See `Backend.open`."""
    map_sizes = sizes.parse(options.extra.get("map_size"))
    try:
        return _open(path, options, map_sizes)
    except OSError as error:
        raise _refused(path, error) from error
    except lmdb.Error as error:
        raise _unopened(path, error) from error


def _open(path: Path, options: Options, map_sizes: sizes.Sizes) -> LmdbDriver:
    if is_open_here(path):
        raise _already_open(path)
    presence = Presence(path / DATA)
    try:
        return _open_present(path, options, map_sizes, presence)
    except BaseException:
        presence.close()
        raise


def _open_present(
    path: Path, options: Options, map_sizes: sizes.Sizes, presence: Presence
) -> LmdbDriver:
    if (path / DATA).exists():
        presence.share(options.lock_timeout)
    state = _look(path)
    if state == "new":
        _require_new(path, options)
        mode = options.mode
    else:
        _require_permission(path, options.read_only)
        mode = stat.S_IMODE((path / DATA).stat().st_mode) & 0o666
    locked = state == "new" or access.can_register(path)
    if not (locked or options.read_only):
        raise _no_permission(path / "lock.mdb", "write")
    if state == "new":
        if not path.exists():
            access.make_folder(path, mode)
        access.make_lock(path, mode)
        access.make_data(path, mode)
        presence.share(options.lock_timeout)
    if not options.read_only:
        swap.remove_leftover(path)
    reopen = partial(_open_native, path, options, map_sizes, mode, locked)
    native = reopen()
    try:
        if state == "new":
            access.set_modes(path, mode)
        if _state_of(path, native) == "new" and options.read_only:
            raise _nothing(path)
        if locked:
            native.reader_check()
    except BaseException:
        native.close()
        raise
    writers = LockFile(path / access.SIDE_FILE, mode, beside=path / DATA)
    guard = None if locked else access.Guard(path)
    environment = Environment(
        path, native, map_sizes, writers, guard, presence, options.lock_timeout, reopen
    )
    return LmdbDriver(environment, options.read_only)


def _open_native(
    path: Path, options: Options, map_sizes: sizes.Sizes, mode: int, locked: bool
) -> lmdb.Environment:
    return _open_environment(
        path,
        map_size=map_sizes.first,
        readonly=options.read_only,
        metasync=options.durability == "full",
        sync=options.durability != "off",
        mode=mode,
        max_dbs=_MAX_DATABASES,
        max_readers=_MAX_READERS,
        max_spare_txns=0,  # a forked child would give the spare one's place in the table away
        lock=locked,
        **_FORMAT,
    )


def _open_environment(path: Path, **settings: Any) -> lmdb.Environment:
    try:
        return lmdb.open(str(path), create=False, **settings)
    except lmdb.Error as error:
        if _ALREADY_OPEN not in str(error):
            raise
        release_inherited(path)
        return lmdb.open(str(path), create=False, **settings)


def _look(path: Path) -> State:
    """What is there, found out without changing anything."""
    if not path.exists():
        return "new"
    if not path.is_dir():
        raise DriverError(
            ErrorKind.CONFIGURATION, f"{path}: a file, but an LMDB database is a folder"
        )
    names = set(os.listdir(path))
    if DATA not in names:
        if names <= access.OURS:
            return "new"
        raise DriverError(ErrorKind.FOREIGN, f"{path}: a folder of other things: choose another")
    data = path / DATA
    if not data.stat().st_size:
        return "new"  # someone was killed while making it
    meta = read_meta(data)
    if missing_pages(data, meta) and not is_whole(data, meta):
        raise DriverError(
            ErrorKind.CORRUPT, f"{data}: truncated: its last pages are gone: restore a backup"
        )
    guard = access.Guard(path)
    try:
        with guard.held(0):
            return _look_inside(path)
    except DriverError as error:
        if error.kind is ErrorKind.LOCKED:
            return "ours"  # a writer of storebridge is busy in it; looked into when opened
        raise


def _look_inside(path: Path) -> State:
    """Whether an environment is ours. Without LMDB's own lock, whose file would be made by it."""
    native = _open_environment(path, readonly=True, lock=False, max_dbs=1)
    try:
        return _state_of(path, native)
    finally:
        native.close()


def _state_of(path: Path, native: lmdb.Environment) -> State:
    """An environment with our layout mark is ours, an empty one new; any other is foreign."""
    with native.begin() as txn:
        if not txn.stat()["entries"]:
            return "new"  # made, but its maker was killed before the first table
        try:
            own = native.open_db(database_name(OWN), txn=txn, create=False)
            mark = txn.get(LAYOUT, b"", own)
        except (lmdb.NotFoundError, lmdb.IncompatibleError):
            mark = b""
    if not mark.isdigit():
        raise DriverError(
            ErrorKind.FOREIGN,
            f"{path}: an LMDB environment, but not one of storebridge's; choose another location",
        )
    return "ours"


def _require_new(path: Path, options: Options) -> None:
    """That a new database may be made here."""
    if options.read_only or not options.create:
        raise _nothing(path)
    if not path.parent.is_dir():
        raise DriverError(ErrorKind.CONFIGURATION, f"{path.parent}: no such folder: make it first")
    if not access.may(path if path.exists() else path.parent, os.W_OK | os.X_OK):
        raise _no_permission(path, "write")


def _require_permission(path: Path, read_only: bool) -> None:
    if not read_only and not access.may(path / DATA, os.W_OK):
        raise _no_permission(path / DATA, "write")


def _nothing(path: Path) -> DriverError:
    return DriverError(ErrorKind.CONFIGURATION, f"{path}: no LMDB database there yet")


def _no_permission(path: Path, what: str) -> DriverError:
    return DriverError(
        ErrorKind.CONFIGURATION,
        f"{path}: no permission to {what}; open read-only, or as the database's owner",
    )


def _already_open(path: Path) -> DriverError:
    return DriverError(
        ErrorKind.CONFIGURATION, f"{path}: already open in this process: share that database"
    )


def _refused(path: Path, error: OSError) -> DriverError:
    if isinstance(error, PermissionError):
        return _no_permission(Path(error.filename or path), "open it")
    kind = kind_of(error) or ErrorKind.CONFIGURATION
    return DriverError(kind, f"{error.filename or path}: {error.strerror}")


def _unopened(path: Path, error: lmdb.Error) -> DriverError:
    text = str(error)
    if _ALREADY_OPEN in text:
        return _already_open(path)
    if isinstance(error, lmdb.MemoryError):
        return DriverError(
            ErrorKind.CONFIGURATION,
            f"{path}: this process cannot map so much: give a smaller map_size, such as 64M",
        )
    kind = kind_of(error)
    return DriverError(kind, f"{path}: {text.splitlines()[0]}")
