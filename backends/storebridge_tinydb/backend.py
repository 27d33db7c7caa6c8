"""Opening TinyDB files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from storebridge.driver.backend import Options
from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.ordered import OWN

if TYPE_CHECKING:
    from storebridge_tinydb.base import Base
    from storebridge_tinydb.contents import Contents, Mark
    from storebridge_tinydb.driver import TinyDriver
    from storebridge_tinydb.journal import Found

_OBJECT = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*["}]|\x18"')
"""Of a file that was written into by a process that was killed the first byte is another."""
_OURS = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"%s"' % OWN.table.encode())


class TinyBackend:
    """Opens a TinyDB file. One process at a time has it open for writing."""

    name = "tinydb"
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".json",)
    extra_options: tuple[str, ...] = ()

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it begins as a JSON object does."""
        return _OBJECT.match(head) is not None

    def open(self, target: str, options: Options) -> TinyDriver:
        """Open or create."""
        from storebridge_tinydb.driver import kind_of

        # The file itself, not a link to it, is what will be replaced, and has a journal beside it.
        path = Path(os.path.realpath(target))
        try:
            made = _prepare(path, options)
            return _open(path, options, made)
        except PermissionError as error:
            what = "open it read-only, as its owner, or change its mode or its folder's"
            raise _configuration(path, f"no permission; {what}") from error
        except OSError as error:
            kind = kind_of(error) or ErrorKind.CONFIGURATION
            raise DriverError(kind, f"{path}: {error.strerror or error}") from error

    def files(self, target: str) -> list[Path]:
        """The file, its journal, and where who waits for it says so."""
        return [Path(target + end) for end in ("", "-journal", "-journal-wait", "-wait")]

    def shell(self, target: str) -> list[str] | None:
        """TinyDB has no shell."""
        return None


def _prepare(path: Path, options: Options) -> bool:
    """See that there is a file that may be opened as asked. True if it had to be made."""
    if path.is_dir():
        raise _configuration(path, "a folder, but a TinyDB database is a file")
    if path.exists():
        if not path.is_file():
            raise _configuration(path, "not a regular file")
        if not options.read_only:
            _require_permission(path)
        return False
    if options.read_only or not options.create:
        raise _configuration(path, "no TinyDB database there yet")
    if not path.parent.is_dir():
        raise _configuration(path.parent, "no such folder: make it first")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, options.mode)
    except FileExistsError:  # someone else was quicker
        return False
    try:
        os.fchmod(fd, options.mode)
    finally:
        os.close(fd)
    return True


def _require_permission(path: Path) -> None:
    """Whoever writes makes files beside it, one of which takes its place."""
    status = os.stat(path)
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError
    if os.geteuid() not in (0, status.st_uid) and status.st_gid not in {
        os.getegid(),
        *os.getgroups(),
    }:
        raise _configuration(
            path,
            "a file that you write in its place would lock its owner out, as you are not in its"
            " group; open it read-only, or as its owner",
        )


def _open(path: Path, options: Options, made: bool) -> TinyDriver:
    from storebridge_tinydb.base import Base

    base = Base(path, read_only=options.read_only, lock_timeout=options.lock_timeout)
    try:
        return _load(base, options)
    except BaseException:
        if made:
            path.unlink(missing_ok=True)
        base.close()
        raise


def _load(base: Base, options: Options) -> TinyDriver:
    from storebridge_tinydb import journal
    from storebridge_tinydb.contents import Mark
    from storebridge_tinydb.driver import TinyDriver

    contents = _contents(base.path, base.read())
    writes = not options.read_only
    mark = contents.mark or Mark(os.urandom(8).hex(), 0)
    path = journal.path_beside(base.path)
    found = journal.read(path, sync=writes and options.durability != "off")
    if found is not None and _is_in(found, mark):
        found = None
    if found is not None:
        mark = _replay(base, contents, mark, found)
    elif writes:
        path.unlink(missing_ok=True)
    return TinyDriver(
        base,
        contents,
        mark,
        options.durability if writes else None,
        fold_first=contents.mark is None or found is not None,
    )


def _is_in(found: Found, mark: Mark) -> bool:
    """Whether the file has it all: only to take the journal away was not come to."""
    return found.header.database == mark.database and found.last <= mark.commit


def _contents(path: Path, data: bytes) -> Contents:
    """What is in the file. An empty one is new, and so is one of no tables."""
    from storebridge_tinydb.contents import Contents

    try:
        contents = Contents(data or b"{}")
    except ValueError as error:
        if _OURS.match(data):
            raise DriverError(
                ErrorKind.CORRUPT, f"{path}: damaged, {error}: restore a backup"
            ) from error
        raise DriverError(
            ErrorKind.FOREIGN, f"{path}: not a TinyDB file; choose another location"
        ) from error
    if contents.mark is None and not contents.is_empty:
        raise DriverError(
            ErrorKind.FOREIGN,
            f"{path}: perhaps a TinyDB file, but not one of storebridge's; choose another location",
        )
    return contents


def _replay(base: Base, contents: Contents, mark: Mark, found: Found) -> Mark:
    """Do again what the journal says was committed since the file was written."""
    from storebridge_tinydb import journal
    from storebridge_tinydb.contents import Mark

    path = journal.path_beside(base.path)
    if found.header.base.sha256 != base.mark.sha256:
        raise DriverError(
            ErrorKind.CORRUPT,
            f"{base.path}: changed by another program, and {path} has what was committed on top of"
            " what it was before: put that back, or move the journal away to go on without",
        )
    for line in found.lines:
        contents.patch(line.tables)
    return Mark(mark.database, found.last)


def _configuration(path: Path, what: str) -> DriverError:
    return DriverError(ErrorKind.CONFIGURATION, f"{path}: {what}")
