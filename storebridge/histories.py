"""Histories against records: the events of a record are to lead, one by one, to what it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import mul

import msgspec

from storebridge import meta
from storebridge.driver import Fault, Key, Range, Transaction, Value
from storebridge.events import (
    CREATED,
    DELETED,
    REPAIRED,
    UNREADABLE,
    Event,
    decode_event,
    encode_event,
)
from storebridge.meta import Horizon
from storebridge.reading import Reading
from storebridge.spec import StoreLayout
from storebridge.times import rfc3339
from storebridge.transaction import Unit

_PAGE = 500
_ENDS = {CREATED, DELETED, REPAIRED}
Tick = Callable[[str, int], None]
"""Told of which table how many more entries have been looked at."""


class _Head(msgspec.Struct):
    """What a record and its last event both say."""

    revision: int
    created_at: str
    state: str | None = None


class _Told(msgspec.Struct):
    """What an event says of its record."""

    kind: str
    revision: int
    state: str | None = None


_decode_told = msgspec.json.Decoder(_Told).decode
_decode_head = msgspec.json.Decoder(_Head).decode


class Ledger:
    """Whether the histories of a store lead to its records, by a sum: nearly always they do, and to
    lay each history beside its record would take several times as long.

    It is told of every record, then of every event, in the order of their keys; in another order it
    only takes longer. Each record adds a number made of its id, revision and state, and each
    history takes away what its last event says.
    """

    def __init__(self, database: Reading, layout: StoreLayout) -> None:
        self._database = database
        self._layout = layout
        self._horizon = database.read(meta.read_horizon, layout.name)
        self._sum = 0
        self._unreadable: set[str] = set()
        self._id: str | None = None
        self._last: _Told | None = None
        self._doubtful = False
        self._faults: dict[str, str] = {}

    def record(self, record_id: str, body: bytes) -> None:
        """Take in a record."""
        try:
            head = _head(self._layout, body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._unreadable.add(record_id)
        else:
            self._sum += _number(record_id, head)

    def known(
        self,
        ids: Sequence[Value],
        revisions: Sequence[int | None],
        states: Sequence[Value] | None,
    ) -> None:
        """Take in records that somebody has read already; `states` None: they have none."""
        told = [None] * len(ids) if states is None else states
        stands = map(hash, zip(revisions, told, strict=True))
        self._sum += sum(map(mul, map(hash, ids), stands))

    def events(self, ids: Sequence[Value], bodies: Sequence[bytes]) -> None:
        """Take in events of records with these ids."""
        try:
            told: Sequence[_Told | None] = list(map(_decode_told, bodies))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            told = list(map(_told, bodies))
        record_id, last, doubtful = self._id, self._last, self._doubtful
        for own_id, event in zip(ids, told, strict=True):
            if own_id != record_id:
                if doubtful or last is None or last.kind == DELETED or self._unreadable:
                    self._sum -= self._end_of(record_id, last, doubtful)
                else:
                    self._sum -= hash(record_id) * hash((last.revision, last.state))
                record_id, last, doubtful = str(own_id), None, False
            if event is None:
                doubtful = True
                continue
            if last is None:
                follows = event.kind == CREATED or self._may_begin(event)
            elif event.kind in _ENDS or last.kind == DELETED:
                follows = _follows_anew(last, event)
            else:
                follows = event.revision == last.revision + 1
            if not follows:
                doubtful = True
            last = event
        self._id, self._last, self._doubtful = record_id, last, doubtful

    def _may_begin(self, event: _Told) -> bool:
        """Whether an event other than the making of a record is beyond doubt at the beginning."""
        return event.kind == DELETED and self._horizon is not None

    def _end_of(self, record_id: str | None, last: _Told | None, doubtful: bool) -> int:
        """What a history takes away that is over."""
        if record_id is None or record_id in self._unreadable:
            return 0
        if doubtful or last is None:
            return self._look_at(record_id)
        return 0 if last.kind == DELETED else _number(record_id, last)

    def _look_at(self, record_id: str) -> int:
        problem = self._database.read(_problem_of, self._layout, record_id)
        if problem is not None:
            self._faults[record_id] = problem
        body = self._database.get(self._layout.record.name, (record_id,))
        if body is None:
            return 0
        return _number(record_id, _head(self._layout, body))

    def faults(self, tick: Tick) -> Iterator[Fault]:
        """Records that their history does not lead to, and histories whose record is lost; to be
        asked for at the end."""
        self._sum -= self._end_of(self._id, self._last, self._doubtful)
        self._id = None
        table = self._layout.history.name
        if self._sum:
            yield from _faults(self._database, self._layout, tick)
        else:
            yield from (Fault(table, (name,), problem) for name, problem in self._faults.items())


def _number(record_id: str, stands: _Head | _Told) -> int:
    """What a record adds to the sum. Python's hash of all three is nearly linear in each of them: a
    sum of those is often the same when two records exchange their states."""
    return hash(record_id) * hash((stands.revision, stands.state))


def _follows_anew(last: _Told, event: _Told) -> bool:
    """Whether an event is beyond doubt behind another, where one of them begins or ends a life."""
    if last.kind == DELETED:
        return event.kind == CREATED
    # After a repair the revision goes on, but what was repaired is to be looked at.
    if event.kind == DELETED:
        return event.revision in (last.revision, 0)
    return event.revision == last.revision + 1 and event.kind not in (CREATED, REPAIRED)


def _told(body: bytes) -> _Told | None:
    try:
        return _decode_told(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _faults(database: Reading, layout: StoreLayout, tick: Tick) -> Iterator[Fault]:
    """Looks at all of them, page by page. What looks wrong between two pages, as a change made
    meanwhile may, is looked at again in one view before it is called a fault."""
    horizon = database.read(meta.read_horizon, layout.name)
    for record_id, body, events in _side_by_side(database, layout, tick):
        if _problem(layout, body, events, horizon) is not None:
            problem = database.read(_problem_of, layout, record_id)
            if problem is not None:
                yield Fault(layout.history.name, (record_id,), problem)


def mend(unit: Unit, layout: StoreLayout, record_id: str, now: datetime) -> None:
    """Where the history does not lead to the record, which is the truth: note that, and where the
    record stands, as a further event. What is missing stays missing."""
    problem = _problem_of(unit.engine, layout, record_id)
    if problem is None:
        return
    body = unit.get(layout.record.name, (record_id,))
    if body is None:
        event = encode_event(DELETED, now, 0, None, None, problem)
    else:
        head = _head(layout, body)
        event = encode_event(REPAIRED, now, head.revision, head.state, None, problem)
    unit.event(layout.history.name, record_id, event, None, None)


def _problem_of(transaction: Transaction, layout: StoreLayout, record_id: str) -> str | None:
    body = transaction.get(layout.record.name, (record_id,))
    horizon = meta.read_horizon(transaction, layout.name)
    return _problem(layout, body, history_of(transaction, layout, record_id), horizon)


def history_of(transaction: Transaction, layout: StoreLayout, record_id: str) -> Iterator[Event]:
    """What happened to a record, oldest first, read page by page."""
    part = Range(prefix=(record_id,), limit=_PAGE)
    while True:
        rows, position = transaction.scan(layout.history.name, part)
        for key, body in rows:
            yield decode_event(layout.name, record_id, int(key[1]), body)
        if position is None:
            return
        part = part._replace(after=position)


def _side_by_side(
    database: Reading, layout: StoreLayout, tick: Tick
) -> Iterator[tuple[str, bytes | None, Iterator[Event]]]:
    """Each record with its events, in the order of ids; one of them may be missing."""
    records = _ticking(database, layout.record.name, tick)
    entries = _ticking(database, layout.history.name, tick)
    histories = groupby(entries, key=lambda entry: str(entry[0][0]))
    record, history = next(records, None), next(histories, None)
    while record is not None or history is not None:
        of_record = None if record is None else str(record[0][0])
        of_history = None if history is None else history[0]
        first = min(one for one in (of_record, of_history) if one is not None)
        body = record[1] if record is not None and of_record == first else None
        told = history[1] if history is not None and of_history == first else ()
        yield first, body, _decoded(layout, first, told)
        if of_record == first:
            record = next(records, None)
        if of_history == first:
            history = next(histories, None)


def _ticking(database: Reading, table: str, tick: Tick) -> Iterator[tuple[Key, bytes]]:
    for row in database.rows(table):
        tick(table, 1)
        yield row


def _decoded(
    layout: StoreLayout, record_id: str, entries: Iterable[tuple[Key, bytes]]
) -> Iterator[Event]:
    for key, body in entries:
        yield decode_event(layout.name, record_id, int(key[1]), body)


def _head(layout: StoreLayout, body: bytes) -> _Head:
    head = _decode_head(body)
    if not layout.states:
        head.state = None  # a field that is called so, but which no event tells of
    return head


def _problem(
    layout: StoreLayout, body: bytes | None, events: Iterable[Event], horizon: Horizon | None
) -> str | None:
    """What is wrong with a history, in words; None if nothing is, or the record is unreadable."""
    head = None
    if body is not None:
        try:
            head = _head(layout, body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
    problem = last = None
    for event in events:
        if event.kind == REPAIRED:
            problem = None
        elif problem is None:
            problem = _beginning(head, event, horizon) if last is None else _break(last, event)
        last = event
    return problem or _end(head, last)


def _beginning(head: _Head | None, event: Event, horizon: Horizon | None) -> str | None:
    """Why a history cannot begin with an event."""
    if event.kind == UNREADABLE:
        return f"event {event.sequence} cannot be read: {event.message}"
    if event.kind == CREATED:
        return None
    # Retention may have removed what was before, unless the record is younger than all of that.
    # (If the record is younger than the event, that is about an earlier record of the same id.)
    if horizon is not None and (
        head is None or head.created_at <= horizon.at or head.created_at > rfc3339(event.at)
    ):
        return None
    return f"what happened before event {event.sequence} is missing"


def _break(last: Event, event: Event) -> str | None:
    """Why an event cannot follow the one before."""
    if event.kind == UNREADABLE:
        return f"event {event.sequence} cannot be read: {event.message}"
    if last.kind == UNREADABLE:
        return None
    between = f"between events {last.sequence} and {event.sequence}"
    if event.kind == CREATED:
        told = last.kind == DELETED
        return None if told else f"{between} the record is created anew, but was not deleted"
    if last.kind == DELETED:
        return f"{between} a record that was deleted is changed"
    # One that could not be read was discarded without knowing its revision.
    expected = (last.revision, 0) if event.kind == DELETED else (last.revision + 1,)
    if event.revision in expected:
        return None
    return f"{between} changes are missing: revision {last.revision}, then {event.revision}"


def _end(head: _Head | None, last: Event | None) -> str | None:
    """Why a record cannot be as it is after its last event."""
    if last is None:
        return "no event tells of the record"
    if head is None:
        gone = last.kind == DELETED
        return None if gone else "the record is missing, and no event tells that it was deleted"
    if last.kind == DELETED:
        return f"event {last.sequence} tells that the record was deleted, but it is there"
    if (head.revision, head.state) == (last.revision, last.state):
        return None
    return (
        f"the record is at revision {head.revision}, {head.state}; its last event,"
        f" {last.sequence}, says revision {last.revision}, {last.state}"
    )
