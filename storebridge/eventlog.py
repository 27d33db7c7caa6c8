"""Reading the events of a database: all stores' histories as one, in the order of commits."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from storebridge import meta
from storebridge.driver import Position, Range, Rows, Transaction
from storebridge.errors import EventsExpiredError
from storebridge.events import Event, decode_event
from storebridge.reading import Reading
from storebridge.spec import StoreLayout
from storebridge.transaction import SEQUENCE

_PAGE = 500


def last_sequence(transaction: Transaction) -> int:
    """The number of the last committed event; 0 before the first."""
    return transaction.totals(SEQUENCE).get(SEQUENCE, 0)


def events(
    database: Reading, layouts: Sequence[StoreLayout], after: int | None, last: int
) -> Iterator[Event]:
    """The events of stores behind `after` and up to `last`, once each and in order.

    Numbers increase in the order of commits: all up to one that is committed are there, and what is
    committed while the caller reads on comes behind it.
    """
    streams = [_of_store(database, layout, after, last) for layout in layouts]
    return heapq.merge(*streams, key=lambda event: event.sequence)


def _of_store(
    database: Reading, layout: StoreLayout, after: int | None, last: int
) -> Iterator[Event]:
    position: Position | None = None if after is None else (after,)
    while True:
        part = Range(by="sequence", upper=last + 1, after=position, limit=_PAGE)
        rows, position = database.read(_page, layout, part, after)
        for (record_id, sequence), body in rows:
            yield decode_event(layout.name, str(record_id), int(sequence), body)
        if position is None:
            return
        after = None if after is None else int(position[0])


def _page(
    transaction: Transaction, layout: StoreLayout, part: Range, after: int | None
) -> tuple[Rows, Position | None]:
    # The horizon and the page are of one view: nothing is removed between looking and reading.
    horizon = None if after is None else meta.read_horizon(transaction, layout.name)
    if horizon is not None and after is not None and after < horizon.sequence:
        raise EventsExpiredError(
            f"store {layout.name!r}: events up to {horizon.sequence} have been removed, and {after}"
            " is before that: read the records anew, and go on from sequence() as it was before"
        )
    return transaction.scan(layout.history.name, part)
