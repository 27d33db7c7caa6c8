"""Where a transfer puts what it makes, and what is there before.

What is to take the place of another database is made beside it and put there when it is whole; the
other is renamed, not removed. Both are renames of files, so nobody may have them open.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from storebridge import meta
from storebridge.database import Database
from storebridge.driver import Transaction
from storebridge.driver.capabilities import Movable
from storebridge.errors import ConfigurationError, StoreLockedError
from storebridge.location import Location
from storebridge.opening import INCOMING, is_open_here, open_even_incomplete
from storebridge.owner import Owner

_REPLACED = ".replaced"


class Found(NamedTuple):
    """What is at a location."""

    transfer: meta.Transfer | None = None
    """What it is being filled by."""
    holds: str = ""
    """What is in it, for people; empty: nothing."""
    openers: tuple[Owner, ...] = ()


def spelled(location: Location) -> str:
    """A location without its options, and always in the same way."""
    if location.path is None:
        return location.text
    return f"{location.backend.name}://{os.path.realpath(location.target)}"


def look(location: Location, *, is_ours: bool = False) -> Found:
    """What is at a location; nothing there is made or changed, but for what a killed process left
    to be recovered in a database that a transfer made and `is_ours`.

    ConfigurationError for one whose content would be gone as soon as it is closed.
    """
    if is_open_here(location):
        return _look_into(open_even_incomplete(location))
    if location.path is None:
        return _look_into(open_even_incomplete(location), only_persistent=True)
    if not _is_there(location.path):
        return Found()
    options = replace(location.options, read_only=not is_ours, create=is_ours)
    return _look_into(open_even_incomplete(replace(location, options=options)))


def _is_there(path: Path) -> bool:
    """Whether anything is in a file or folder."""
    if path.is_dir():
        return any(path.iterdir())
    return path.exists() and path.stat().st_size > 0


def _look_into(database: Database, *, only_persistent: bool = False) -> Found:
    with database:
        if only_persistent and not database.driver.traits.persistent:
            raise ConfigurationError(
                f"{database.location.text}: what is put there is gone when it is closed: open it"
                " in this process before, or choose another location"
            )
        return database.read(_found)


def _found(transaction: Transaction) -> Found:
    stores = [*meta.read_layouts(transaction), *meta.unreadable_layouts(transaction)]
    events = any(transaction.totals("").values()) or meta.read_checkpoints(transaction)
    holds = f"the store {', '.join(stores)}" if stores else "events" if events else ""
    openers = tuple(meta.read_openers(transaction).values())
    return Found(meta.read_transfer(transaction), holds, openers)


def workplace(location: Location, what: str, source: str, *, overwrite: bool) -> Location:
    """Where to make what is to be at a location: there, or beside it if something else is there.

    ConfigurationError where that is not to be overwritten, or cannot be.
    """
    if location.options.read_only:
        raise ConfigurationError(f"{location.text}: read-only, so nothing can be put there")
    found = look(location)
    aside = beside(location)
    begun = look(aside, is_ours=True) if aside is not None else Found()
    if aside is not None and begun.transfer is not None and (overwrite or not _is_used(found)):
        _require_same(begun.transfer, what, source, aside, overwrite=overwrite)
        return aside
    if found.transfer is not None:
        _require_same(found.transfer, what, source, location, overwrite=overwrite)
        return location
    if not found.holds:
        return location
    if not overwrite:
        raise ConfigurationError(
            f"{location.text}: holds {found.holds}: choose another location, or overwrite it"
        )
    if aside is None or is_open_here(location):
        raise ConfigurationError(
            f"{location.text}: holds {found.holds} and cannot be replaced as a file, or not while"
            " this process has it open: choose another location"
        )
    if begun.holds:
        raise ConfigurationError(f"{aside.text}: is in the way: move it elsewhere")
    return aside


def _is_used(found: Found) -> bool:
    return bool(found.holds) or found.transfer is not None


def _require_same(
    transfer: meta.Transfer, what: str, source: str, where: Location, *, overwrite: bool
) -> None:
    if (transfer.what, transfer.source) != (what, source) and not overwrite:
        raise ConfigurationError(
            f"{where.text}: {transfer}: give that command again, or overwrite what it has made"
        )


def beside(location: Location) -> Location | None:
    """Where what is to replace a location is made; None: its backend's databases are no files."""
    if location.path is None or not isinstance(location.backend, Movable):
        return None
    target = os.path.realpath(location.target) + INCOMING
    return replace(location, target=target, text=f"{location.backend.name}://{target}")


def finish(location: Location) -> None:
    """Put what was made beside a location there, where a process was killed when the old database
    had been renamed and the new one not yet. Nothing is done where that is not what happened."""
    made = beside(location)
    transfer = None if made is None else look(made, is_ours=True).transfer
    if made is not None and transfer is not None and transfer.verified:
        put_in_place(made, location)


def put_in_place(made: Location, location: Location) -> Path | None:
    """Rename what was made beside a location to it, and what was there before to a name that is
    returned. Both are closed. Stopped in between, `workplace` finds what was made.

    StoreLockedError if a process has the old one open.
    """
    assert isinstance(location.backend, Movable)
    files = location.backend.files
    new, old = files(made.target), files(os.path.realpath(location.target))
    there = [path for path in old if path.exists()]
    _require_unused(location, there)
    kept = _free_name(old[0])
    # The first file is what a database is recognised by: it goes before the others, and comes last.
    for path in there:
        path.rename(kept + path.name[len(old[0].name) :])
    for path, place in reversed(list(zip(new, old, strict=True))):
        if path.exists():
            path.rename(place)
    sync_folder(old[0].parent)
    return Path(kept) if there else None


def _require_unused(location: Location, files: Sequence[Path]) -> None:
    users = users_of(files)
    if files and not users:
        users = {each.pid for each in look(location).openers if each.is_alive()}
    if users:
        pid = min(users)
        raise StoreLockedError(
            f"{location.text}: process {pid} has it open: stop it, then give the command again", pid
        )


def users_of(files: Iterable[Path]) -> set[int]:
    """Other processes that have a file open, or one in a folder, as far as the system tells."""
    paths = [os.path.realpath(path) for path in files]
    folders = tuple(path + os.sep for path in paths)
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            for entry in (process / "fd").iterdir():
                with suppress(OSError):
                    opened = os.readlink(entry)
                    if opened in paths or opened.startswith(folders):
                        found.add(int(process.name))
    return found - {os.getpid()}


def _free_name(path: Path) -> str:
    """What the old database is called from now on."""
    name, number = f"{path}{_REPLACED}", 1
    while os.path.lexists(name):
        number += 1
        name = f"{path}{_REPLACED}-{number}"
    return name


def remove(location: Location) -> None:
    """Remove the files of a database that is closed, where its backend says which they are."""
    if not isinstance(location.backend, Movable):
        return
    for path in location.backend.files(location.target):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder permanent."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
