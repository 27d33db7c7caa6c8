"""The driver: tables over documents in memory, which a journal and now and then the file follow."""

from __future__ import annotations

import errno
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from storebridge.driver import (
    DriverError,
    Durability,
    ErrorKind,
    Field,
    Key,
    Range,
    Reclaimed,
    Table,
    Traits,
    Usage,
    Values,
    ValuesOf,
)
from storebridge.driver.mapengine import MapEngine, Maps
from storebridge.driver.ordered import OWN, OrderedDriver, OrderedTransaction, SpaceName
from storebridge.driver.orderedtable import OrderedTable
from storebridge.driver.space import require_room
from storebridge_tinydb import journal as journals
from storebridge_tinydb.base import Base
from storebridge_tinydb.contents import Change, Changes, Contents, Mark, Plan
from storebridge_tinydb.journal import Header, Journal

FLOOR = 256 * 1024
"""Bytes: up to this size a journal may be larger than the file before it is folded into it."""
OWN_TABLE = Table(OWN.table, key=(Field("name"),))
_PAGE = 500
_NUMBERS = {
    errno.ENOSPC: ErrorKind.FULL,
    errno.EDQUOT: ErrorKind.FULL,
    errno.EFBIG: ErrorKind.FULL,
    errno.EROFS: ErrorKind.READ_ONLY,
}
logger = logging.getLogger("storebridge")


def kind_of(error: BaseException) -> ErrorKind | None:
    """See `Driver.kind`."""
    if isinstance(error, DriverError):
        return error.kind
    return _NUMBERS.get(error.errno or 0) if isinstance(error, OSError) else None


class TinyEngine(MapEngine):
    """A transaction over the maps that notes which entries it changes: documents are made of
    those.
    """

    __slots__ = ("changes",)

    def __init__(
        self, maps: Maps, write: bool, publish: Callable[[Maps], None], changes: Changes
    ) -> None:
        super().__init__(maps, write, publish)
        self.changes = changes

    def open_space(self, name: SpaceName, create: bool) -> str | None:
        space = super().open_space(name, False)
        if space is None and create:
            space = super().open_space(name, True)
            if name.by is None:
                self.changes.setdefault(name.table, {})
        return space

    def put(self, space: str, key: bytes, value: bytes) -> None:
        super().put(space, key, value)
        if space == OWN.table:
            self.changes.setdefault(space, {})[(key.decode(),)] = Change((), value)


class TinyTransaction(OrderedTransaction[str]):
    """Notes the values of entries: a document has them beside the body."""

    __slots__ = ("_changes",)

    def __init__(
        self, engine: TinyEngine, tables: Mapping[str, OrderedTable[str]], own: str | None
    ) -> None:
        super().__init__(engine, tables, own)
        self._changes = engine.changes

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        done = super().insert(table, key, values, body)
        if done:
            self._note(table, key, Change(values, body))
        return done

    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        super().replace(table, key, old_values, values, body)
        self._note(table, key, Change(values, body))

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        super().remove(table, key, values)
        self._note(table, key, None)

    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        super().rebuild(table, values_of)
        position: Key | None = None
        while True:
            rows, position = self.scan(table, Range(after=position, limit=_PAGE))
            for key, body in rows:
                values = values_of(key, body)
                if values is not None:
                    self._note(table, key, Change(values, body))
            if position is None:
                return

    def _note(self, table: str, key: Key, change: Change | None) -> None:
        self._changes.setdefault(table, {})[key] = change


