"""Finding what may go, page by page and without a lock. Whatever is found is looked at again in the
transaction that removes it."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import NamedTuple

import msgspec

from storebridge.canonical import MIN_INTEGER
from storebridge.compaction.retention import Limits, Retention
from storebridge.driver import Key, Position, Range, Rows, Transaction
from storebridge.events import DELETED
from storebridge.reading import Reading
from storebridge.spec import StoreLayout
from storebridge.times import microseconds
from storebridge.values import values_from_body

_PAGE = 500


class Found(NamedTuple):
    """A record that has come to its end."""

    record_id: str
    body: bytes
    state: str | None
    created: int
    modified: int
    revision: int = 0
    problem: str | None = None
    """Why it cannot be judged, and stays."""


class _Changed(msgspec.Struct):
    """A record, as far as it matters here besides its columns."""

    revision: int


class _Told(msgspec.Struct):
    """An event, as far as it matters here."""

    kind: str
    at: datetime


class _Made(msgspec.Struct):
    """A version, as far as it matters here."""

    modified_at: datetime


_decode_record = msgspec.json.Decoder(_Changed).decode
_decode_event = msgspec.json.Decoder(_Told).decode
_decode_version = msgspec.json.Decoder(_Made).decode


def records(
    database: Reading, layout: StoreLayout, rule: Retention, now: datetime
) -> Iterator[Found]:
    """The records that a rule lets go, those made first coming first."""
    states = rule.leaving(layout)
    if states is None:
        return
    ranges = [Range(by="state", prefix=(s,)) for s in states] or [Range(by="created")]
    cutoff = None if rule.keep is None else microseconds(now - rule.keep)
    beyond = None if rule.count is None else _beyond(database, layout, ranges, rule.count)
    if beyond is None:
        # Nothing has been changed before it was made.
        ranges = [part._replace(upper=cutoff) for part in ranges]
    streams = [_records(database, layout, part) for part in ranges]
    for found in heapq.merge(*streams, key=_place):
        is_surplus = beyond is not None and _place(found) <= beyond
        if not is_surplus and (cutoff is None or found.created >= cutoff):
            return
        if is_surplus or (cutoff is not None and found.modified < cutoff):
            yield found


def _place(found: Found) -> tuple[int, str]:
    """Where a record stands among those made before and after it."""
    return found.created, found.record_id


def _beyond(
    database: Reading, layout: StoreLayout, ranges: Sequence[Range], count: int
) -> tuple[int, str] | None:
    """The place of the last record that is not among the last so many; None if all are.

    Counted from the end: what another process removes meanwhile, from the beginning, would
    otherwise be removed a second time, from among those that stay.
    """
    if database.read(_count, layout.record.name, ranges) <= count:
        return None
    streams = [
        (found for found in _records(database, layout, part) if found.problem is None)
        for part in (part._replace(reverse=True) for part in ranges)
    ]
    places = map(_place, heapq.merge(*streams, key=_place, reverse=True))
    return next(islice(places, count, None), None)


def _count(transaction: Transaction, table: str, ranges: Iterable[Range]) -> int:
    return sum(transaction.count(table, part) for part in ranges)


def _records(database: Reading, layout: StoreLayout, part: Range) -> Iterator[Found]:
    values_of = values_from_body(layout.record)
    names = [column.name for column in layout.record.columns]
    at = names.index("state") if layout.states else None
    created = MIN_INTEGER
    for key, body in _rows(database, layout.record.name, part):
        record_id = str(key[0])
        values = values_of(key, body)
        revision = _revision(body)
        if values is None or revision is None:
            yield Found(record_id, body, None, created, created, problem="cannot be read")
            continue
        state = None if at is None else str(values[at])
        created, modified = int(values[0] or 0), int(values[1] or 0)
        wrong = at is not None and part.prefix != (state,)
        problem = "is not where its index says: run repair" if wrong else None
        yield Found(record_id, body, state, created, modified, revision, problem)


def _revision(body: bytes) -> int | None:
    try:
        return _decode_record(body).revision
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _rows(database: Reading, table: str, part: Range) -> Iterator[tuple[Key, bytes]]:
    position: Position | None = None
    while True:
        rows: Rows
        rows, position = database.read_scan(table, part._replace(after=position, limit=_PAGE))
        yield from rows
        if position is None:
            return


class Event(NamedTuple):
    """An event that may go; `whole`: the entire history of a record that was deleted."""

    key: Key
    whole: bool = False


def events(
    database: Reading, layout: StoreLayout, limits: Limits, now: datetime, pin: int
) -> Iterator[Event]:
    """The events that may go: of each record the oldest, so that no gap comes to be."""
    cutoff, deleted = _ago(now, limits.events_keep), _ago(now, limits.deleted_keep)
    if cutoff is None and deleted is None and limits.events_count is None:
        return
    for _, entries in groupby(database.rows(layout.history.name), key=lambda row: row[0][0]):
        group = _Group(entries, pin)
        surplus = _surplus(group, limits.events_count, cutoff, spare=1)
        yield from (Event(key) for key in surplus)
        for _ in group:
            pass
        if deleted is not None and group.told == DELETED and group.at and group.at < deleted:
            yield Event(group.key, whole=True)


class _Group:
    """The events of a record, with their times; None for what must stay: one that a reader has not
    come to yet, or that cannot be read."""

    def __init__(self, entries: Iterator[tuple[Key, bytes]], pin: int) -> None:
        self._entries = entries
        self._pin = pin
        self.key: Key = ()
        self.at: datetime | None = None
        self.told = ""

    def __iter__(self) -> Iterator[tuple[Key, datetime | None]]:
        for key, body in self._entries:
            self.key, self.at, self.told = key, None, ""
            try:
                told = _decode_event(body)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                yield key, None
                continue
            if int(key[1]) <= self._pin:
                self.at, self.told = told.at, told.kind
            yield key, self.at


def versions(
    database: Reading, layout: StoreLayout, limits: Limits, now: datetime
) -> Iterator[Key]:
    """The old versions that may go, of each record the oldest."""
    cutoff = _ago(now, limits.versions_keep)
    if layout.version is None or (cutoff is None and limits.versions_count is None):
        return
    for _, entries in groupby(database.rows(layout.version.name), key=lambda row: row[0][0]):
        made = ((key, _made(body)) for key, body in entries)
        yield from _surplus(made, limits.versions_count, cutoff, spare=0)


def _made(body: bytes) -> datetime | None:
    try:
        return _decode_version(body).modified_at
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _ago(now: datetime, age: timedelta | None) -> datetime | None:
    return None if age is None else now - age


def _surplus(
    entries: Iterable[tuple[Key, datetime | None]],
    count: int | None,
    cutoff: datetime | None,
    *,
    spare: int,
) -> Iterator[Key]:
    """Of a record's entries, the oldest first, those that are beyond the last `count`, or from
    before `cutoff`; up to the first that stays, and never the last `spare`."""
    newest: deque[tuple[Key, datetime | None]] = deque()
    least = max(spare, count or 0)
    for entry in entries:
        newest.append(entry)
        if len(newest) > least:
            key, at = newest.popleft()
            if at is None or (count is None and (cutoff is None or at >= cutoff)):
                return
            yield key
    while len(newest) > spare:
        key, at = newest.popleft()
        if at is None or cutoff is None or at >= cutoff:
            return
        yield key
