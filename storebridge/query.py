"""Finding records: which index serves a query, and its pages."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from storebridge.canonical import MAX_INTEGER, MIN_INTEGER
from storebridge.driver import Key, Position, Range, Rows, Transaction
from storebridge.errors import CorruptStoreError, InvalidQueryError
from storebridge.labels import Requirement
from storebridge.record import Codec, Record
from storebridge.spec import StoreLayout, label_time
from storebridge.times import microseconds

R = TypeVar("R", bound=Record)
Sort = Literal["created_at", "modified_at", "id"]
_ORDERS = {"created_at": "created", "modified_at": "modified", "id": None}
MAX_LIMIT = 10_000
_CHUNK = 64


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
        filters = sorted((name, sorted(values)) for name, values in self.filters.items())
        rest = (v for name, v in self.__dict__.items() if name != "filters")
        return zlib.crc32(repr((filters, *rest)).encode())


class _Source(NamedTuple):
    """One index range to read from."""

    table: str
    by: str | None
    prefix: tuple[str | int, ...]


class Plan(Generic[R]):
    """How a query is answered: the sources to read, merged by time, and what is left to test."""

    def __init__(self, query: Query, layout: StoreLayout, codec: Codec[R]) -> None:
        self._query = query
        self._digest = zlib.crc32(layout.name.encode(), query.digest())
        self._table = layout.record.name
        self._decode = codec.decode
        self._decode_current = codec.decode_current
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
            self._tests.append(test_field(name, values, layout))
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

    @property
    def is_one_look(self) -> bool:
        """Whether one index answers all of the query, and its rows are the records."""
        return len(self._sources) == 1 and not self._tests and not self.is_label(self._sources[0])

    def readable_page(
        self, transaction: Transaction, limit: int, cursor: str | None
    ) -> Page[R] | None:
        """`page` by one look, where `is_one_look`; None if not all its bodies are of this version
        and can be read."""
        (source,) = self._sources
        after = None if cursor is None else source.prefix + self._decode_cursor(cursor)
        _, _, lower, upper, _, _, reverse = self._range
        part = Range(source.by, source.prefix, lower, upper, after, limit, reverse)
        rows, position = transaction.scan(source.table, part)
        decode = self._decode_current
        try:
            page = Page([decode(body) for _, body in rows])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if position is not None:
            page.cursor = self._encode_cursor(position[len(source.prefix) :])
        return page

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
            wanted = limit - len(records)
            part = self._range._replace(
                by=source.by,
                prefix=source.prefix,
                after=position,
                # Where much is passed over, the last record must not be sought row by row.
                limit=max(wanted, _CHUNK) if self._tests else wanted,
            )
            rows, position = transaction.scan(source.table, part)
            used = self._take_all(transaction, source, rows, page, limit)
            if used < len(rows):
                _, position = transaction.scan(source.table, part._replace(limit=used))
            if position is None:
                return page
            if len(records) >= limit:
                page.cursor = self._encode_cursor(position[len(source.prefix) :])
                return page

    def _take_all(
        self, transaction: Transaction, source: _Source, rows: Rows, page: Page[R], limit: int
    ) -> int:
        """Add the records of rows until the page is full. Returns how many rows that took."""
        for used, (key, body) in enumerate(rows, 1):
            self._take(transaction, source, key, body, page)
            if len(page.records) >= limit:
                return used
        return len(rows)

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
        nearest = max if self._query.descending else min
        while True:
            heads = [(order, n) for n, s in enumerate(streams) if (order := s.head()) is not None]
            if not heads:
                return page
            if len(page.records) >= limit:
                assert after is not None
                page.cursor = self._encode_cursor(after)
                return page
            after, first = nearest(heads)
            record = streams[first].take()
            if record is not None and self.passes(record):
                page.records.append(record)

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
        if self.is_label(source):
            found = transaction.get(self._table, (record_id,))
            if found is None:
                return None  # a label left behind; `check` reports it
            body = found
        record = self.decoded(body)
        if record is None and record_id not in page.quarantined:
            page.quarantined.append(record_id)
        return record

    def decoded(self, body: bytes) -> R | None:
        """The record of a body; None if it cannot be read."""
        try:
            return self._decode(body)
        except CorruptStoreError:
            return None

    def passes(self, record: R) -> bool:
        """Whether the record meets what the index has not answered."""
        return all(test(record) for test in self._tests)

    def is_label(self, source: _Source) -> bool:
        """Whether the rows of a source are labels."""
        return source.table != self._table

    @property
    def range(self) -> Range:
        """Bounds and direction that all sources share."""
        return self._range

    # --- cursors ---

    def _encode_cursor(self, position: Position) -> str:
        text = json.dumps([self._digest, *position], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def _decode_cursor(self, cursor: str) -> Position:
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            digest, *position = json.loads(base64.urlsafe_b64decode(padded))
            valid = digest == self._digest and self._is_position(position)
        except (ValueError, TypeError, RecursionError):
            valid = False
        if not valid:
            raise InvalidQueryError("the cursor belongs to another query, or is none")
        return tuple(position)

    def _is_position(self, position: list[Any]) -> bool:
        kinds: list[type] = [str] if self._query.sort == "id" else [int, str]
        if self._sources[0].by == "label":
            kinds.append(str)
        return [type(part) for part in position] == kinds and all(
            _is_key_text(part) if type(part) is str else MIN_INTEGER <= part <= MAX_INTEGER
            for part in position
        )


class _Item(NamedTuple, Generic[R]):
    """A row of a source. Of a label's row the record is not read before it is wanted."""

    order: Position
    """Empty where the body, which says it, cannot be read."""
    key: Key
    body: bytes
    record: R | None


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
        self._after = after
        self._ended = False
        self._ready: list[_Item[R]] = []

    def head(self) -> Position | None:
        """Time and id of the next record; None at the end."""
        while not self._ready and not self._ended:
            self._read()
        return self._ready[-1].order if self._ready else None

    def take(self) -> R | None:
        """The next record; None if it cannot be read."""
        item = self._ready.pop()
        if item.record is not None:
            return item.record
        return self._plan.read_row(self._transaction, self._source, item.key, item.body, self._page)

    def _read(self) -> None:
        rows, end = self._scan(self._after, self._share)
        items = [self._item(*row) for row in rows]
        if not self._in_order(items, end):
            items = self._read_one_by_one(len(rows))
        self._after, self._ended = end, end is None
        self._ready = items[::-1]

    def _scan(self, after: Position | None, limit: int) -> tuple[Rows, Position | None]:
        source = self._source
        position = None if after is None else source.prefix + after
        part = self._plan.range._replace(
            by=source.by, prefix=source.prefix, after=position, limit=limit
        )
        rows, end = self._transaction.scan(source.table, part)
        return rows, None if end is None else end[len(source.prefix) :]

    def _item(self, key: Key, body: bytes) -> _Item[R]:
        if self._plan.is_label(self._source):
            order = (label_time(body), key[-1])
            return _Item(order, key, body, None)
        record = self._plan.decoded(body)
        if record is None:
            # Its id is noted by `take`: what is read ahead may belong to the next page.
            return _Item((), key, body, None)
        return _Item((microseconds(record.created_at), record.id), key, body, record)

    def _in_order(self, items: list[_Item[R]], end: Position | None) -> bool:
        orders = [item.order for item in items]
        if self._plan.range.reverse:
            orders.reverse()
        first, last = (end, self._after) if self._plan.range.reverse else (self._after, end)
        return (
            all(orders)
            and all(before < behind for before, behind in pairwise(orders))
            and (first is None or not orders or first <= orders[0])
            and (last is None or not orders or orders[-1] <= last)
            and self._after not in orders
        )

    def _read_one_by_one(self, count: int) -> list[_Item[R]]:
        """A time column edited by hand puts a row where its body does not belong, and one that
        cannot be read does not say where. Then the index says where each is: else the merge would
        pass over others, or never end."""
        items: list[_Item[R]] = []
        before = after = self._after
        for _ in range(count):
            rows, after = self._scan(after, 1)
            order = after or self._order_of_last(before, rows)
            items += [self._item(*row)._replace(order=order) for row in rows]
            before = after
        return items

    def _order_of_last(self, before: Position | None, rows: Rows) -> Position:
        """Of the last row of a source the scan does not say where it is: where its body belongs,
        unless that is not behind the one before it."""
        reverse = self._plan.range.reverse
        for row in rows:
            order = self._item(*row).order
            if order and (before is None or (order < before) is reverse):
                return order
        return (MIN_INTEGER if reverse else MAX_INTEGER, "")


def _is_key_text(text: str) -> bool:
    """Whether it can stand in a key: JSON can say a lone surrogate, which no engine encodes."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def layout_filters(layout: StoreLayout) -> list[str]:
    """The fields with an index by creation time behind them, the most selective first."""
    return [
        index.name for index in layout.record.indexes if index.fields[1:] == ("created_at", "id")
    ]


def test_field(
    name: str, values: tuple[str | int, ...], layout: StoreLayout
) -> Callable[[Any], bool]:
    """Whether a record's field has one of these index values."""
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
