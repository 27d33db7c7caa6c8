"""Looking a database over: what is well, what is worth knowing, what is wrong, and the command that
mends it."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from storebridge import meta
from storebridge.check import QUARANTINED, check
from storebridge.database import Database
from storebridge.driver import Compactor, Fault, ReaderLister
from storebridge.driver.capabilities import Movable
from storebridge.errors import (
    ConfigurationError,
    CorruptStoreError,
    EventsExpiredError,
    ForeignFileError,
    StorebridgeError,
    StoreLockedError,
)
from storebridge.events import Event
from storebridge.location import Location
from storebridge.opening import open_database
from storebridge.transfer.backups import last_backup
from storebridge.transfer.places import users_of

Verdict = Literal["good", "notice", "bad"]
MEBIBYTE = 1 << 20
LEAST_FREE_DISK = 64 * MEBIBYTE
"""Less than this and the database's own size free is bad: no backup and no compaction fits."""
LARGE_LOG = 64 * MEBIBYTE
"""A log larger than this and than the database itself is bad: something keeps it from being
folded in."""
WORTH_RECLAIMING = 4 * MEBIBYTE
FAR_BEHIND = 1000
"""Transactions that a reader may be behind before it is worth a word: a backup may be."""
CLOCK_LEEWAY = timedelta(minutes=5)
BACKUP_DUE = timedelta(days=7)
OLDEST_CLOCK = datetime(2025, 1, 1, tzinfo=UTC)
_LOGS = ("-wal", "-journal")
_FAULTS_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `mend`: the command, or the advice, that mends it."""

    subject: str
    verdict: Verdict
    what: str
    mend: str | None = None


def examine(location: Location, *, quick: bool = False) -> Iterator[Finding]:
    """Look a database over without changing anything, part by part.

    `quick` leaves out what reads every entry: drift, quarantined records, the engine's own check.
    A database that cannot be opened is a finding, not an error; only a location where nothing is
    raises ConfigurationError.
    """
    path = location.path
    if path is not None:
        if not path.exists():
            raise ConfigurationError(f"{location.text}: no database there yet")
        files = _files_of(location)
        yield from _owners(path, files)
        yield from _logs(location, path, files)
        yield _free_disk(location, path, files)
    try:
        database = open_database(location, read_only=True, create=False)
    except StorebridgeError as error:
        yield _closed(location, error)
        return
    with database:
        parts: tuple[Callable[[Database], Iterator[Finding]], ...] = (
            *(_layout, _openers, _lock, _readers, _space, _backup, _clock),
            *(() if quick else (_content,)),
        )
        for part in parts:
            try:
                yield from part(database)
            except StorebridgeError as error:
                # One part that cannot be looked at must not hide the others.
                mend = _restoring(location, error)
                yield Finding(part.__name__.strip("_"), "bad", str(error), mend)


def _closed(location: Location, error: StorebridgeError) -> Finding:
    if isinstance(error, StoreLockedError):
        what = f"in use, so its content was not looked at: {error}"
        return Finding("opening", "notice", what, "stop the service, or ask it, then look again")
    mend = _restoring(location, error)
    if location.path is None:
        mend = "mend the location, the network or the server"
    return Finding("opening", "bad", str(error), mend)


def _restoring(location: Location, error: StorebridgeError) -> str | None:
    """What to do about a file that is damaged. Other errors say it themselves."""
    restore = f"storebridge restore BACKUP --location {_quoted(location)}"
    if isinstance(error, ForeignFileError):
        return f"if it was a database, move it elsewhere, then: {restore}"
    return restore if isinstance(error, CorruptStoreError) else None


def _files_of(location: Location) -> list[Path]:
    """The files of a database that are there: itself and those at its side, or what is in its
    folder."""
    assert location.path is not None
    backend = location.backend
    listed = backend.files(location.target) if isinstance(backend, Movable) else [location.path]
    found = [path for path in listed if path.exists()]
    return [file for path in found for file in [path, *sorted(path.rglob("*"))]]


def _owners(path: Path, files: Iterable[Path]) -> Iterator[Finding]:
    first, found = path.stat(), False
    for file, status in _statuses(files):
        for finding in _file(file, status, first):
            found = True
            yield finding
    if not found:
        mode = stat.filemode(first.st_mode)
        yield Finding(
            "files", "good", f"owned by user {first.st_uid}, {mode}, like all at its side"
        )


def _statuses(files: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for file in files:
        with suppress(FileNotFoundError):  # a log that was folded in at this moment
            yield file, file.stat()


def _file(file: Path, status: os.stat_result, first: os.stat_result) -> Iterator[Finding]:
    name = shlex.quote(str(file))
    if status.st_uid != first.st_uid:
        what = f"{file.name} belongs to user {status.st_uid}, the database to {first.st_uid}"
        yield Finding("files", "bad", what, f"chown {first.st_uid}:{first.st_gid} {name}")
    if status.st_mode & stat.S_IWOTH:
        yield Finding("files", "bad", f"{file.name}: every user may write it", f"chmod o-w {name}")
    elif status.st_mode & stat.S_IROTH and stat.S_ISREG(status.st_mode):
        what = f"{file.name}: every user may read it"
        yield Finding("files", "notice", what, f"chmod o-r {name}, unless it is meant")


def _logs(location: Location, path: Path, files: Sequence[Path]) -> Iterator[Finding]:
    """What was written and has not been folded into the file yet."""
    logs = [file for file in files if file.name.endswith(_LOGS)]
    size = path.stat().st_size
    for file, status in _statuses(logs):
        what = f"{file.name} has {_bytes(status.st_size)}"
        if status.st_size <= max(LARGE_LOG, size):
            yield Finding("log", "good", what)
            continue
        users = ", ".join(map(str, sorted(users_of(files)))) or "nobody who can be seen"
        yield Finding(
            "log",
            "bad",
            f"{what}: a reader, or a crash, keeps it from being folded in; open in: {users}",
            f"end readers that stay open, then: storebridge compact {_quoted(location)}",
        )
    if not logs:
        yield Finding("log", "good", "nothing waits to be folded in")


def _free_disk(location: Location, path: Path, files: Iterable[Path]) -> Finding:
    """Whether there is room to go on, and for a copy."""
    free = shutil.disk_usage(path).free
    size = sum(status.st_size for _, status in _statuses(files) if stat.S_ISREG(status.st_mode))
    what = f"{_bytes(free)} free, the database has {_bytes(size)}"
    if free < min(LEAST_FREE_DISK, max(size, MEBIBYTE)):
        mend = f"make room, or: storebridge compact {_quoted(location)} --keep 30d"
        return Finding("disk", "bad", what, mend)
    if free < size:
        return Finding("disk", "notice", f"{what}: no room for a copy beside it", "make room")
    return Finding("disk", "good", what)


def _layout(database: Database) -> Iterator[Finding]:
    layout = database.driver.layout()
    names = ", ".join(database.layouts) or "no stores yet"
    yield Finding("layout", "good", f"version {layout}; {names}")
    for name in database.read(meta.unreadable_layouts):
        what = f"the entry {name!r} cannot be read"
        yield Finding(
            "layout", "bad", what, "start the service that owns the store: it writes it anew"
        )


def _openers(database: Database) -> Iterator[Finding]:
    openers = database.read(meta.read_openers).values()
    for owner in openers:
        if owner.is_alive() is False:
            what = f"process {owner.pid} wrote here and ended without closing"
            mend = f"storebridge recount --repair {_quoted(database.location)}"
            yield Finding("openers", "notice", what, mend)
    alive = [str(owner.pid) for owner in openers if owner.is_alive()]
    yield Finding("openers", "good", f"in use by {', '.join(alive) or 'no process'}")


def _lock(database: Database) -> Iterator[Finding]:
    holder = database.holder()
    what = "nobody writes at this moment" if holder is None else f"process {holder} writes"
    yield Finding("lock", "good", what)


def _readers(database: Database) -> Iterator[Finding]:
    driver = database.driver
    if not isinstance(driver, ReaderLister):
        return
    found = database._guarded(driver.readers)
    late = [reader for reader in found if reader.behind >= FAR_BEHIND]
    for pid, behind in late:
        what = f"process {pid} reads what was there {behind} transactions ago: the file grows"
        yield Finding("readers", "notice", what, f"end it if it hangs: kill {pid}")
    if not late:
        yield Finding("readers", "good", "nobody reads what has been replaced long ago")


def _space(database: Database) -> Iterator[Finding]:
    driver = database.driver
    if not isinstance(driver, Compactor):
        return
    usage = database._guarded(driver.usage)
    what = f"{_bytes(usage.size)}, of which {_bytes(usage.free)} hold nothing"
    if usage.free > WORTH_RECLAIMING and usage.share > 0.5:
        mend = f"storebridge compact {_quoted(database.location)}"
        yield Finding("space", "notice", what, mend)
    else:
        yield Finding("space", "good", what)


def _backup(database: Database) -> Iterator[Finding]:
    mend = f"storebridge backup FOLDER --location {_quoted(database.location)}"
    last = last_backup(database)
    if last is None:
        yield Finding("backup", "notice", "never backed up", mend)
        return
    at, backup = last
    behind, age = database.sequence() - backup.sequence, database.clock() - at
    since = f"{_age(age)} ago ({at:%Y-%m-%d %H:%M} UTC), {_counted(behind, 'event')} since"
    what = f"{since}, in {', '.join(backup.files)}"
    due = behind > 0 and age > BACKUP_DUE
    yield Finding("backup", "notice" if due else "good", what, mend if due else None)


def _age(age: timedelta) -> str:
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if age.total_seconds() >= 2 * length:
            return f"{age.total_seconds() // length:.0f} {unit}"
    return _counted(round(age.total_seconds()), "second")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _clock(database: Database) -> Iterator[Finding]:
    now, newest = database.clock(), _newest_event(database)
    if newest is not None and newest.at > now + CLOCK_LEEWAY:
        what = (
            f"it is {now:%Y-%m-%d %H:%M} UTC, but the last event is of {newest.at:%Y-%m-%d %H:%M}"
        )
        yield Finding("clock", "bad", what, "set the clock: timedatectl set-ntp true")
    elif now < OLDEST_CLOCK:
        what = f"it is {now:%Y-%m-%d %H:%M} UTC: the clock was never set"
        yield Finding("clock", "bad", what, "set the clock: timedatectl set-ntp true")
    else:
        yield Finding("clock", "good", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _newest_event(database: Database) -> Event | None:
    """None also where the last one was removed, as those of deleted records are."""
    last = database.sequence()
    with suppress(EventsExpiredError):
        return next(database.events(last - 1), None) if last else None
    return None


def _content(database: Database) -> Iterator[Finding]:
    """Drift, quarantined records and whatever else `check` finds."""
    shown = total = 0
    for fault in check(database):
        total += 1
        if shown < _FAULTS_SHOWN:
            shown += 1
            key = " ".join(map(str, fault.key or ()))
            place = " ".join(filter(None, (fault.table or "the file", key)))
            mend = _mending(database.location, fault)
            yield Finding("content", "bad", f"{place}: {fault.problem}", mend)
    if total > shown:
        what = f"and {total - shown} more"
        yield Finding("content", "bad", what, f"storebridge check {_quoted(database.location)}")
    if not total:
        yield Finding("content", "good", "bodies, indexes, labels and counters agree")


def _mending(location: Location, fault: Fault) -> str:
    if not fault.table:
        return f"storebridge restore BACKUP --location {_quoted(location)}"
    if fault.problem != QUARANTINED or not fault.key:
        return f"storebridge repair {_quoted(location)}"
    # No repair knows what the body said: somebody has to look at it.
    key = shlex.join(map(str, fault.key))
    look = f"storebridge get {fault.table} {key} --location {_quoted(location)}"
    return f"{look} prints it; restore a backup, or take it out with --unreadable"


def _quoted(location: Location) -> str:
    return shlex.quote(location.text)


def _bytes(number: int) -> str:
    size, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
