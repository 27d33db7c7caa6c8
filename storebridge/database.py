"""A database: an opened location, which hosts any number of stores."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from threading import get_ident
from time import perf_counter
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from storebridge import eventlog, meta, recount, times
from storebridge.driver import (
    Driver,
    DriverError,
    ErrorKind,
    Key,
    Position,
    Range,
    Rows,
    Table,
    Transaction,
)
from storebridge.errors import (
    ConfigurationError,
    ReadOnlyError,
    StorebridgeError,
    StoreClosedError,
    TransactionError,
)
from storebridge.events import Event
from storebridge.limits import check_id, check_integer
from storebridge.location import Location
from storebridge.owner import Owner, this_process
from storebridge.recount import RecountReport
from storebridge.spec import StoreLayout
from storebridge.statistics import Statistics
from storebridge.transaction import Mark, Unit
from storebridge.translation import translated
from storebridge.turns import Turn

logger = logging.getLogger("storebridge")
_WAITED = 0.001
_READ_ATTEMPTS = 5
T = TypeVar("T")

_blocks: dict[int, Database] = {}
"""By thread: the database whose `transaction()` it is in."""


class Database:
    """An opened location. Made by `open_database`; safe to use from any thread.

    Writes are transactions: each change of a store is one of its own, or part of the block of
    `with database.transaction()`. One thread writes at a time, others wait up to `lock_timeout`.
    """

    def __init__(
        self, driver: Driver, location: Location, clock: Callable[[], datetime] = times.now
    ) -> None:
        self.driver = driver
        self.location = location
        self.clock = clock
        """Says what time it is, in UTC."""
        self.statistics = Statistics()
        self.layouts: dict[str, StoreLayout] = {}
        """The stores that the database hosts, by name, as far as this process knows."""
        self.stopped_uncleanly: tuple[Owner, ...] = ()
        """Processes that wrote here and ended without closing, found when this one opened it."""
        self.recounted: tuple[RecountReport, ...] = ()
        """What counting again found and mended after that, store by store."""
        self._turn = Turn(location.text, location.options.lock_timeout, self.statistics)
        self._unit: Unit | None = None
        self._snapshots: dict[int, Transaction] = {}
        self._unusable: str | None = None
        self._opener: Owner | None = None
        self._disowned: Unit | None = None
        self._on_close: Callable[[Database], None] = Database.close_driver

    # --- opening and closing: see opening.py ---

    @property
    def read_only(self) -> bool:
        """Whether every write is a ReadOnlyError."""
        return self.location.options.read_only

    @property
    def closed(self) -> bool:
        """Whether it can no longer be used."""
        return self._unusable is not None

    def close(self) -> None:
        """End this use of the database; the last one in the process closes the file. Again: no-op.

        TransactionError inside a transaction.
        """
        if self._unusable is None:
            self._check_idle()
            self._on_close(self)

    def close_driver(self) -> None:
        """Close the file whoever uses it, once no other thread writes. StoreLockedError, and still
        open, if one does for longer than `lock_timeout`."""
        self._check_idle()
        self._turn.take()
        try:
            if self._opener is not None:
                self._remove_mark(self._opener)
        finally:
            self._unusable = f"{self.location.text}: the database is closed"
            self._turn.give()
            self.driver.close()

    def _check_idle(self) -> None:
        inside = "a snapshot" if get_ident() in self._snapshots else "a transaction"
        if inside == "a snapshot" or self._own_unit() is not None:
            raise TransactionError(f"{self.location.text}: close() inside {inside}")

    def _remove_mark(self, opener: Owner) -> None:
        try:
            unit = self._begin_unit()
            try:
                meta.remove_entry(unit, meta.opener_name(opener))
                unit.commit()
            except BaseException:
                unit.rollback()
                raise
        except BaseException as error:
            self._raise(error)

    def abandon(self) -> None:
        """What a forked child does: the parent's locks and connections are not its own."""
        self._unusable = f"{self.location.text}: opened before a fork; open it again in the child"
        # Not even rolled back: that, too, would be done to the parent's connection.
        self._disowned, self._unit = self._unit, None
        _blocks.clear()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- stores ---

    def declare(self, layout: StoreLayout) -> StoreLayout:
        """Make the tables of a store, if they are missing. Returns the layout with all states that
        the database knows.

        ConfigurationError if it has a store of this name with other fields, or another store has a
        table or a view of the same name; TransactionError inside a transaction, unless the store
        is there.
        """
        self._check_open()
        known = self.refresh().get(layout.name)
        if known is None:
            _check_names(layout, self.layouts.values(), self.location.text)
            self._create_tables(layout.tables)
        elif known.shape != layout.shape:
            raise ConfigurationError(
                f"{self.location.text}: store {layout.name!r} was made with other filters or unique"
                " fields; give the store another name, or copy its records into a new database"
            )
        if known is not None and set(layout.states) <= set(known.states):
            return known
        if self.read_only:
            layout = layout if known is None else layout.with_states(known.states)
        else:
            self._check_no_transaction()
            layout = self.write(meta.merge_layout, layout)
        self.layouts[layout.name] = layout
        return layout

    def refresh(self) -> dict[str, StoreLayout]:
        """Read again which stores and states the database hosts: another process may have added
        some."""
        found = self.read(meta.read_layouts)
        new = [layout for name, layout in found.items() if name not in self.layouts]
        if new and self._own_unit() is None:
            self._create_tables([table for layout in new for table in layout.tables])
            self.layouts.update({layout.name: layout for layout in new})
        for name, known in list(self.layouts.items()):
            if name in found and not set(found[name].states) <= set(known.states):
                self.layouts[name] = known.with_states(found[name].states)
        return self.layouts

    def _create_tables(self, tables: Sequence[Table]) -> None:
        self._check_open()
        self._check_no_transaction()
        # The driver may write, and its writers take turns.
        self._turn.take()
        try:
            self._guarded(self.driver.create_tables, tables, meta.LAYOUT)
        finally:
            self._turn.give()

    def _check_no_transaction(self) -> None:
        if self._own_unit() is not None:
            raise TransactionError(
                f"{self.location.text}: no store can be added in a transaction, open it before"
            )

    def tables(self) -> list[Table]:
        """Every table of the database."""
        return [meta.META, *(table for layout in self.layouts.values() for table in layout.tables)]

    # --- writing ---

    def transaction(self) -> TransactionBlock:
        """`with database.transaction(): …`: all changes in the block, of any store of this
        database, take effect together, or none if it raises.

        Inside another such block it is a part of it, undone alone if it raises.
        """
        return TransactionBlock(self)

    def write(self, operation: Callable[..., T], *args: Any) -> T:
        """Run `operation(unit, *args)` in the thread's transaction, or in one of its own."""
        unit = self._unit
        if unit is None or unit.thread != get_ident():
            if _blocks:
                self._check_no_other_block()
            return self._write_alone(operation, args)
        try:
            return unit.step(operation, args)  # type: ignore[no-any-return]
        except StorebridgeError:
            raise
        except BaseException as error:
            self._raise(error)

    def _write_alone(self, operation: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            unit = self.begin()
            result = operation(unit, *args)
            self.commit(unit)
        except BaseException as error:
            self.rollback()
            self._raise(error)
        return result

    def _own_unit(self) -> Unit | None:
        unit = self._unit
        return unit if unit is not None and unit.thread == get_ident() else None

    def _check_no_other_block(self) -> None:
        other = _blocks.get(get_ident())
        if other is not None and other is not self:
            raise ConfigurationError(
                f"{self.location.text} cannot take part in a transaction of {other.location.text}:"
                " stores that share one must be at one location"
            )

    @property
    def in_transaction(self) -> bool:
        """Whether the calling thread is inside `transaction()`."""
        return self._own_unit() is not None

    def begin(self) -> Unit:
        """Start the thread's write transaction. `write` and `transaction` are its users.

        Whatever it raises, nothing is left begun: also where an exception out of a signal handler
        strikes in the middle.
        """
        self._check_writable()
        try:
            self._turn.take()
            self._check_writable()
            unit = self._unit = self._begin_unit()
            if self._opener is None:
                # It rides the first write's commit: an fsync of its own would slow every opening.
                meta.write_opener(unit, this_process())
        except BaseException as error:
            self.rollback()
            self._raise(error)
        return unit

    def _begin_unit(self) -> Unit:
        asked = perf_counter()
        try:
            engine = self.driver.begin(True)
        finally:
            started = perf_counter()
            if started - asked > _WAITED:
                self._turn.note_wait(started - asked, "another process")
        return Unit(engine, started)

    def commit(self, unit: Unit) -> None:
        """Commit and end the thread's transaction."""
        if self._unit is not unit:
            raise StoreClosedError(str(self._unusable))
        try:
            unit.commit()
            if self._opener is None:
                self._opener = this_process()
            self.statistics.transactions += 1
            self._end(unit)
        except BaseException as error:
            self.rollback()
            self._raise(error)

    def rollback(self) -> None:
        """Roll back and end what the thread has begun, if anything."""
        if not self._turn.is_mine:
            return
        unit = self._unit
        try:
            if unit is not None:
                self.statistics.rollbacks += 1
                unit.rollback()
        finally:
            self._end(unit)

    def _end(self, unit: Unit | None) -> None:
        try:
            if unit is not None:
                self._note_duration(perf_counter() - unit.started)
        finally:
            self._unit = None
            self._turn.give()

    def _note_duration(self, took: float) -> None:
        statistics = self.statistics
        if took > statistics.longest_transaction_seconds:
            statistics.longest_transaction_seconds = took
        if took > statistics.slow_after:
            statistics.slow_transactions += 1
            logger.warning("%s: a transaction took %.1f s", self.location.text, took)

    def _check_writable(self) -> None:
        if self._unusable is not None:
            raise StoreClosedError(self._unusable)
        if self.read_only:
            raise ReadOnlyError(f"{self.location.text}: opened read-only")
        if self._snapshots and get_ident() in self._snapshots:
            raise ReadOnlyError(f"{self.location.text}: a write inside a snapshot")

    # --- reading ---

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
        attempts = _READ_ATTEMPTS
        while True:
            try:
                shared = self._shared_reader()
                if shared is not None:
                    return operation(shared, *args)
                transaction = self.driver.begin(False)
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
        return self.read(_scan, table, part)

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
            del self._snapshots[thread]
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

    def counts(self, layout: StoreLayout) -> dict[str, int]:
        """Records of a store by state, from the counters; in a transaction with its own changes."""
        found = self.read(recount.counts, layout)
        unit = self._own_unit()
        if unit is None:
            return found
        pending = unit.pending_counts()
        return {state: n + pending.get(layout.counter(state), 0) for state, n in found.items()}

    # --- events and checkpoints ---

    def sequence(self) -> int:
        """The number of the last committed event; 0 before the first."""
        return self.read(eventlog.last_sequence)

    def events(self, after: int = 0, *, stores: Iterable[str] | None = None) -> Iterator[Event]:
        """The committed events with greater sequence numbers, once each and in order.

        `stores`: only of the stores with these names. Ends with what was committed at the call.
        """
        check_integer("after", after)
        layouts = self.refresh()
        names = list(layouts) if stores is None else list(stores)
        for name in names:
            if name not in layouts:
                raise ConfigurationError(f"{self.location.text}: no store is called {name!r}")
        return eventlog.events(self, [layouts[name] for name in names], after, self.sequence())

    def checkpoint(self, name: str) -> int | None:
        """The sequence number that a named reader of events has come to; None if never set."""
        found = self.read(meta.read_checkpoint, _checkpoint_name(name))
        return None if found is None else found.sequence

    def set_checkpoint(self, name: str, sequence: int) -> None:
        """Note how far a named reader of events has come."""
        check_integer("sequence", sequence)
        self.write(meta.write_checkpoint, _checkpoint_name(name), sequence, self.clock())

    def delete_checkpoint(self, name: str) -> None:
        """Forget a checkpoint."""
        self.write(meta.remove_checkpoint, _checkpoint_name(name))

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


class TransactionBlock:
    """The block of `with database.transaction()`."""

    __slots__ = ("_database", "_mark", "_unit")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unit: Unit | None = None
        self._mark: Mark | None = None

    def __enter__(self) -> Database:
        database = self._database
        unit = database._own_unit()
        if unit is None:
            database._check_no_other_block()
            try:
                self._unit = database.begin()
                _blocks[get_ident()] = database
            except BaseException:
                database.rollback()
                raise
        else:
            self._unit = unit
            self._mark = unit.mark()
            unit.keep_undo += 1
        return database

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        unit = self._unit
        if unit is None:
            self._database._check_open()
            return
        if self._mark is not None:
            self._unit = None
            unit.keep_undo -= 1
            if kind is not None and self._database._unit is unit:
                unit.undo_to(self._mark)
            return
        try:
            if kind is not None:
                self._database.rollback()
            else:
                self._database.commit(unit)
        finally:
            self._database.rollback()  # what an exception out of a signal handler left
            _blocks.pop(get_ident(), None)
            self._unit = None

    def __del__(self) -> None:
        # An exception out of a signal handler can strike before the first step of `__exit__`.
        unit = self._unit
        if unit is not None and self._mark is None and self._database._own_unit() is unit:
            _blocks.pop(get_ident(), None)
            self._database.rollback()


def _get(transaction: Transaction, table: str, key: Key) -> bytes | None:
    return transaction.get(table, key)


def _scan(transaction: Transaction, table: str, part: Range) -> tuple[Rows, Position | None]:
    return transaction.scan(table, part)


def _checkpoint_name(name: str) -> str:
    return check_id(name)


def _check_names(layout: StoreLayout, others: Iterable[StoreLayout], where: str) -> None:
    taken = {name: other.name for other in others for name in other.names} | {
        meta.META.name: "the database itself"
    }
    for name in layout.names:
        if name in taken:
            raise ConfigurationError(
                f"{where}: store {layout.name!r} needs the name {name!r}, which belongs to"
                f" {taken[name]}; give it another name"
            )
