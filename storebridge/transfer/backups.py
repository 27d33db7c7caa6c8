"""Backups: verified exports in folders that keep some of them, and the way back.

A backup is an export of one moment (see `exports`): one compressed file, readable on any machine,
from which a database of any backend can be made. It appears under its name only after it was read
again and has the digest of what the database held.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, sleep

from storebridge import meta
from storebridge.database import Database
from storebridge.driver import Compactor
from storebridge.errors import (
    ConfigurationError,
    StorageError,
    StorebridgeError,
    StoreFullError,
)
from storebridge.location import Location
from storebridge.owner import machine_digest
from storebridge.times import parse_rfc3339
from storebridge.transfer.exports import ImportReport, export_database, import_database
from storebridge.transfer.progress import Progress

logger = logging.getLogger("storebridge")
_TIME = "%Y%m%dT%H%M%S"
_SUFFIX = ".jsonl.gz"
_SHARE = 2
"""A backup is compressed to less than the database's used bytes divided by this, mostly to a fifth:
what has to be free before one is begun."""
_ACTIVE = 1.0
"""Seconds after a change in which more of them are expected."""
_LONGEST_PAUSE = 0.05
_unfit = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Copy:
    """What became of a backup in one place."""

    place: str
    file: str | None = None
    """The file that holds it; None if none does."""
    is_new: bool = False
    """False: one that was made before is young enough."""
    sha256: str | None = None
    """The digest of a new one, as `verify` and `export` tell it."""
    removed: tuple[str, ...] = ()
    """Older backups that were removed."""
    error: str | None = None
    """Why this place does not hold one."""


@dataclass(frozen=True)
class BackupReport:
    """What a backup did, place by place; places that were not needed any more are not listed."""

    location: str
    sequence: int
    """The number of the last event when it began."""
    copies: tuple[Copy, ...]
    wanted: int

    @property
    def held(self) -> int:
        """How many places hold a backup."""
        return sum(copy.file is not None for copy in self.copies)

    @property
    def ok(self) -> bool:
        """Whether as many places hold one as were wanted."""
        return self.held >= self.wanted


def back_up(
    database: Database,
    places: Sequence[str | Path],
    *,
    copies: int | None = None,
    keep: int | None = None,
    if_older_than: timedelta | None = None,
) -> BackupReport:
    """Back a database up, while it is in use, into folders that exist; each is tried whatever
    became of the others, and the report says which hold it. It is read and written in small steps;
    while other threads of this process write, every other moment is theirs.

    `copies`: how many places are enough, in the order given; all if None. `keep`: how many backups
    of this database a folder keeps, the oldest go when a new one is whole. `if_older_than`: a place
    whose newest is younger is left as it is. That and when a backup was made is noted in the
    database, unless it is open for reading only; that it cannot be noted is logged.

    ConfigurationError for what cannot be asked; what goes wrong at a place is in the report.
    """
    wanted = _wanted(places, copies, keep)
    name, now, sequence = name_of(database), database.clock(), database.sequence()
    done: list[Copy] = []
    for place in places:
        if sum(copy.file is not None for copy in done) >= wanted:
            break
        try:
            done.append(_copy_to(database, Path(place), name, now, keep, if_older_than))
        except (StorebridgeError, OSError) as error:
            logger.warning("%s: no backup in %s: %s", database.location.text, place, error)
            done.append(Copy(str(place), error=str(error)))
    files = tuple(os.path.abspath(copy.file) for copy in done if copy.is_new and copy.file)
    if files and not database.read_only:
        _note(database, sequence, files, now)
    return BackupReport(database.location.text, sequence, tuple(done), wanted)


def _note(database: Database, sequence: int, files: tuple[str, ...], now: datetime) -> None:
    try:
        database.write(meta.write_backup, sequence, files, now)
    except StorageError as error:
        # The backup is there and good, and may be needed for this very reason.
        logger.warning("%s: the backup is not noted in it: %s", database.location.text, error)


def _wanted(places: Sequence[str | Path], copies: int | None, keep: int | None) -> int:
    if isinstance(places, str | Path) or not places:
        raise ConfigurationError("a backup needs at least one folder to go to")
    if copies is not None and not 1 <= copies <= len(places):
        raise ConfigurationError(f"copies {copies}: accepted are 1 to {len(places)}, the places")
    if keep is not None and keep < 1:
        raise ConfigurationError(f"keep {keep}: at least the new backup is kept")
    return len(places) if copies is None else copies


def name_of(database: Database) -> str:
    """What the backups of a database are called, before the time: after its file, and a digest of
    the machine and the whole path, so that those of two databases never pass for one another's."""
    location = database.location
    path = Path(location.path or location.target)
    name = _unfit.sub("_", path.stem or path.name).strip("._-") or "database"
    place = os.path.realpath(location.path) if location.path else location.text
    return f"{name}-{hashlib.sha256(f'{machine_digest()} {place}'.encode()).hexdigest()[:8]}"


