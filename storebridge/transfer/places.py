"""Where a transfer puts what it makes, and what is there before.

What is to take the place of another database is made beside it and put there when it is whole; the
other is renamed, not removed. Both are renames of files, so nobody may have them open.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

from storebridge import meta
from storebridge.database import Database
from storebridge.driver import Options, Transaction
from storebridge.driver.capabilities import Movable
from storebridge.errors import (
    ConfigurationError,
    CorruptStoreError,
    LayoutVersionError,
    StorageError,
    StoreLockedError,
)
from storebridge.location import Location
from storebridge.opening import INCOMING, is_open_here, kept_closed, open_even_incomplete
from storebridge.owner import Owner

_REPLACED = ".replaced"


class Found(NamedTuple):
    """What is at a location."""

    transfer: meta.Transfer | None = None
    """What it is being filled by."""
    holds: str = ""
    """What is in it, for people; empty: nothing."""
    openers: tuple[Owner, ...] = ()
    unreadable: StorageError | None = None
    """Why it cannot be opened: it is damaged, or of a layout that is not known."""


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
    try:
        return _look_into(open_even_incomplete(replace(location, options=options)))
    except (CorruptStoreError, LayoutVersionError) as error:
        if is_ours:
            raise
        return Found(holds="a database that cannot be opened", unreadable=error)


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
    names = f"the {'store' if len(stores) == 1 else 'stores'} {', '.join(stores)}"
    holds = names if stores else "events" if events else ""
    openers = tuple(meta.read_openers(transaction).values())
    return Found(meta.read_transfer(transaction), holds, openers)


def workplace(location: Location, what: str, source: str, *, overwrite: bool) -> Location:
    """Where to make what is to be at a location: there, or beside it if something else is there.

    ConfigurationError where that is not to be overwritten, or cannot be; for what is damaged, and
    is not to be overwritten, CorruptStoreError.
    """
    if location.options.read_only:
        raise ConfigurationError(f"{location.text}: read-only, so nothing can be put there")
    found = look(location)
    if found.unreadable is not None and not overwrite:
        raise found.unreadable
    aside = beside(location)
    begun = Found() if aside is None else _begun(aside)
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


def _begun(aside: Location) -> Found:
    try:
        return look(aside, is_ours=True)
    except CorruptStoreError as error:
        raise CorruptStoreError(
            f"{error}: it is a copy that was not finished: remove it, then give the command again"
        ) from error


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
    if made is None or location.path is None:
        return
    with kept_closed(location):
        # Another process may have put it there while this one waited.
        if location.path.exists():
            return
        transfer = look(made, is_ours=True).transfer
        if transfer is not None and transfer.verified:
            put_in_place(made, location)


def put_in_place(made: Location, location: Location) -> Path | None:
    """Rename what was made beside a location to it, and what was there before to a name that is
    returned. The new one is owned and may be read by whom the old one was. Both are closed. Stopped
    in between, `workplace` finds what was made.

    StoreLockedError if this process or another has the old one open.
    """
    assert isinstance(location.backend, Movable)
    files = location.backend.files
    new, old = files(made.target), files(os.path.realpath(location.target))
    with kept_closed(location):
        _require_unused(location, old)
        # Only now: who has just closed it may have removed what was at its side.
        there = [path for path in old if path.exists()]
        ends = [path.name[len(old[0].name) :] for path in there]
        if old[0].exists():
            _give_to_owners(new, old, is_as_asked=location.options.mode != Options().mode)
            kept = _free_name(old[0])
        else:
            kept = _name_for_rest(old[0], ends)
        # The first file is what a database is recognised by: it goes before the others, and comes
        # last.
        for path, end in zip(there, ends, strict=True):
            path.rename(kept + end)
        for path, place in reversed(list(zip(new, old, strict=True))):
            if path.exists():
                path.rename(place)
        sync_folder(old[0].parent)
    return Path(kept) if there else None


def _give_to_owners(new: Sequence[Path], old: Sequence[Path], *, is_as_asked: bool) -> None:
    """Let those use the new files who could use the old ones, else whoever restores as another user
    locks the service out. Permissions that were asked for stay."""
    for made, before in zip(new, old, strict=True):
        for path in [made, *made.rglob("*")]:
            twin = before / path.relative_to(made)
            like = (twin if twin.exists() else old[0]).stat()
            if not path.exists() or stat.S_IFMT(like.st_mode) != stat.S_IFMT(path.stat().st_mode):
                continue
            if os.geteuid() == 0:
                os.chown(path, like.st_uid, like.st_gid)
            if not is_as_asked:
                path.chmod(stat.S_IMODE(like.st_mode))


def _require_unused(location: Location, files: Sequence[Path]) -> None:
    users = users_of(files)
    if not users:
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
    return next(name for name in _names(path) if not os.path.lexists(name))


def _name_for_rest(path: Path, ends: Sequence[str]) -> str:
    """Where the first file was renamed before the process was killed, the rest belongs beside it:
    to the last name, if nothing is there."""
    last = ""
    for name in _names(path):
        if not os.path.lexists(name):
            taken = any(os.path.lexists(last + end) for end in ends)
            return name if taken or not last else last
        last = name
    raise AssertionError("there are ever more names")


def _names(path: Path) -> Iterator[str]:
    yield f"{path}{_REPLACED}"
    for number in count(2):
        yield f"{path}{_REPLACED}-{number}"


def remove(location: Location) -> None:
    """Remove the files of a database that is closed, where its backend says which they are."""
    if not isinstance(location.backend, Movable):
        return
    for path in location.backend.files(location.target):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def forget_cached(path: Path) -> None:
    """Make a file, or those in a folder, permanent, and have the system forget what it keeps of
    them in memory, if it can be told to: what is read next comes from the disk.
    """
    for file in [path, *path.rglob("*")]:
        if file.is_file():
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)  # what is not on the disk yet is not forgotten
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder permanent."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
