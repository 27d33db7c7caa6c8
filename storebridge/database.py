"""A database: an opened location, which hosts any number of stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING

from storebridge import check as checking
from storebridge import eventlog, meta, recount, times
from storebridge.blocks import TransactionBlock, blocks
from storebridge.check import Watch
from storebridge.compaction.hooks import After, Archive, Before, Hooks, Keep
from storebridge.compaction.retention import Retention
from storebridge.driver import Driver, Table
from storebridge.errors import (
    ConfigurationError,
    IncompleteStoreError,
    TransactionError,
)
from storebridge.events import Event
from storebridge.limits import check_id, check_integer
from storebridge.location import Location
from storebridge.owner import Owner
from storebridge.recount import RecountReport
from storebridge.spec import StoreLayout
from storebridge.turns import Turn
from storebridge.watching import Watcher, follow
from storebridge.writing import Writing

if TYPE_CHECKING:
    from storebridge.compaction.report import CompactionReport
    from storebridge.transfer.migration import MigrationReport
    from storebridge.transfer.progress import Progress


class Database(Writing):
    """An opened location. Made by `open_database`; safe to use from any thread.

    Writes are transactions: each change of a store is one of its own, or part of the block of
    `with database.transaction()`. One thread writes at a time, others wait up to `lock_timeout`.

    What a signal handler or a finaliser (`__del__`) writes is part of the block that it strikes in,
    and a TransactionError in the midst of a write: let it make a note, and write from elsewhere.
    """

    def __init__(
        self, driver: Driver, location: Location, clock: Callable[[], datetime] = times.now
    ) -> None:
        super().__init__(driver, location)
        self.clock = clock
        """Says what time it is, in UTC."""
        self.layouts: dict[str, StoreLayout] = {}
        """The stores that the database hosts, by name, as far as this process knows."""
        self.stopped_uncleanly: tuple[Owner, ...] = ()
        """Processes that wrote here and ended without closing, found when this one opened it."""
        self.recounted: tuple[RecountReport, ...] = ()
        """What counting again found and mended after that, store by store."""
        self.hooks = Hooks()
        """See `on_compact`."""
        self.retention: tuple[Retention, ...] = ()
        """What `compact()` lets go if it is not told: what the environment says."""
        self._disowned: object = None
        self._on_close: Callable[[Database], None] = Database.close_driver

    # --- opening and closing: see opening.py ---

    def close(self) -> None:
        """End this use of the database; the last one in the process closes the file. Again: no-op.

        It waits for up to `lock_timeout` for another thread's write, and then as long for another
        process's, whose turn it is to write: closing takes a note out of the file. StoreLockedError
        if a thread writes for longer, and it is then still open. What is raised behind that, also
        where another process writes for longer or the disk is full, is raised with the file closed;
        the next one that opens it then counts again. TransactionError inside a transaction.
        """
        if self._unusable is None:
            self._check_idle()
            self._on_close(self)

    def close_driver(self) -> None:
        """Close the file whoever uses it, once no other thread writes. StoreLockedError, and still
        open, if one does for longer than `lock_timeout`."""
        self._check_idle()
        self._turn.hold(self._close_now)

    def _close_now(self) -> None:
        try:
            if self._opener is not None:
                self._remove_mark(self._opener)
        finally:
            self._unusable = f"{self.location.text}: the database is closed"
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
        self._disowned = (self._unit, self._snapshots)
        self._unit, self._snapshots = None, {}
        # Threads that the child does not have may have been about to use it.
        self._turn = Turn(self.location.text, self.location.options.lock_timeout, self.statistics)
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
            _check_names(layout, list(self.layouts.values()), self.location.text)
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
        self._turn.hold(self._guarded, self.driver.create_tables, tables, meta.LAYOUT)

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

    def check_transaction(self) -> None:
        """TransactionError if the thread's transaction can no more be committed."""
        unit = self._own_unit()
        if unit is not None:
            unit.check()

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

    # --- compaction ---

    def on_compact(
        self,
        *,
        before: Before | None = None,
        keep: Keep | None = None,
        archive: Archive | None = None,
        after: After | None = None,
    ) -> None:
        """Have a say in every compaction of this process; what is added is asked in its order.

        `before(rules)` comes first. `keep(removal)` is asked of each record that is about to go,
        and answers True to keep it. `archive(removals)` is given those that go, and has put them
        away when it returns: an `Archiver` does. `after(report)` comes last. What a hook raises is
        logged and reported, and whatever it was asked about stays: the compaction itself for
        `before`, a record for `keep`, all that it was given for `archive`.
        """
        hooks = self.hooks
        for added, to in (
            (before, hooks.before),
            (keep, hooks.keep),
            (archive, hooks.archive),
            (after, hooks.after),
        ):
            if added is not None:
                to.append(added)  # type: ignore[arg-type]

    def compact(
        self,
        retention: Retention | Iterable[Retention] | None = None,
        *,
        reclaim: bool = True,
        above: float | None = None,
        dry_run: bool = False,
        watch: Watch | None = None,
    ) -> CompactionReport:
        """Remove what may go, then give the free space in the files back.

        `retention`: what may go; without, what the environment said when the stores were opened.
        It goes in small transactions, between which others write; a process that is killed leaves
        it consistent, and the next run does the rest. `reclaim`: whether to give space back, if
        that much of the files is free: the share `above`, else the location's option `compact`,
        else 0.1. `dry_run` only says what would go, and asks no hook. `watch` is told now and then
        how much has been removed from which store; whatever it raises ends the compaction.

        ConfigurationError for a rule about a store or state that there is none of,
        TransactionError in a transaction. Where the disk has no room for reclaiming, or others
        have the file open, the report says so.
        """
        from storebridge.compaction.compact import compact

        rules = self.retention if retention is None else retention
        return compact(
            self,
            (rules,) if isinstance(rules, Retention) else tuple(rules),
            above=self._reclaim_above(above, 0.1) if reclaim else None,
            dry_run=dry_run,
            watch=watch,
        )

    def compact_if_needed(
        self, retention: Retention | Iterable[Retention] | None = None
    ) -> CompactionReport | None:
        """As `compact`, if the free share of the files has passed the location's option `compact`,
        else 0.5. Costs little if not: for now and then, when there is nothing else to do."""
        from storebridge.compaction.compact import free_share

        above = self._reclaim_above(None, 0.5)
        share = free_share(self)
        return None if share is None or share < above else self.compact(retention, above=above)

    def _reclaim_above(self, above: float | None, default: float) -> float:
        asked = self.location.options.compact if above is None else above
        return default if asked is None else asked

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
        return eventlog.events(self, self.layouts_of(stores), after, self.sequence())

    def layouts_of(self, stores: Iterable[str] | None) -> list[StoreLayout]:
        """Of the stores with these names, of all without; also of those that another process has
        added. ConfigurationError for a name that no store has."""
        layouts = self.refresh()
        names = list(layouts) if stores is None else list(stores)
        for name in names:
            if name not in layouts:
                known = ", ".join(layouts) or "none"
                raise ConfigurationError(
                    f"{self.location.text}: no store is called {name!r}; there are: {known}"
                )
        return [layouts[name] for name in names]

    def watch(
        self,
        after: int | None = None,
        *,
        stores: Iterable[str] | None = None,
        states: Iterable[str] | None = None,
        checkpoint: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[Event]:
        """The events behind `after` (without: those that come from this call on), once each and in
        order, and then those to come, as soon as they are committed: in this process, or in another
        one where the engine tells (SQLite and LMDB on Linux, PostgreSQL); elsewhere within a
        quarter of a second.

        `stores`: only of these. `states`: only those that leave a record in one of these.
        `checkpoint`: begin behind this checkpoint, at the first event if it was never set, and move
        it on when the next events are asked for: a reader that was killed meets some of the last
        ones again, and misses none. `timeout`: end after so many seconds without an event.
        ConfigurationError for a store, InvalidQueryError for a state, that there is none of;
        EventsExpiredError where events were removed before they were read.
        """
        watcher = Watcher(self, after, stores, states, checkpoint)
        watcher.begin()
        return follow(self, watcher, timeout)

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

        This one is only read. The other is no store before it was read anew, and had the digests of
        this one as it was by then: until then to open it is an IncompleteStoreError, and the same
        call goes on where the last one was stopped, however it was. What is written here meanwhile
        is copied, too, but the writers have to stop at last, else it is a ConflictError.

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
    # One of its own name was added by another thread meanwhile.
    others = [other for other in others if other.name != layout.name]
    taken = {name: other.name for other in others for name in other.names} | {
        meta.META.name: "the database itself"
    }
    for name in layout.names:
        if name in taken:
            raise ConfigurationError(
                f"{where}: store {layout.name!r} needs the name {name!r}, which belongs to"
                f" {taken[name]}; give it another name"
            )