def backups_in(folder: Path, name: str) -> list[tuple[datetime, Path]]:
    """The backups of this name in a folder, oldest first, and when they were made."""
    pattern = re.compile(re.escape(name) + r"-(\d{8}T\d{6})(\.\d{6})Z" + re.escape(_SUFFIX))
    found = []
    for path in folder.iterdir():
        match = pattern.fullmatch(path.name)
        if match:
            time = datetime.strptime("".join(match.groups()), _TIME + ".%f")
            found.append((time.replace(tzinfo=UTC), path))
    return sorted(found)


def _copy_to(
    database: Database,
    folder: Path,
    name: str,
    now: datetime,
    keep: int | None,
    if_older_than: timedelta | None,
) -> Copy:
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder: make it, or mount what it is on")
    there = backups_in(folder, name)
    # One of a time to come says that the clock was wrong: it is no reason to make none.
    if if_older_than is not None and there and timedelta() <= now - there[-1][0] < if_older_than:
        return Copy(str(folder), file=str(there[-1][1]))
    _remove_abandoned(folder, name, now.timestamp())
    _require_room(database, folder)
    path = folder / f"{name}-{now.astimezone(UTC).strftime(_TIME)}.{now.microsecond:06}Z{_SUFFIX}"
    exported = export_database(database, path, watch=Yielding(database))
    removed = _remove_oldest(folder, name, path, keep)
    return Copy(
        str(folder), file=str(path), is_new=True, sha256=exported.digest.sha256, removed=removed
    )


class Yielding:
    """Leaves the interpreter to the other threads after each step, for as long as the step took,
    while this process writes to the database: between two waits for the disk a writer would have
    to ask for it again and again, and get it some milliseconds later each time.
    """

    def __init__(self, database: Database) -> None:
        self._statistics = database.statistics
        self._written = self._statistics.transactions
        self._until = 0.0
        self._since = perf_counter()

    def __call__(self, progress: Progress) -> None:
        now = perf_counter()
        written = self._statistics.transactions
        if written != self._written:
            self._written, self._until = written, now + _ACTIVE
        if now < self._until:
            sleep(min(now - self._since, _LONGEST_PAUSE))
        self._since = perf_counter()


def _require_room(database: Database, folder: Path) -> None:
    if not isinstance(database.driver, Compactor):
        return
    usage = database._guarded(database.driver.usage)
    needed, free = (usage.size - usage.free) // _SHARE, shutil.disk_usage(folder).free
    if free < needed:
        raise StoreFullError(f"{folder}: {free:,} bytes free, a backup may need {needed:,}")


def _remove_oldest(folder: Path, name: str, new: Path, keep: int | None) -> tuple[str, ...]:
    if keep is None:
        return ()
    older = [path for _, path in backups_in(folder, name) if path != new]
    gone = []
    for path in older[: max(0, len(older) - keep + 1)]:
        try:
            path.unlink(missing_ok=True)
            gone.append(str(path))
        except OSError as error:  # the new one is there all the same
            logger.warning("%s: cannot be removed: %s", path, error.strerror)
    return tuple(gone)


def _remove_abandoned(folder: Path, name: str, now: float) -> None:
    """What killed backups left. One that is still being written is younger than a day."""
    for path in folder.glob(f"{name}-*{_SUFFIX}.partial"):
        with suppress(OSError):
            if path.stat().st_mtime < now - 86400:
                path.unlink()


def restore(source: str | Path, location: str | Path | Location) -> ImportReport:
    """Make a location hold what a backup, or any export, does. It is verified as a whole before it
    takes the place of what is there, which is kept under another name.

    DamagedExportError for a file that is not as it was written, StoreLockedError while a process
    has the location open: it is then as before.
    """
    return import_database(source, location, overwrite=True)


def last_backup(database: Database) -> tuple[datetime, meta.Backup] | None:
    """When the last good backup was made, and where it is; None if never."""
    found = database.read(meta.read_backup)
    return None if found is None else (parse_rfc3339(found.at), found)
