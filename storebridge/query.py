"""Finding records: which index serves a query, and its pages."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from storebridge.driver import Position, Range, Transaction
from storebridge.errors import CorruptStoreError, InvalidQueryError
from storebridge.labels import Requirement
from storebridge.record import Codec, Record
from storebridge.spec import StoreLayout
from storebridge.times import microseconds

R = TypeVar("R", bound=Record)
Sort = Literal["created_at", "modified_at", "id"]
_ORDERS = {"created_at": "created", "modified_at": "modified", "id": None}
MAX_LIMIT = 10_000


@dataclass
class Page(Generic[R]):
    """Some records that a query found, in its order."""

    records: list[R]
    cursor: str | None = None
    """To be given to the next `find`; None on the last page."""
    quarantined: list[str] = field(default_factory=list)
    """Ids met on the way whose bodies cannot be read."""

    def __iter__(self) -> Iterator[R]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> R:
        return self.records[position]


@dataclass(frozen=True)
class Query:
    """What to find. `filters` maps a field to the index values, one of which it must have."""

    filters: Mapping[str, tuple[str | int, ...]]
    labels: tuple[Requirement, ...] = ()
    prefix: str | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None
    sort: Sort = "created_at"
    descending: bool = False

    def digest(self) -> int:
        """Tells this query's cursors from others'."""
        return zlib.crc32(repr((dict(self.filters), *self.__dict__.items())).encode())


class _Source(NamedTuple):
    """One index range to read from."""

    table: str
    by: str | None
    prefix: tuple[str | int, ...]


class Plan(Generic[R]):
    """How a query is answered: the sources to read, merged by time, and what is left to test."""

    def __init__(self, query: Query, layout: StoreLayout, codec: Codec[R]) -> None:
        self._query = query
        self._table = layout.record.name
        self._decode = codec.decode
        self._tests: list[Callable[[R], bool]] = []
        self._sources = self._choose(layout)
        bounds: tuple[str | int | None, str | int | None]
        bounds = prefix_bounds(query.prefix) if query.sort == "id" else self._time_bounds()
        lower, upper = bounds
        self._range = Range(lower=lower, upper=upper, reverse=query.descending)

    # --- choosing ---

    def _choose(self, layout: StoreLayout) -> list[_Source]:
        query = self._query
        filters = dict(query.filters)
        labels = list(query.labels)
        sources = [_Source(self._table, _ORDERS[query.sort], ())]
        if query.sort == "created_at":
            indexed = next((r for r in labels if r.has_index), None)
            field_name = next((n for n in layout_filters(layout) if n in filters), None)
            if indexed is not None:
                labels.remove(indexed)
                sources = self._label_sources(layout, indexed)
            elif field_name is not None:
                values = filters.pop(field_name)
                sources = [_Source(self._table, field_name, (value,)) for value in values]
        else:
            self._test_times()
        for name, values in filters.items():
            self._tests.append(_test_field(name, values, layout))
        for requirement in labels:
            self._tests.append(_test_label(requirement))
        return sources

    def _label_sources(self, layout: StoreLayout, requirement: Requirement) -> list[_Source]:
        assert layout.label is not None
        table, label = layout.label.name, requirement.label
        if requirement.operator == "exists":
            return [_Source(table, "label", (label,))]
        return [
            _Source(table, "value", (label, value)) for value in dict.fromkeys(requirement.values)
        ]

    def _time_bounds(self) -> tuple[int | None, int | None]:
        if self._query.sort != "created_at":
            return None, None
        start, end = self._query.created_from, self._query.created_until
        return (
            None if start is None else microseconds(start),
            None if end is None else microseconds(end),
        )

    def _test_times(self) -> None:
        start, end = self._query.created_from, self._query.created_until
        if start is not None:
            self._tests.append(lambda record: record.created_at >= start)
        if end is not None:
            self._tests.append(lambda record: record.created_at < end)

    # --- reading ---

    def page(self, transaction: Transaction, limit: int, cursor: str | None) -> Page[R]:
        """Up to `limit` records behind the cursor."""
        after = None if cursor is None else self._decode_cursor(cursor)
        if len(self._sources) == 1:
            return self._page_of_one(transaction, self._sources[0], limit, after)
        return self._page_of_many(transaction, limit, after)

    def count(self, transaction: Transaction) -> int | None:
        """How many match, where the index alone can tell."""
        if self._tests:
            return None
        return sum(
            transaction.count(
                source.table, self._range._replace(by=source.by, prefix=source.prefix)
            )
            for source in self._sources
        )

    def _page_of_one(
        self, transaction: Transaction, source: _Source, limit: int, after: Position | None
    ) -> Page[R]:
        page: Page[R] = Page([])
        records = page.records
        position = None if after is None else source.prefix + after
        while True:
            part = self._range._replace(
                by=source.by, prefix=source.prefix, after=position, limit=limit - len(records)
            )
            rows, position = transaction.scan(source.table, part)
            for key, body in rows:
                self._take(transaction, source, key, body, page)
            if position is None:
                return page
            if len(records) >= limit:
                page.cursor = self._encode_cursor(position[len(source.prefix) :])
                return page

    def _page_of_many(
        self, transaction: Transaction, limit: int, after: Position | None
    ) -> Page[R]:
        """Merge the sources by (time, id). Each is read in its share of the page, so that what is
        read stays near what is returned."""
        page: Page[R] = Page([])
        share = -(-limit // len(self._sources))
        streams = [
            _Stream(self, transaction, source, share, after, page) for source in self._sources
        ]
        reverse = self._query.descending
        while len(page.records) < limit:
            heads = [stream for stream in streams if stream.head() is not None]
            if not heads:
                return page
            first = (max if reverse else min)(heads, key=_order_of_head)
            record = first.take()
            if record is not None:
                page.records.append(record)
            after = _progress(after, first.taken, reverse)
        if any(stream.head() is not None for stream in streams) and after is not None:
            page.cursor = self._encode_cursor(after)
        return page

    def _take(
        self, transaction: Transaction, source: _Source, key: Any, body: bytes, page: Page[R]
    ) -> None:
        record = self.read_row(transaction, source, key, body, page)
        if record is not None and self.passes(record):
            page.records.append(record)

    def read_row(
        self, transaction: Transaction, source: _Source, key: Any, body: bytes, page: Page[R]
    ) -> R | None:
        """The record of a row; None, and its id noted, if it cannot be read."""
        record_id = key[-1]
        if source.table != self._table:
            found = transaction.get(self._table, (record_id,))
            if found is None:
                return None  # a label left behind; `check` reports it
            body = found
        try:
            return self._decode(body)
        except CorruptStoreError:
            page.quarantined.append(record_id)
            return None

    def passes(self, record: R) -> bool:
        """Whether the record meets what the index has not answered."""
        return all(test(record) for test in self._tests)

    @property
    def range(self) -> Range:
        """Bounds and direction that all sources share."""
        return self._range

    # --- cursors ---

    def _encode_cursor(self, position: Position) -> str:
        text = json.dumps([self._query.digest(), *position], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def _decode_cursor(self, cursor: str) -> Position:
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            digest, *position = json.loads(base64.urlsafe_b64decode(padded))
            valid = digest == self._query.digest() and all(type(p) in (str, int) for p in position)
        except (ValueError, TypeError):
            valid = False
        if not valid:
            raise InvalidQueryError("the cursor belongs to another query, or is none")
        return tuple(position)


class _Stream(Generic[R]):
    """The records of one source in order, read in small parts."""

    def __init__(
        self,
        plan: Plan[R],
        transaction: Transaction,
        source: _Source,
        share: int,
        after: Position | None,
        page: Page[R],
    ) -> None:
        self._plan = plan
        self._transaction = transaction
        self._source = source
        self._share = share
        self._page = page
        self._position = None if after is None else source.prefix + after
        self._ended = False
        self._ready: list[R] = []
        self.taken: Position = ()

    def head(self) -> R | None:
        while not self._ready and not self._ended:
            self._read()
        return self._ready[-1] if self._ready else None

    def _read(self) -> None:
        part = self._plan.range._replace(
            by=self._source.by,
            prefix=self._source.prefix,
            after=self._position,
            limit=self._share,
        )
        rows, self._position = self._transaction.scan(self._source.table, part)
        self._ended = self._position is None
        for key, body in rows:
            record = self._plan.read_row(self._transaction, self._source, key, body, self._page)
            if record is not None:
                self._ready.append(record)
        self._ready.reverse()

    def take(self) -> R | None:
        record = self._ready.pop()
        self.taken = (microseconds(record.created_at), record.id)
        return record if self._plan.passes(record) else None


def _order_of_head(stream: _Stream[Any]) -> tuple[datetime, str]:
    record = stream.head()
    assert record is not None
    return record.created_at, record.id


def _progress(before: Position | None, taken: Position, reverse: bool) -> Position:
    """Never back: a time column edited by hand must not make pages repeat for ever."""
    if before is None:
        return taken
    return min(before, taken) if reverse else max(before, taken)


def layout_filters(layout: StoreLayout) -> list[str]:
    """The fields with an index by creation time behind them, the most selective first."""
    return [
        index.name for index in layout.record.indexes if index.fields[1:] == ("created_at", "id")
    ]


def _test_field(
    name: str, values: tuple[str | int, ...], layout: StoreLayout
) -> Callable[[Any], bool]:
    column = next(column for column in layout.record.columns if column.name == name)
    wanted = frozenset(values)
    if column.time:
        return lambda record: microseconds(getattr(record, name)) in wanted
    return lambda record: getattr(record, name) in wanted


def _test_label(requirement: Requirement) -> Callable[[Any], bool]:
    return lambda record: requirement.is_met_by(record.labels)


def prefix_bounds(prefix: str | None) -> tuple[str | None, str | None]:
    """From where (inclusive) to where (exclusive) all texts are that start with a prefix."""
    if not prefix:
        return None, None
    # The least text behind all that start with the prefix; surrogates are no text.
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return prefix, None
    last = ord(kept[-1]) + 1
    return prefix, kept[:-1] + chr(0xE000 if last == 0xD800 else last)
