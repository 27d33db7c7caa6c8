"""What a database holds, as a stream: table by table, in order of the keys, from one snapshot.

That is, in this order: the database's own table `storebridge-meta` (its stores and checkpoints) but
for what concerns one place alone, the tables of each store, and the totals: sequence and counters.
Values are not part of it, they follow from the bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import lt
from typing import Protocol

from storebridge import meta
from storebridge.database import Database
from storebridge.driver import Key, Position, Range, Rows, Table, Transaction
from storebridge.errors import CorruptStoreError, TransactionError
from storebridge.spec import StoreLayout

Pages = Iterator[Rows]
"""The entries of one table in order of their keys, some at a time, never none."""
Difference = tuple[Key, bytes | None, bytes | None]
"""A key and its body on the left and on the right; None where it is not."""
_FEWEST, _MOST, _BYTES = 20, 250, 2**21


class Content(Protocol):
    """Entries to be read once: an open database's, or an export's."""

    @property
    def name(self) -> str:
        """Where they are from, for people."""

    @property
    def layouts(self) -> Sequence[StoreLayout]:
        """The stores."""

    def pages(self, table: Table) -> Pages:
        """The entries of a table. To be called for each of `tables_of(layouts)`, in that order."""

    def totals(self) -> dict[str, int]:
        """The totals that are not 0. To be called behind the last page."""


def tables_of(layouts: Iterable[StoreLayout]) -> list[Table]:
    """The tables of a content, in its order."""
    return [meta.META, *(table for layout in layouts for table in layout.tables)]


class DatabaseContent:
    """What an open database holds, on the view that the calling thread has."""

    def __init__(self, database: Database, layouts: Sequence[StoreLayout]) -> None:
        self._database = database
        self.name = database.location.text
        self.layouts = layouts

    def pages(self, table: Table) -> Pages:
        """See `Content.pages`. CorruptStoreError where keys are not in order."""
        found = _checked(_pages(self._database, table), self.name, table)
        return _portable(found) if table is meta.META else found

    def totals(self) -> dict[str, int]:
        """See `Content.totals`."""
        totals = self._database.read(_totals)
        return {name: n for name, n in totals.items() if n and name != meta.INCOMPLETE}


@contextmanager
def content_of(database: Database) -> Iterator[DatabaseContent]:
    """What a database holds, in a snapshot that lasts as long as the block.

    CorruptStoreError for a store whose own entry cannot be read: nobody knows its tables.
    """
    if database.in_transaction:
        raise TransactionError(f"{database.location.text}: cannot be read whole in a transaction")
    while True:
        database.refresh()
        with database.snapshot():
            layouts = database.read(_layouts, database.location.text)
            # A store that another process adds between the two calls would seem to be empty.
            if all(layout.name in database.layouts for layout in layouts):
                yield DatabaseContent(database, layouts)
                return


def current_content(database: Database) -> DatabaseContent:
    """What a database holds, each page as it is when it is read: for who is the only writer."""
    return DatabaseContent(database, tuple(database.refresh().values()))


def _layouts(transaction: Transaction, where: str) -> tuple[StoreLayout, ...]:
    unreadable = meta.unreadable_layouts(transaction)
    if unreadable:
        raise CorruptStoreError(
            f"{where}: the entry {unreadable[0]!r} cannot be read, so its tables are not known:"
            " open the store with the service that owns it, which writes the entry anew"
        )
    return tuple(meta.read_layouts(transaction).values())


def _totals(transaction: Transaction) -> dict[str, int]:
    return transaction.totals("")


def _pages(database: Database, table: Table) -> Pages:
    """Small pages first, and as large ones as the bodies that were found allow."""
    position: Position | None = None
    limit = _FEWEST
    while True:
        rows, position = database.read_scan(table.name, Range(after=position, limit=limit))
        if rows:
            largest = max([len(row[1]) for row in rows])
            limit = min(_MOST, 4 * limit, max(1, _BYTES // (largest + 1)))
            yield rows
        if position is None:
            return


def _checked(pages: Pages, name: str, table: Table) -> Pages:
    """The pages, as long as each key is behind the one before."""
    last: Key = ()
    for rows in pages:
        keys = [last, *[row[0] for row in rows]]
        if not all(map(lt, keys, keys[1:])):
            raise CorruptStoreError(
                f"{name}: the keys of table {table.name} are not in order behind {shown(last)}:"
                " check it"
            )
        last = keys[-1]
        yield rows


def _portable(pages: Pages) -> Pages:
    """Without the entries that concern only the database that they are in."""
    for rows in pages:
        kept = [row for row in rows if not meta.is_local(str(row[0][0]))]
        if kept:
            yield kept


def differences(left: Pages, right: Pages) -> Iterator[Difference]:
    """The entries that are not the same on both sides, in order of their keys."""
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        n = min(len(a), len(b))
        if a[:n] == b[:n]:
            a, b = a[n:], b[n:]
        else:
            i = j = 0
            while i < len(a) and j < len(b):
                (key, body), (other, others) = a[i], b[j]
                if key == other:
                    if body != others:
                        yield key, body, others
                    i, j = i + 1, j + 1
                elif key < other:
                    yield key, body, None
                    i += 1
                else:
                    yield other, None, others
                    j += 1
            a, b = a[i:], b[j:]
        a, b = a or next(left, None), b or next(right, None)
    while a is not None:
        yield from ((key, body, None) for key, body in a)
        a = next(left, None)
    while b is not None:
        yield from ((key, None, body) for key, body in b)
        b = next(right, None)


def shown(key: Key) -> str:
    """A key for people."""
    return " ".join(map(repr, key)) or "the beginning"
