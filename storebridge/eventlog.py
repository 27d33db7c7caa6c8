"""Reading the events of a database: all stores' histories as one, in the order of commits."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Protocol

from storebridge.driver import Position, Range, Rows, Transaction
from storebridge.events import Event, decode_event
from storebridge.spec import StoreLayout
from storebridge.transaction import SEQUENCE

_PAGE = 500


class Reader(Protocol):
    """What is needed of a database."""

    def read_scan(self, table: str, part: Range) -> tuple[Rows, Position | None]:
        """A page of a table, on a view of its own."""


def last_sequence(transaction: Transaction) -> int:
    """The number of the last committed event; 0 before the first."""
    return transaction.totals(SEQUENCE).get(SEQUENCE, 0)


def events(
    reader: Reader, layouts: Sequence[StoreLayout], after: int, last: int
) -> Iterator[Event]:
    """The events of stores behind `after` and up to `last`, once each and in order.

    Numbers increase in the order of commits: all up to one that is committed are there, and what is
    committed while the caller reads on comes behind it.
    """
    streams = [_of_store(reader, layout, after, last) for layout in layouts]
    return heapq.merge(*streams, key=lambda event: event.sequence)


def _of_store(reader: Reader, layout: StoreLayout, after: int, last: int) -> Iterator[Event]:
    position: Position | None = (after,)
    while position is not None:
        part = Range(by="sequence", upper=last + 1, after=position, limit=_PAGE)
        rows, position = reader.read_scan(layout.history.name, part)
        for (record_id, sequence), body in rows:
            yield decode_event(layout.name, str(record_id), int(sequence), body)