class TinyDriver(OrderedDriver[str]):
    """An open TinyDB file.

    The truth is in memory: maps of bodies and index entries, and the rest of each document in
    `contents`. On disk it is the file, and the journal of what was committed since.
    """

    traits = Traits(processes="one")

    def __init__(
        self,
        base: Base,
        contents: Contents,
        mark: Mark,
        durability: Durability | None,
        *,
        fold_first: bool,
    ) -> None:
        """`durability` None: to read only. `fold_first`: the file alone does not say all that
        `contents` does, or not yet that it is ours.
        """
        super().__init__()
        self._base = base
        self._contents = contents
        self._mark = mark
        self._durability = durability
        self._journal: Journal | None = None
        self._journal_path = journals.path_beside(base.path)
        self._fold_first = fold_first
        self._fold_at = 0
        self._kept: Path | None = None
        self._files = threading.Lock()
        self._maps: Maps = {}
        self._declared: dict[str, Table] = {}
        self._closed: str | None = None
        self._declare(OWN_TABLE)
        _opened.add(self)

    # --- transactions ---

    @property
    def _writable(self) -> bool:
        return self._durability is not None

    def begin(self, write: bool, single: bool = False) -> TinyTransaction:
        return TinyTransaction(self._engine(write), self._tables, self._own)

    def _engine(self, write: bool) -> TinyEngine:
        if self._closed:
            raise DriverError(ErrorKind.CLOSED, f"{self._base.path}: {self._closed}")
        if write and not self._writable:
            raise DriverError(ErrorKind.READ_ONLY, f"{self._base.path}: opened read-only")
        changes: Changes = {}
        return TinyEngine(self._maps, write, partial(self._commit, changes), changes)

    def create_tables(self, tables: Sequence[Table], layout: int) -> None:
        for table in tables:
            self._declare(table)
        super().create_tables(tables, layout)

    def _declare(self, table: Table) -> None:
        self._declared[table.name] = table
        self._maps = {**self._maps, **self._contents.declare(table, self._maps)}

    # --- committing ---

    def _commit(self, changes: Changes, maps: Maps) -> None:
        with self._files:
            plans = self._contents.plan(changes, self._maps, self._declared)
            number = self._last_commit + 1
            try:
                if plans:
                    self._log(number, plans)
                self._publish(plans, maps)
            except BaseException:
                # An exception out of a signal handler may strike when it is already committed.
                if self._last_commit == number:
                    self._publish(plans, maps)
                raise
            if self._journal is not None and self._journal.size > self._fold_at:
                self._try_to_fold(self._journal.size)

    def _publish(self, plans: Mapping[str, Plan], maps: Maps) -> None:
        """Show what was committed. Readers keep the maps that they began with."""
        self._contents.apply(plans)
        self._maps = {**self._maps, **maps}

    @property
    def _last_commit(self) -> int:
        journal = self._journal
        return self._mark.commit if journal is None else journal.commit

    def _log(self, number: int, plans: Mapping[str, Plan]) -> None:
        if self._fold_first or (self._journal is not None and not self._journal.trusted):
            self._fold()
        else:
            self._check_base()
        if self._journal is not None and self._journal.header.base.sha256 != self._base.mark.sha256:
            self._drop_journal()  # a fold was interrupted
        if self._journal is None:
            self._journal = self._new_journal()
        self._journal.append(number, {name: plan.texts for name, plan in plans.items()})

    def _new_journal(self) -> Journal:
        assert self._durability is not None
        status = self._base.status
        self._fold_at = max(FLOOR, status.st_size)
        mark, base = self._mark, self._base.mark
        header = Header(journals.VERSION, mark.database, mark.commit, self._durability, base)
        return Journal(self._journal_path, header, status)

    def _check_base(self) -> None:
        try:
            self._base.check()
        except DriverError as error:
            raise self._overtaken(error) from error

    @property
    def _is_ahead(self) -> bool:
        """Whether the file lacks something that is committed."""
        journal = self._journal
        if journal is not None:
            return journal.commit > self._mark.commit
        return self._fold_first and self._mark.commit > 0

    def _overtaken(self, error: DriverError) -> DriverError:
        """Somebody has changed the file. What is committed here must not be lost with it."""
        if not self._is_ahead:
            what = "close it and open it again to go on with what is there now"
        else:
            try:
                self._kept = self._kept or self._base.keep(self._render())
            except OSError as problem:
                what = f"what was here could not be kept ({problem}): see to that, and try again"
                return DriverError(error.kind, f"{error}; {what}")
            what = (
                f"that was left alone, and what was here is in {self._kept}: let one of the two"
                f" have the name, and if it is not that one, remove {self._journal_path}"
            )
        return DriverError(error.kind, f"{error}; {what}")

    # --- folding ---

    def _render(self) -> bytes:
        return self._contents.render(self._maps, Mark(self._mark.database, self._last_commit))

    def _fold(self) -> None:
        """Write the file anew, with all that was committed, and take the journal away."""
        try:
            self._base.replace(self._render())
        except DriverError as error:
            raise self._overtaken(error) from error
        self._drop_journal()

    def _drop_journal(self) -> None:
        self._mark = Mark(self._mark.database, self._last_commit)
        self._fold_first = False
        old, self._journal = self._journal, None
        if old is not None:
            old.close()
        self._journal_path.unlink(missing_ok=True)

    def _try_to_fold(self, size: int) -> None:
        """Nothing is lost if it cannot be: it is tried again when there is twice as much."""
        try:
            self._fold()
        except (OSError, DriverError) as error:
            self._fold_at = 2 * size
            logger.warning("%s: the journal could not be folded: %s", self._base.path, error)

    # --- the rest of a driver ---

    def kind(self, error: BaseException) -> ErrorKind | None:
        # Once it is open, the system refuses what has nothing to do with how it was asked for.
        return kind_of(error) or (ErrorKind.OTHER if isinstance(error, OSError) else None)

    def holder(self) -> int | None:
        """Nobody else: whoever has the file open keeps all others out."""
        return None

    def check(self) -> Iterator[str]:
        """Documents that are no entries, and whether the files are still as they were left."""
        yield from self._contents.strangers()
        try:
            self._check_files()
        except (OSError, DriverError) as error:
            yield str(error)

    def _check_files(self) -> None:
        with self._files:
            self._base.check(thorough=True)
            if self._journal is not None and self._is_ahead:
                found = journals.read(self._journal_path)
                if found is None or found.last != self._last_commit:
                    raise DriverError(
                        ErrorKind.CORRUPT,
                        f"{self._journal_path}: does not hold what was committed",
                    )

    def describe(self) -> dict[str, str | int]:
        return {
            "engine": "tinydb",
            "tables": len(self._contents),
            "documents": self._contents.count(),
            "commit": self._last_commit,
            "size": _size(self._base.path),
            "journal_size": _size(self._journal_path),
            "durability": self._durability or "read-only",
        }

    def usage(self) -> Usage:
        """Free is what a fold would give back. It leaves nothing to gain."""
        journal_size = _size(self._journal_path)
        size = _size(self._base.path) + journal_size
        free = max(size - self._contents.size(), 0) if self._is_ahead else 0
        return Usage(size, free)

    def reclaim(self, breathe: Callable[[], None]) -> Reclaimed:
        if not self._writable:
            raise DriverError(ErrorKind.READ_ONLY, f"{self._base.path}: opened read-only")
        before = self.usage()
        if before.free:
            require_room(self._base.path.parent, self._contents.size())
            with self._files:
                self._fold()
        return Reclaimed(before.size, self.usage().size)

    def close(self) -> None:
        self._closed = "the database is closed"
        with self._files:
            try:
                if self._writable and self._is_ahead:
                    self._fold()
                elif self._journal is not None:
                    self._journal.remove()
            except (OSError, DriverError) as error:
                logger.warning(
                    "%s: closed, but not folded into it is %s: %s",
                    self._base.path,
                    self._journal_path,
                    error,
                )
            finally:
                if self._journal is not None:
                    self._journal.close()
                self._base.close()

    def leave(self) -> None:
        """What a forked child does: the parent's lock and journal are not its own."""
        if not self._closed:
            self._closed = "opened before a fork; open it again in the child"
            self._base.leave()
            if self._journal is not None:
                self._journal.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


_opened: weakref.WeakSet[TinyDriver] = weakref.WeakSet()


def _leave_all() -> None:
    for driver in list(_opened):
        driver.leave()


os.register_at_fork(after_in_child=_leave_all)
