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
from storebridge.driver.contract import Key, Rows, UniqueClash, Values
from storebridge.driver.ordered import Engine, OrderedDriver, OrderedTransaction
from storebridge.driver.orderedtable import OrderedTable
from storebridge.driver.sortedruns import Pairs, SortedRuns

S = TypeVar("S")


class BulkEngine(Engine[S], Protocol):
    """An engine that has a quick way for what comes in order."""

    def put_sorted(self, space: S, pairs: Pairs) -> None:
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
        encode = record.encode
        self._engine.put_sorted(record.space, [(encode(key), body) for key, body in rows])

    def remove_bodies(self, table: str, keys: Sequence[Key]) -> None:
        record = self._tables[table]
        for key in keys:
            self._engine.delete(record.space, record.encode(key))

    def put_entries(self, part: IndexPart) -> None:
        self._engine.put_sorted(self._tables[part.table].path(part.by).space, part.pairs)


class OrderedIndexEntries(Generic[S]):
    """`IndexEntries` of a table, sorted by `SortedRuns`."""

    def __init__(self, table: OrderedTable[S], folder: Path) -> None:
        self._table = table
        self._runs = SortedRuns(len(table.indexes), folder)

    def add(self, rows: Rows, values: Sequence[Values]) -> None:
        table = self._table
        if not table.indexes:
            return
        encode = table.encode
        appends = [pairs.append for pairs in self._runs.fresh]
        table.pack(appends, [encode(key) for key, _ in rows], rows, values)
        self._runs.added()

    def parts(self) -> Iterator[IndexPart]:
        for number, index in enumerate(self._table.indexes):
            last = b""
            for pairs in self._runs.sorted(number):
                if index.declared.unique:
                    entries = [last, *[entry for entry, _ in pairs]]
                    clashes = list(map(eq, entries, entries[1:]))
                    if True in clashes:
                        raw = pairs[clashes.index(True)][1]
                        raise UniqueClash(index.name, self._table.decode(raw))
                    last = entries[-1]
                yield IndexPart(self._table.name, index.name, pairs)

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
