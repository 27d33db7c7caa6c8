"""Filling a database so that it holds what a content does, no more and no less."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TypeVar

import msgspec

from storebridge import meta
from storebridge.database import Database
from storebridge.driver import Fault, Key, Rows, Table, Transaction, UniqueClash, Values, ValuesOf
from storebridge.driver.capabilities import Movable
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
from storebridge.transfer.places import forget_cached, put_in_place
from storebridge.values import values_from_body

T = TypeVar("T")
_FEWEST, _MOST = 500, 10_000
_SECONDS = 0.4
_BYTES = 2**23
"""How much is written in one transaction: many entries, but none that takes long on a slow disk."""


class Skipped(NamedTuple):
    """An entry that was left out, as its body cannot be read."""

    table: str
    key: Key


_Change = tuple[str, Key, Values | None, bytes | None, bool, Values | None]
"""What is to become of an entry: its table and key, the values and the body that it is to have, if
it is to be there; whether one is there now, and which values it has, if they are known. A plain
tuple: there is one for each entry."""


@dataclass
class Changes:
    """What a filling has done so far."""

    added: int = 0
    replaced: int = 0
    removed: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.removed)


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
        self.left_out: dict[tuple[str, Key], int] = {}
        """What was skipped, by table and key: the hash of the body."""
        self.name = location.text
        self._location = location
        self._skip = skip_quarantined
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
            self._mark = _moved_on(self._mark, found.table, found.key, found.entries)
        meta.begin_transfer(unit, self._mark)
        return found

    def _require_mark(self, unit: Unit) -> None:
        if meta.read_transfer(unit.engine) != self._mark:
            raise StoreLockedError(f"{self.name}: somebody else has begun to fill it meanwhile")

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was skipped, in order."""
        return tuple(Skipped(table, key) for table, key in self.left_out)

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

        def readable() -> Pages:
            values_of = values_from_body(table)
            for rows in content.pages(table):
                kept = self._readable(table, rows, values_of, content.name)
                digester.add(kept)
                if kept:
                    yield kept
                tell(len(rows))

        self._write_differences(table, readable(), current_content(self._database).pages(table))
        return digester.result()

    def _readable(self, table: Table, rows: Rows, values_of: ValuesOf, source: str) -> Rows:
        """The rows whose values are known, which `_values` then has."""
        found = [values_of(key, body) for key, body in rows]
        if None in found:
            for (key, body), values in zip(rows, found, strict=True):
                if values is None:
                    self._note_unreadable(table, key, body, source)
            rows = [row for row, values in zip(rows, found, strict=True) if values is not None]
            found = [values for values in found if values is not None]
        self._values = {row[0]: values for row, values in zip(rows, found, strict=True)}  # type: ignore[misc]
        return rows

    def _note_unreadable(self, table: Table, key: Key, body: bytes, source: str) -> None:
        if not self._skip:
            raise CorruptStoreError(
                f"{source}: the body of {shown(key)} in table {table.name} cannot be read: mend it"
                " or take it out, or skip what is quarantined; a dry run lists all there is"
            )
        self.left_out[table.name, key] = hash(body)

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
        started = perf_counter()
        try:
            self._clashing += self._database.write(self._apply, self._batch, mark)
        except ConflictError:
            if not self._trusting:
                raise
            # Which entry of those that were sent unasked it was is not told.
            self._trusting = False
            self._clashing += self._database.write(self._apply, self._batch, mark)
        took = perf_counter() - started
        self._room = min(_MOST, max(_FEWEST, int(self._room * min(2, _SECONDS / took))))
        self._mark, self._batch, self._size = mark, [], 0

    def _flush_clashing(self) -> None:
        """Entries whose unique fields others had that have given them up since."""
        again, self._clashing = self._clashing, []
        if again and (refused := self._database.write(self._apply, again, self._mark)):
            raise CorruptStoreError(
                f"{self._mark.source}: table {refused[0][0]}: {shown(refused[0][1])} has the"
                " unique fields of another entry: check and mend it before"
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
