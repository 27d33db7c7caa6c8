"""Filling tables over ordered bytes in bulk: bodies first, and then each index in its own order.

An engine writes what comes in order at the end of its last page. Index entries in the order of the
keys land on nearly as many pages as there are entries, and each of those pages is copied, kept in
memory until the commit, and written. So they are sorted before, as many as there may be, which
`storebridge.driver.sortedruns` does in bounded memory.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from operator import eq
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from storebridge.driver.capabilities import IndexPart
from storebridge.driver.contract import Key, Rows, UniqueClash
from storebridge.driver.ordered import Engine, OrderedDriver, OrderedTransaction
from storebridge.driver.orderedpages import entries_maker, keys_encoder
from storebridge.driver.orderedtable import OrderedTable
from storebridge.driver.pages import Columns
from storebridge.driver.sortedruns import SortedRuns

S = TypeVar("S")


class BulkEngine(Engine[S], Protocol):
    """An engine that has a quick way for what comes in order."""

    def put_sorted(self, space: S, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Set the values of these keys, which are in order."""

    def clear(self, space: S) -> None:
        """Take everything out of a space."""


class OrderedLoadingTransaction(OrderedTransaction[S]):
    """`LoadingTransaction` over an engine's transaction."""

    __slots__ = ()
    _engine: BulkEngine[S]

    def clear_indexes(self, table: str) -> None:
        for index in self._tables[table].indexes:
            self._engine.clear(index.space)

    def put_bodies(self, table: str, rows: Rows) -> None:
        record = self._tables[table]
        keys, bodies = zip(*rows, strict=True)
        raws, _ = keys_encoder(record.declared.key)(list(zip(*keys, strict=True)))
        self._engine.put_sorted(record.space, raws, bodies)

    def remove_bodies(self, table: str, keys: Sequence[Key]) -> None:
        record = self._tables[table]
        for key in keys:
            self._engine.delete(record.space, record.encode(key))

    def put_entries(self, part: IndexPart) -> None:
        space = self._tables[part.table].path(part.by).space
        self._engine.put_sorted(space, part.entries, part.keys)


class OrderedIndexEntries(Generic[S]):
    """`IndexEntries` of a table, sorted by `SortedRuns`."""

    def __init__(self, table: OrderedTable[S], folder: Path) -> None:
        self._table = table
        self._encode = keys_encoder(table.declared.key)
        self._make = entries_maker(table.declared, [index.declared for index in table.indexes])
        self._runs = SortedRuns(len(table.indexes), folder)

    def add(self, rows: Rows, values: Columns) -> None:
        if not self._table.indexes:
            return
        raws, keys = self._encode(list(zip(*[key for key, _ in rows], strict=True)))
        made = self._make(raws, keys, values)
        for pairs, new in zip(self._runs.fresh, made, strict=True):
            pairs += new
        self._runs.added()

    def parts(self) -> Iterator[IndexPart]:
        for number, index in enumerate(self._table.indexes):
            last = b""
            for entries, keys in self._runs.sorted(number):
                if index.declared.unique:
                    clashes = list(map(eq, entries, [last, *entries]))
                    if True in clashes:
                        raw = keys[clashes.index(True)]
                        raise UniqueClash(index.name, self._table.decode(raw))
                    last = entries[-1]
                yield IndexPart(self._table.name, index.name, entries, keys)

    def close(self) -> None:
        self._runs.close()


class OrderedLoader(OrderedDriver[S]):
    """A driver over ordered bytes that is a `Loader`."""

    @property
    @abstractmethod
    def _folder(self) -> Path:
        """Where there is room for what does not fit in memory."""

    def index_entries(self, table: str) -> OrderedIndexEntries[S]:
        """See `Loader.index_entries`."""
        return OrderedIndexEntries(self._tables[table], self._folder)
