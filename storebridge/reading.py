"""Reading an opened location: single looks, consistent views, what its engine says of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any, NoReturn, TypeVar

from storebridge.driver import (
    Driver,
    DriverError,
    ErrorKind,
    Key,
    Position,
    Range,
    Rows,
    Transaction,
)
from storebridge.errors import StorebridgeError, StoreClosedError
from storebridge.location import Location
from storebridge.transaction import Unit
from storebridge.translation import translated

_READ_ATTEMPTS = 5
_PAGE = 500
T = TypeVar("T")


class Reading:
    """The reading half of a database. A thread reads in its transaction or snapshot, if it has
    one, else on a view of the moment.
    """

    def __init__(self, driver: Driver, location: Location) -> None:
        self.driver = driver
        self.location = location
        self._unit: Unit | None = None
        self._snapshots: dict[int, Transaction] = {}
        self._unusable: str | None = None

    @property
    def read_only(self) -> bool:
        """Whether every write is a ReadOnlyError."""
        return self.location.options.read_only

    @property
    def closed(self) -> bool:
        """Whether it can no longer be used."""
        return self._unusable is not None

    @property
    def in_transaction(self) -> bool:
        """Whether the calling thread is inside `transaction()`."""
        return self._own_unit() is not None

    def _own_unit(self) -> Unit | None:
        unit = self._unit
        return unit if unit is not None and unit.thread == get_ident() else None

    def get(self, table: str, key: Key) -> bytes | None:
        """One body, from the thread's transaction or snapshot if it has one."""
        try:
            shared = self._shared_reader()
            if shared is not None:
                return shared.get(table, key)
            transaction = self.driver.begin(False, True)
            try:
                return transaction.get(table, key)
            finally:
                transaction.rollback()
        except Exception as error:
            if self._was_overtaken(error):
                return self.read(_get, table, key)
            self._raise(error)

    def read(self, operation: Callable[..., T], *args: Any) -> T:
        """Run `operation(transaction, *args)` on one consistent view."""
        return self._read(False, operation, args)

    def look(self, operation: Callable[..., T], *args: Any) -> T:
        """As `read`, for an operation that asks the engine once: no view need be held for it."""
        return self._read(True, operation, args)

    def _read(self, single: bool, operation: Callable[..., T], args: tuple[Any, ...]) -> T:
        attempts = _READ_ATTEMPTS
        while True:
            try:
                shared = self._shared_reader()
                if shared is not None:
                    return operation(shared, *args)
                transaction = self.driver.begin(False, single)
                try:
                    return operation(transaction, *args)
                finally:
                    transaction.rollback()
            except Exception as error:
                attempts -= 1
                if not attempts or not self._was_overtaken(error):
                    self._raise(error)

    def read_scan(self, table: str, part: Range) -> tuple[Rows, Position | None]:
        """A page of a table."""
        return self.look(_scan, table, part)

    def read_range(
        self,
        table: str,
        prefix: tuple[str | int, ...],
        by: str | None = None,
        after: Position | None = None,
    ) -> Rows:
        """All entries of a range, of one moment; most ranges are one page."""
        whole = Range(by, prefix, None, None, after, _PAGE)
        rows, position = self.look(_scan, table, whole)
        return rows if position is None else self.read(_scan_all, table, whole)

    def rows(self, table: str) -> Iterator[tuple[Key, bytes]]:
        """Every entry of a table, page by page, so that no writer waits; each page is a view of its
        own, unless the thread has one."""
        position: Position | None = None
        while True:
            page, position = self.read_scan(table, Range(after=position, limit=_PAGE))
            yield from page
            if position is None:
                return

    def _was_overtaken(self, error: Exception) -> bool:
        """Whether a writer took away the view of a reader that could not lock it, and the reader
        may simply look again. Inside a snapshot the caller has to know."""
        return self.driver.kind(error) is ErrorKind.CONFLICT and self._shared_reader() is None

    def iterate(self, operation: Callable[..., Iterator[T]], *args: Any) -> Iterator[T]:
        """Yield from `operation(transaction, *args)`; the view stays open until the last item."""
        with self.snapshot():
            try:
                reader = self._shared_reader()
                assert reader is not None
                yield from operation(reader, *args)
            except Exception as error:
                self._raise(error)

    def engine_check(self) -> list[str]:
        """What the engine's own check of the file finds: one line a problem."""
        return self._guarded(lambda: list(self.driver.check()))

    def describe(self) -> dict[str, str | int]:
        """What the engine knows of itself and its file, for people."""
        return self._guarded(self.driver.describe)

    def holder(self) -> int | None:
        """The process that holds the writer's lock now, where the system tells it."""
        return self._guarded(self.driver.holder)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """`with database.snapshot(): …`: what the block reads is of one moment. Writing in it is a
        ReadOnlyError."""
        thread = get_ident()
        if thread in self._snapshots or self._own_unit() is not None:
            yield
            return
        self._check_open()
        try:
            transaction = self.driver.begin(False)
        except Exception as error:
            self._raise(error)
        self._snapshots[thread] = transaction
        try:
            yield
        finally:
            # Not that of a forked child's parent.
            if self._snapshots.pop(thread, None) is not None:
                transaction.rollback()

    def _shared_reader(self) -> Transaction | None:
        if self._unusable is not None:
            raise StoreClosedError(self._unusable)
        unit = self._unit
        if unit is not None and unit.thread == get_ident():
            return unit.engine
        return self._snapshots.get(get_ident()) if self._snapshots else None

    def _check_open(self) -> None:
        if self._unusable is not None:
            raise StoreClosedError(self._unusable)

    # --- errors ---

    def _guarded(self, call: Callable[..., T], *args: Any) -> T:
        self._check_open()
        try:
            return call(*args)
        except Exception as error:
            self._raise(error)

    def _raise(self, error: BaseException) -> NoReturn:
        try:
            if isinstance(error, StorebridgeError):
                raise error
            kind = error.kind if isinstance(error, DriverError) else self.driver.kind(error)
            if kind is None:
                raise error
            raise translated(error, kind, self.location.text) from error
        finally:
            # Else the error and this frame keep each other alive, and with them what the frames
            # below hold: an engine's transaction, perhaps.
            del error


def _get(transaction: Transaction, table: str, key: Key) -> bytes | None:
    return transaction.get(table, key)


def _scan(transaction: Transaction, table: str, part: Range) -> tuple[Rows, Position | None]:
    return transaction.scan(table, part)


def _scan_all(transaction: Transaction, table: str, part: Range) -> Rows:
    found: Rows = []
    position = part.after
    while True:
        rows, position = transaction.scan(table, part._replace(after=position))
        found += rows
        if position is None:
            return found
