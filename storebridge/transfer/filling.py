"""Filling a database so that it holds what a content does, no more and no less."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import chain, repeat
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from storebridge import meta
from storebridge.database import Database
from storebridge.driver import (
    Fault,
    IndexEntries,
    IndexPart,
    Key,
    Loader,
    Rows,
    Table,
    Transaction,
    UniqueClash,
    Values,
)
from storebridge.driver.capabilities import Movable
from storebridge.driver.pages import Columns
from storebridge.errors import (
    ConflictError,
    CorruptStoreError,
    StorebridgeError,
    StoreLockedError,
)
from storebridge.location import Location
from storebridge.opening import open_even_incomplete
from storebridge.owner import this_process
from storebridge.spec import StoreLayout
from storebridge.transaction import PipelinedUnit, Unit
from storebridge.transfer.content import (
    Content,
    Pages,
    content_of,
    current_content,
    differences,
    shown,
    tables_of,
)
from storebridge.transfer.digests import Digest, Digester, TableDigest, Tell, digest_of
from storebridge.transfer.loading import Batch, Changes, Load, Step
from storebridge.transfer.places import forget_cached, put_in_place
from storebridge.transfer.readable import Readable, Skipped
from storebridge.values import values_from_body

T = TypeVar("T")
_FEWEST, _MOST = 500, 10_000
_SECONDS = 0.4
_BYTES = 2**23
"""How much is written in one transaction: many entries, but none that takes long on a slow disk."""


_Change = tuple[str, Key, Values | None, bytes | None, bool, Values | None]
"""What is to become of an entry: its table and key, the values and the body that it is to have, if
it is to be there; whether one is there now, and which values it has, if they are known. A plain
tuple: there is one for each entry."""


class Filling:
    """A database on its way to hold what a content does.

    Before the first entry it is marked as incomplete, and so refuses to be a store. Each batch's
    transaction notes how far it has come. Wherever it is stopped, the next filling compares what is
    there with what should be, and writes what differs: so it also catches up with a content that
    has changed in between, and never leaves a mix of both.
    """

    def __init__(
        self, location: Location, what: str, source: str, skip_quarantined: bool = False
    ) -> None:
        """Open and mark the database. `what`: the command; `source`: from where.

        StoreLockedError while another process fills it.
        """
        self.changes = Changes()
        self._readable = Readable(skip_quarantined)
        self.left_out = self._readable.left_out
        self.name = location.text
        self._location = location
        self._batch: list[_Change] = []
        self._size, self._room = 0, _FEWEST
        self._clashing: list[_Change] = []
        self._values: dict[Key, Values] = {}
        self._trusting = True
        """Whether no entry is expected to clash: then, far away, none is asked about. That all are
        there is found when they are read again."""
        self._mark = meta.Transfer(what, source, this_process(), os.urandom(8).hex())
        self._database = self._open(location)
        try:
            self.resumed = self._database.write(self._claim)
            """What an earlier filling had begun."""
        except BaseException:
            self._close()
            raise

    def _open(self, location: Location) -> Database:
        """Open it; that a transaction of a batch takes long is nobody's concern, so not logged."""
        database = open_even_incomplete(location)
        self._slow_after = database.statistics.slow_after
        database.statistics.slow_after = inf
        return database

    def _close(self) -> None:
        self._database.statistics.slow_after = self._slow_after
        self._database.close()

    def __enter__(self) -> Filling:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # That it cannot be closed, too, would hide why it failed.
        with suppress(*([StorebridgeError] if kind else [])):
            self._close()

    def _claim(self, unit: Unit) -> meta.Transfer | None:
        found = meta.read_transfer(unit.engine)
        if found is not None and found.owner.is_alive() and found.owner != self._mark.owner:
            raise StoreLockedError(
                f"{self.name}: process {found.owner.pid} is filling it: wait until it has ended",
                found.owner.pid,
            )
        if found is not None:
            self._mark = msgspec.structs.replace(
                _moved_on(self._mark, found.table, found.key, found.entries),
                unindexed=found.unindexed,
            )
        meta.begin_transfer(unit, self._mark)
        return found

    def _require_mark(self, unit: Unit) -> None:
        if meta.read_transfer(unit.engine) != self._mark:
            raise StoreLockedError(f"{self.name}: somebody else has begun to fill it meanwhile")

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was skipped, in order."""
        return self._readable.skipped

    def fill(self, content: Content, tell: Tell = lambda entries: None) -> Digest:
        """Make the database hold what the content does. The digest is of the content as it was
        read, without what was skipped.

        CorruptStoreError for a body that cannot be read, unless those are to be skipped.
        """
        self._forget()
        self.left_out.clear()
        known = self._database.refresh()
        if any(_is_otherwise(layout, known) for layout in content.layouts):
            self.clear()
        tables = tables_of(content.layouts)
        self._remove_other_tables(tables)
        self._database._create_tables(tables)
        digests = {}
        for table in tables:
            digests[table.name] = self._fill_table(table, content, tell)
        totals = content.totals()
        self._database.write(self._set_totals, totals)
        return Digest(digests, totals)

    def _forget(self) -> None:
        """What a filling that failed had not written yet."""
        self._batch, self._size, self._clashing = [], 0, []

    def _remove_other_tables(self, tables: Sequence[Table]) -> None:
        """Of a content that it was to hold before."""
        there = current_content(self._database)
        wanted = {table.name for table in tables}
        for table in tables_of(there.layouts):
            if table.name not in wanted:
                self._write_differences(table, iter(()), there.pages(table))

    def clear(self) -> None:
        """Take out everything but the mark."""
        self._forget()
        there = current_content(self._database)
        # That which says which tables there are goes last.
        for table in reversed(tables_of(there.layouts)):
            self._write_differences(table, iter(()), there.pages(table))
        self._database.write(self._set_totals, {})

    def read_again(self, tell: Tell = lambda entries: None) -> Digest:
        """What the database holds, read through a new opening, and from the disk itself where it
        has files that nobody else has open, unless its durability is `off`.

        Where something was there before, it is also checked as a whole: CorruptStoreError where an
        index or the engine's file is damaged.
        """
        self._close()
        self._forget_cached()
        self._database = self._open(self._location)
        with content_of(self._database) as content:
            digest = digest_of(content, tell=tell)
        if self.resumed is not None:
            self._require_sound()
        return digest

    def _forget_cached(self) -> None:
        location = self._location
        if location.path is None or location.options.durability == "off":
            return
        backend = location.backend
        for path in backend.files(location.target) if isinstance(backend, Movable) else ():
            with suppress(FileNotFoundError):  # a side file that another process has removed
                forget_cached(path)

    def _require_sound(self) -> None:
        problems = self._database.engine_check()
        for table in self._database.tables():
            if not problems:
                faults = self._database.iterate(_faults, table)
                problems = [f"{table.name}: {fault.problem}" for fault in faults]
        if problems:
            raise CorruptStoreError(
                f"{self.name}: damaged since it was begun ({problems[0]}): remove it and begin anew"
            )

    def settle(self, location: Location) -> Path | None:
        """Take the mark away: from here on it is a store, and at this location. Returns where that
        is which was there before."""
        return self.settle_by(put_in_place, location)

    def settle_by(self, put: Callable[[Location, Location], T], location: Location) -> T | None:
        """As `settle`; by this function the database is put in its place."""
        kept = None
        if self._location != location:
            # Killed between the renames, the next opening knows by this that it may go on.
            self._database.write(self._note_verified)
            self._close()
            kept = put(self._location, location)
            self._location = location
            # Opening what is verified and in its place takes the mark away.
            self._database = self._open(location)
        else:
            self._database.write(self._complete)
        return kept

    def _note_verified(self, unit: Unit) -> None:
        self._require_mark(unit)
        self._mark = msgspec.structs.replace(self._mark, verified=True)
        meta.write_transfer(unit, self._mark)

    def _complete(self, unit: Unit) -> None:
        self._require_mark(unit)
        meta.remove_transfer(unit)

    # --- entries ---

    def _fill_table(self, table: Table, content: Content, tell: Tell) -> TableDigest:
        digester = Digester()
        there = current_content(self._database).pages(table)
        found = next(there, None)
        present = iter(()) if found is None else chain((found,), there)
        begun = table.name in self._mark.unindexed
        driver = self._database.driver
        # The database's own table is never empty: the mark is in it.
        if isinstance(driver, Loader) and table is not meta.META and (begun or found is None):
            with closing(driver.index_entries(table.name)) as entries:
                note = partial(self._database._guarded, entries.add)
                wanted = self._readable.pages(table, content, digester, note, tell)
                write = partial(self._write_batch, table)
                load = Load(table, self.changes, self._room_in, write, begun)
                load.bodies(wanted, present)
                load.indexes(self._parts(table, entries), tell)
        else:
            keep = self._keep_values
            wanted = self._readable.pages(table, content, digester, keep, tell)
            self._write_differences(table, wanted, present)
        return digester.result()

    def _parts(self, table: Table, entries: IndexEntries) -> Iterator[IndexPart]:
        parts = entries.parts()
        try:
            while (part := self._database._guarded(next, parts, None)) is not None:
                yield part
        except UniqueClash as clash:
            raise self._clash(table.name, clash.key or ()) from None

    def _room_in(self, batch: Batch) -> int:
        return 0 if batch.size >= _BYTES else max(0, self._room - batch.weight)

    def _write_batch(self, table: Table, batch: Batch, complete: bool) -> None:
        others = tuple(name for name in self._mark.unindexed if name != table.name)
        mark = msgspec.structs.replace(
            _moved_on(self._mark, table.name, batch.key, self._mark.entries + batch.bodies),
            unindexed=others if complete else (*others, table.name),
        )
        self._timed(self._apply_steps, batch.steps, mark)
        self._mark = mark

    def _apply_steps(self, unit: Unit, steps: list[Step], mark: meta.Transfer) -> None:
        self._require_mark(unit)
        meta.write_transfer(unit, mark)
        for name, *arguments in steps:
            getattr(unit.engine, name)(*arguments)

    def _timed(self, operation: Callable[..., T], *args: Any) -> T:
        """Write, and see how much may be written in a transaction."""
        started = perf_counter()
        result = self._database.write(operation, *args)
        took = perf_counter() - started
        self._room = min(_MOST, max(_FEWEST, int(self._room * min(2, _SECONDS / took))))
        return result

    def _keep_values(self, rows: Rows, columns: Columns) -> None:
        found = zip(*columns, strict=True) if columns else repeat(())
        self._values = dict(zip([key for key, _ in rows], found))  # noqa: B905 - it may be endless

    def _write_differences(self, table: Table, wanted: Pages, there: Pages) -> None:
        values_of = values_from_body(table)
        changes, name = self.changes, table.name
        for key, body, old in differences(wanted, there):
            if old is None:
                assert body is not None
                changes.added += 1
                change: _Change = (name, key, self._values[key], body, False, None)
            elif body is None:
                changes.removed += 1
                change = (name, key, None, None, True, values_of(key, old))
            else:
                changes.replaced += 1
                change = (name, key, self._values[key], body, True, values_of(key, old))
            self._batch.append(change)
            self._size += len(body or b"")
            if len(self._batch) >= self._room or self._size >= _BYTES:
                self._flush()
        self._flush()
        self._flush_clashing()

    def _flush(self) -> None:
        if not self._batch:
            return
        last = self._batch[-1]
        mark = _moved_on(self._mark, last[0], last[1], self._mark.entries + len(self._batch))
        try:
            self._clashing += self._timed(self._apply, self._batch, mark)
        except ConflictError:
            if not self._trusting:
                raise
            # Which entry of those that were sent unasked it was is not told.
            self._trusting = False
            self._clashing += self._timed(self._apply, self._batch, mark)
        self._mark, self._batch, self._size = mark, [], 0

    def _flush_clashing(self) -> None:
        """Entries whose unique fields others had that have given them up since."""
        again, self._clashing = self._clashing, []
        if again and (refused := self._database.write(self._apply, again, self._mark)):
            raise self._clash(*refused[0][:2])

    def _clash(self, table: str, key: Key) -> CorruptStoreError:
        return CorruptStoreError(
            f"{self._mark.source}: table {table}: {shown(key)} has the unique fields of another"
            " entry: check and mend it before"
        )

    def _apply(self, unit: Unit, batch: list[_Change], mark: meta.Transfer) -> list[_Change]:
        """Write a batch; what clashes with an entry that may yet go is left out and returned."""
        self._require_mark(unit)
        meta.write_transfer(unit, mark)
        insert, remove = unit.engine.insert, unit.engine.remove
        add = unit.add if self._trusting and isinstance(unit, PipelinedUnit) else None
        clashing: list[_Change] = []
        for table, key, values, body, is_there, old_values in batch:
            if is_there:
                remove(table, key, old_values)
            if values is None or body is None:
                continue
            if add is not None:
                add(table, key, values, body)
                continue
            try:
                added = insert(table, key, values, body)
            except UniqueClash:
                clashing.append((table, key, values, body, False, None))
                continue
            if not added:
                raise StoreLockedError(f"{self.name}: somebody else writes to table {table}")
        return clashing

    def _set_totals(self, unit: Unit, totals: dict[str, int]) -> None:
        self._require_mark(unit)
        there = unit.engine.totals("")
        names = {**there, **totals}.keys() - {meta.INCOMPLETE}
        deltas = {name: totals.get(name, 0) - there.get(name, 0) for name in names}
        unit.engine.tally({name: by for name, by in deltas.items() if by})


def _faults(transaction: Transaction, table: Table) -> Iterator[Fault]:
    return transaction.faults(table.name, values_from_body(table))


def _is_otherwise(layout: StoreLayout, known: Mapping[str, StoreLayout]) -> bool:
    """Whether a store of this name is there with other columns or indexes."""
    return layout.name in known and known[layout.name].shape != layout.shape


def _moved_on(mark: meta.Transfer, table: str, key: Key, entries: int) -> meta.Transfer:
    """The mark, moved on."""
    return msgspec.structs.replace(mark, table=table, key=key, entries=entries)
