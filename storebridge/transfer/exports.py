"""Exporting what a database holds into a file, and importing it into a database of any backend."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import BinaryIO

from storebridge.database import Database
from storebridge.errors import (
    ConfigurationError,
    CorruptStoreError,
    DamagedExportError,
    StorageError,
    StoreFullError,
)
from storebridge.location import Location, location_of
from storebridge.transfer import jsonlines, places
from storebridge.transfer.compressed import PLAIN, Format, format_of, writing
from storebridge.transfer.content import content_of, tables_of
from storebridge.transfer.digests import Digest, Tell
from storebridge.transfer.filling import Filling
from storebridge.transfer.progress import Counter, Watch, require_sound
from storebridge.transfer.readable import Skipped

_PARTIAL = ".partial"
_SUFFIXES = {".jsonl", ".gz", ".xz", ".zst"}
_HEAD = b'{"storebridge":"export"'
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
Target = str | Path | BinaryIO


@dataclass(frozen=True)
class ExportReport:
    """What an export did."""

    source: str
    target: str
    digest: Digest
    bytes: int
    """Of the file; 0 for a stream."""
    seconds: float


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    source: str
    target: str
    digest: Digest
    """Of what was to be imported; the target was read anew and holds exactly that."""
    skipped: tuple[Skipped, ...]
    """Entries that were left out, as their bodies cannot be read."""
    added: int
    resumed: bool
    """Whether it went on with what an earlier run had begun."""
    replaces: Path | None
    """Where the database is now that was at the target before."""
    seconds: float


def export_database(
    source: Database,
    target: str | Path | BinaryIO,
    *,
    overwrite: bool = False,
    watch: Watch = lambda progress: None,
) -> ExportReport:
    """Write what a database holds, as of one moment, to a file (compressed as its suffix says: .gz,
    .xz, .zst) or a stream.

    The file appears under its name when it is whole, was read again, from the disk, and has the
    digest of the database. ConfigurationError if there is one of that name, unless it may be
    overwritten.
    """
    started = perf_counter()
    counter = Counter(source, watch)
    counter.begin("check")
    require_sound(source)
    if not isinstance(target, str | Path):
        return _report(source, "-", _write(source, target, counter), 0, started)
    path = Path(target)
    if path.exists() and not overwrite:
        raise ConfigurationError(f"{path}: is there: choose another name, or overwrite it")
    format = format_of(path)
    with _file_errors(path), _made(path) as partial:
        with partial.open("wb") as file, writing(format, file) as stream:
            digest = _write(source, stream, counter)
        places.forget_cached(partial)
        size = partial.stat().st_size
        if _digest_in(partial, format, counter.begin("verify")) != digest:
            raise CorruptStoreError(f"{path}: what is read is not what was written")
    return _report(source, str(path), digest, size, started)


def _report(
    source: Database, target: str, digest: Digest, size: int, started: float
) -> ExportReport:
    return ExportReport(source.location.text, target, digest, size, perf_counter() - started)


def _write(source: Database, stream: BinaryIO, counter: Counter) -> Digest:
    with content_of(source) as content:
        return jsonlines.write(content, stream, counter.begin("copy"))


@contextmanager
def _made(path: Path) -> Iterator[Path]:
    """A new file for its owner alone that gets its name when the block has ended well.

    What a killed process has left of it is written anew; StorageError while another one is at it.
    """
    partial = path.with_name(path.name + _PARTIAL)
    fd = _claimed(path, partial)
    try:
        try:
            yield partial
            partial.rename(path)
            places.sync_folder(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    finally:
        os.close(fd)


def _claimed(path: Path, partial: Path) -> int:
    """The file, opened, empty, and locked for this process, where the file system has locks."""
    while True:
        # In a folder that others may write to, a link there would lead anywhere.
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _lock(path, fd)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), partial.stat()):
                    with suppress(PermissionError):  # a stick whose files have no modes
                        os.fchmod(fd, 0o600)
                    os.ftruncate(fd, 0)
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # it has got its name meanwhile


def _lock(path: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageError(f"{path}: another process is writing it: wait for it") from None
    except OSError:
        pass  # a file system without locks


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFullError(f"{path}: no room for it") from error
        raise StorageError(f"{path}: {error.strerror or error}") from error


def _digest_in(path: Path, format: Format, tell: Tell) -> Digest:
    with opened(path, format) as content:
        for table in tables_of(content.layouts):
            for rows in content.pages(table):
                tell(len(rows))
        return content.digest()


def is_export(path: str | Path) -> bool:
    """Whether there is a file whose name or first bytes are those of an export."""
    try:
        with open(path, "rb") as file:
            return Path(path).suffix in _SUFFIXES or file.read(len(_HEAD)) == _HEAD
    except (OSError, ValueError):
        return False


@contextmanager
def opened(source: Target, format: Format | None = None) -> Iterator[jsonlines.ExportContent]:
    """What is in an export: a file, or a stream that is not compressed."""
    if not isinstance(source, str | Path):
        yield jsonlines.ExportContent("-", source, PLAIN)
        return
    path = Path(source)
    format = format or format_of(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    with file, format.read(file) as stream:
        yield jsonlines.ExportContent(str(path), stream, format)


def import_database(
    source: Target,
    target: str | Path | Location,
    *,
    overwrite: bool = False,
    skip_quarantined: bool = False,
    watch: Watch = lambda progress: None,
) -> ImportReport:
    """Make the database at `target`, of any backend, hold what an export does, from a file or a
    stream.

    As with `Database.migrate_to` it is no store before all is there and verified, and the same call
    goes on where the last one was stopped. DamagedExportError, which names the line, for a file
    that is not as it was written: then nothing of it stays in the target.
    """
    started = perf_counter()
    location = location_of(target)
    name = os.path.realpath(source) if isinstance(source, str | Path) else "-"
    work = places.workplace(location, "import", name, overwrite=overwrite)
    counter = Counter(None, watch)
    with opened(source) as content, _nothing_of_damaged(work, name, skip_quarantined) as filling:
        digest = filling.fill(content, counter.begin("copy"))
        if filling.read_again(counter.begin("verify")) != digest:
            raise CorruptStoreError(f"{filling.name}: what is read is not what was written")
        replaced = filling.settle(location)
    return ImportReport(
        source=name,
        target=location.text,
        digest=digest,
        skipped=filling.skipped,
        added=filling.changes.added,
        resumed=filling.resumed is not None,
        replaces=replaced,
        seconds=perf_counter() - started,
    )


@contextmanager
def _nothing_of_damaged(work: Location, name: str, skip_quarantined: bool) -> Iterator[Filling]:
    """Fill a database; what came out of a damaged export before that was found is removed."""
    was_there = work.path is None or work.path.exists()
    try:
        with Filling(work, "import", name, skip_quarantined) as filling:
            try:
                yield filling
            except DamagedExportError:
                filling.clear()
                filling.settle(work)
                raise
    except DamagedExportError:
        if not was_there:
            places.remove(work)
        raise
