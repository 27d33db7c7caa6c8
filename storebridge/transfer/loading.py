"""Loading a table: where the driver is a `Loader`, a table that holds nothing yet gets its bodies
first, and then each index in its own order.

While it lacks index entries, the mark in the database names it (`meta.Transfer.unindexed`). A load
that was stopped goes on with the bodies where it was, by comparison as always, and makes the
indexes anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from storebridge.driver import IndexPart, Key, Rows, Table
from storebridge.transfer.content import Pages, differences
from storebridge.transfer.digests import Tell

Step = tuple[Any, ...]
"""A method of `LoadingTransaction` by its name, and its arguments."""
_PAGE = 250
_PAIRS = 4
"""So many index entries take as long as one body."""


@dataclass
class Batch:
    """What one transaction is to do."""

    steps: list[Step] = field(default_factory=list)
    bodies: int = 0
    pairs: int = 0
    """Index entries."""
    size: int = 0
    """Bytes."""
    key: Key = ()
    """The last body's."""

    @property
    def weight(self) -> int:
        """How many entries it counts as."""
        return self.bodies + self.pairs // _PAIRS


@dataclass
class Changes:
    """What a filling has done so far."""

    added: int = 0
    replaced: int = 0
    removed: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.removed)


class Load:
    """The loading of one table."""

    def __init__(
        self,
        table: Table,
        changes: Changes,
        room: Callable[[Batch], int],
        write: Callable[[Batch, bool], None],
        begun: bool,
    ) -> None:
        """`room`: how many more entries belong in a batch. `write`: do a batch; with True, the
        table is complete then. `begun`: by an earlier load, so that its indexes are to be made even
        if nothing else has to be done."""
        self._name = table.name
        self._changes = changes
        self._how_many_more = room
        self._write = write
        self._begun = False
        self._batch = Batch()
        if begun:
            self._begin()

    def _begin(self) -> None:
        """Whatever happens to the bodies from here on: no index entry is left of what they were."""
        self._begun = True
        self._add("clear_indexes", self._name)

    def bodies(self, wanted: Pages, there: Pages) -> None:
        """Make the table hold these bodies, where those are there."""
        first = next(there, None)
        if first is None:
            for page in wanted:
                self._put(page)
                self._changes.added += len(page)
            return
        rows: Rows = []
        gone: list[Key] = []
        for key, body, old in differences(wanted, chain((first,), there)):
            if body is None:
                self._changes.removed += 1
                gone.append(key)
            else:
                self._changes.added += old is None
                self._changes.replaced += old is not None
                rows.append((key, body))
            if len(rows) + len(gone) >= _PAGE:
                self._change(rows, gone)
                rows, gone = [], []
        self._change(rows, gone)

    def indexes(self, parts: Iterable[IndexPart], tell: Tell) -> None:
        """Give its indexes these entries, with which it is complete."""
        for part in parts:
            tell(0)
            start = 0
            while start < len(part.keys):
                stop = start + _PAIRS * self._room()
                entries, keys = part.entries[start:stop], part.keys[start:stop]
                self._add("put_entries", part._replace(entries=entries, keys=keys))
                self._batch.pairs += len(keys)
                self._batch.size += sum(map(len, entries)) + sum(map(len, keys))
                start = stop
        if self._begun:
            self._write(self._batch, True)

    def _change(self, rows: Rows, gone: list[Key]) -> None:
        if gone:
            self._add("remove_bodies", self._name, gone)
            self._batch.bodies += len(gone)
        self._put(rows)

    def _put(self, rows: Rows) -> None:
        if rows and not self._begun:
            self._begin()
        start = 0
        while start < len(rows):
            part = rows[start : start + self._room()]
            self._add("put_bodies", self._name, part)
            batch = self._batch
            batch.bodies += len(part)
            batch.size += sum([len(body) for _, body in part])
            batch.key = part[-1][0]
            start += len(part)

    def _room(self) -> int:
        room = self._how_many_more(self._batch)
        if not room:
            self._write(self._batch, False)
            self._batch = Batch()
            room = self._how_many_more(self._batch)
        return room

    def _add(self, *step: Any) -> None:
        self._batch.steps.append(step)
