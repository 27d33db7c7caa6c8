"""A database: an opened location, which hosts any number of stores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from storebridge import check as checking
from storebridge import eventlog, meta, recount, times
from storebridge.blocks import TransactionBlock, blocks
from storebridge.check import Watch
from storebridge.driver import Driver, Table
from storebridge.errors import (
    ConfigurationError,
    IncompleteStoreError,
    ReadOnlyError,
    StorebridgeError,
    StoreClosedError,
    TransactionError,
)
from storebridge.events import Event
from storebridge.limits import check_id, check_integer
from storebridge.location import Location
from storebridge.owner import Owner, this_process
from storebridge.reading import Reading
from storebridge.recount import RecountReport
from storebridge.spec import StoreLayout
from storebridge.statistics import Statistics
from storebridge.transaction import Unit
from storebridge.turns import Turn

if TYPE_CHECKING:
    from storebridge.transfer.migration import MigrationReport
    from storebridge.transfer.progress import Progress

logger = logging.getLogger("storebridge")
_WAITED = 0.001
T = TypeVar("T")


class Database(Reading):
    """An opened location. Made by `open_database`; safe to use from any thread.

    Writes are transactions: each change of a store is one of its own, or part of the block of
    `with database.transaction()`. One thread writes at a time, others wait up to `lock_timeout`.
    """

    def __init__(
        self, driver: Driver, location: Location, clock: Callable[[], datetime] = times.now
    ) -> None:
        super().__init__(driver, location)
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
        self._opener: Owner | None = None
        self._disowned: Unit | None = None
        self._on_close: Callable[[Database], None] = Database.close_driver

    # --- opening and closing: see opening.py ---

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
        blocks.clear()

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
            self.refuse_incomplete()
            _check_names(layout, self.layouts.values(), self.location.text)
            self._create_tables(layout.tables)
        elif known.shape != layout.shape:
            raise ConfigurationError(
                f"{self.location.text}: store {layout.name!r} was made with other filters or unique"
                " fields; give the store another name, or copy its records into a new database"
            )
        merged = layout if known is None else known.merged(layout)
        if merged == known:
            return known
        if self.read_only:
            layout = merged
        else:
            self._check_no_transaction()
            if known is not None and merged.record is not known.record:
                self._create_tables([merged.record])  # its view shows more
            layout = self.write(meta.merge_layout, layout)
        self.layouts[layout.name] = layout
        return layout

    def refuse_incomplete(self) -> None:
        """IncompleteStoreError if a transfer into the database has not come to its end."""
        transfer = self.read(meta.read_transfer)
        if transfer is not None and not transfer.verified:
            raise IncompleteStoreError(
                f"{self.location.text}: no store yet: {transfer}; give the same command again, and"
                " it goes on from there"
            )

    def refresh(self) -> dict[str, StoreLayout]:
        """Read again which stores and states the database hosts: another process may have added
        some."""
        found = self.read(meta.read_layouts)
        new = [layout for name, layout in found.items() if name not in self.layouts]
        if new and self._own_unit() is None:
            self._create_tables([table for layout in new for table in layout.tables])
            self.layouts.update({layout.name: layout for layout in new})
        for name, known in list(self.layouts.items()):
            if name in found and (merged := known.merged(found[name])) != known:
                self.layouts[name] = merged
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
            if blocks:
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

    def _check_no_other_block(self) -> None:
        other = blocks.get(get_ident())
        if other is not None and other is not self:
            raise ConfigurationError(
                f"{self.location.text} cannot take part in a transaction of {other.location.text}:"
                " stores that share one must be at one location"
            )

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

    def counts(self, layout: StoreLayout) -> dict[str, int]:
        """Records of a store by state, from the counters; in a transaction with its own changes."""
        found = self.read(recount.counts, layout)
        unit = self._own_unit()
        if unit is None:
            return found
        pending = unit.pending_counts()
        return {state: n + pending.get(layout.counter(state), 0) for state, n in found.items()}

    def recount(
        self, *, deep: bool = False, repair: bool = False, watch: Watch | None = None
    ) -> tuple[RecountReport, ...]:
        """Count the records of every store again, by their indexes, and compare with the counters.

        `deep` decodes every body, and checks indexes, columns, labels and histories, too; it reads
        in small pieces, so that writers go on, and tells `watch` now and then of a table and how
        many of its entries it has seen: whatever that raises ends it. `repair` sets right what can
        be: `faults` of the reports are what it could not. TransactionError in a transaction.
        """
        return checking.recount(self, deep=deep, repair=repair, watch=watch)

    # --- events and checkpoints ---

    def sequence(self) -> int:
        """The number of the last committed event; 0 before the first."""
        return self.read(eventlog.last_sequence)

    def events(
        self, after: int | None = None, *, stores: Iterable[str] | None = None
    ) -> Iterator[Event]:
        """The committed events with greater sequence numbers, once each and in order; without
        `after` all that are left.

        `stores`: only of the stores with these names. Ends with what was committed at the call.
        EventsExpiredError, also on the way, where events behind `after` have been removed: the
        reader cannot go on from there without missing what they told.
        """
        if after is not None:
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

    # --- moving ---

    def migrate_to(
        self,
        target: str | Path | Location,
        *,
        overwrite: bool = False,
        skip_quarantined: bool = False,
        dry_run: bool = False,
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> MigrationReport:
        """Make the database at `target`, of any backend, hold what this one does: records, events,
        labels, versions, counters, checkpoints and the sequence, bodies byte for byte.

        This one is only read. The other is no store before both sides were read anew and had the
        same digests: until then to open it is an IncompleteStoreError, and the same call goes on
        where the last one was stopped, however it was. What is written here meanwhile is copied,
        too, but the writers have to stop at last, else it is a ConflictError.

        A target that holds something else is a ConfigurationError; with `overwrite` it is renamed
        once what replaces it is whole. A body that cannot be read is a CorruptStoreError, unless
        they are to be skipped, and then the report names them. `dry_run` only reads.
        """
        from storebridge.transfer.migration import migrate

        return migrate(
            self,
            target,
            overwrite=overwrite,
            skip_quarantined=skip_quarantined,
            dry_run=dry_run,
            watch=watch,
        )


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
