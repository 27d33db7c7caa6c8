"""The portable store: what every store promises, on every backend, written once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Self, TypeVar

import msgspec

from storebridge import check as checking
from storebridge.check import Watch
from storebridge.database import Database
from storebridge.driver import Position, Range
from storebridge.errors import (
    AmbiguousIdError,
    CorruptStoreError,
    InvalidQueryError,
    InvalidRecordError,
    RecordNotFoundError,
    StorebridgeError,
    TransactionError,
)
from storebridge.events import Event, decode_event
from storebridge.expect import Expect
from storebridge.labels import parse_selector
from storebridge.limits import MAX_ID, check_id, check_integer, check_text
from storebridge.query import MAX_LIMIT, Page, Plan, Query, Sort
from storebridge.record import Codec, Record
from storebridge.recordwriter import RecordWriter
from storebridge.recount import RecountReport
from storebridge.spec import RecordSpec, index_value, layout_of

logger = logging.getLogger("storebridge")
R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass(frozen=True)
class StateChange:
    """One of several changes of state: what `set_state` takes."""

    record_id: str
    state: str
    message: str | None = None
    expect: Expect | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


class RecordStore(Generic[R]):
    """Records of one type in a database.

    Every change, its event, its index entries and its counters are one transaction: of its own, or
    the one that the calling thread has open with `database.transaction()`. It is durable, to the
    database's durability, when the call (or the block) returns.
    """

    def __init__(
        self, database: Database, spec: RecordSpec[R], codec: Codec[R] | None = None
    ) -> None:
        """Make the store's tables in the database if they are missing. `codec`: where bodies are
        not simply the record's fields."""
        self.database = database
        self.spec = spec
        self.codec = Codec(spec.type, spec.upgrades) if codec is None else codec
        self.layout = database.declare(layout_of(spec))
        self._write = RecordWriter(spec, self.layout, self.codec, database.clock)
        self._table = self.layout.record.name
        self._history = self.layout.history.name
        self._label = self.layout.label.name if self.layout.label else None
        self._version = self.layout.version.name if self.layout.version else None
        self._noun = spec.name
        self._closed = False

    def close(self) -> None:
        """Close the store's use of its database. Again: no-op."""
        if not self._closed:
            self.database.close()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing ---

    def create(self, record: R) -> R:
        """Add a record and return it as stored: with id, times, revision 1, and the initial state
        if it names none. The given object is left as it is.

        RecordExistsError if the id, or the unique fields together, are taken; InvalidRecordError
        for a value that no store accepts.
        """
        return self.database.write(self._write.create, record)

    def update(self, record_id: str, *, expect: Expect | None = None, **changes: Any) -> R:
        """Set fields and return the record as stored; its state is set by `set_state`.

        ConflictError if it is not as expected or its state is terminal, RecordNotFoundError,
        InvalidRecordError, NewerRecordError; the record is then as before.
        """
        return self.database.write(self._write.update, record_id, expect, changes)

    def set_state(
        self,
        record_id: str,
        state: str,
        *,
        message: str | None = None,
        expect: Expect | None = None,
        **changes: Any,
    ) -> R:
        """Pass a record into a state, and set further fields in the same change.

        ConflictError, which carries the record found, for a transition that the state machine does
        not allow or a record that is not as expected; InvalidRecordError for an unknown state.
        """
        return self.database.write(
            self._write.set_state, record_id, state, message, expect, changes
        )

    def create_many(self, records: Iterable[R]) -> list[R | StorebridgeError]:
        """As `create` for each, in one transaction. The result of each is the record as stored, or
        the error for which it, and it alone, was not."""
        with self.database.transaction():
            return [_result(self.create, record) for record in records]

    def set_state_many(self, changes: Iterable[StateChange]) -> list[R | StorebridgeError]:
        """As `set_state` for each, in one transaction. The result of each is the record as stored,
        or the error for which it, and it alone, was not changed."""
        with self.database.transaction():
            return [
                _result(
                    self.database.write,
                    self._write.set_state,
                    change.record_id,
                    change.state,
                    change.message,
                    change.expect,
                    change.fields,
                )
                for change in changes
            ]

    def delete(self, record_id: str, *, expect: Expect | None = None) -> None:
        """Remove a record; its history stays readable. RecordNotFoundError, ConflictError."""
        self.database.write(self._write.delete, record_id, expect)

    def discard(self, record_id: str) -> None:
        """Remove a quarantined record, whose body cannot be read; a transaction of its own.

        ConflictError if it can be read.
        """
        if self.database.in_transaction:
            raise TransactionError("discard() cannot be undone, so it cannot be in a transaction")
        self.database.write_apart(self._write.discard, record_id)

    # --- reading ---

    def versions(self, record_id: str) -> list[R]:
        """The old versions of a record, oldest first; the current one is `get(record_id)`.

        One that cannot be read is left out, and a warning in the log names it.
        """
        if self._version is None:
            raise InvalidQueryError(f"store {self._noun!r} keeps no versions")
        rows = self.database.read_range(self._version, (check_id(record_id),))
        found = (self._version_or_none(record_id, key[1], body) for key, body in rows)
        return [version for version in found if version is not None]

    def _version_or_none(self, record_id: str, number: Any, body: bytes) -> R | None:
        try:
            return self.codec.decode(body)
        except CorruptStoreError as error:
            logger.warning(
                "%s: version %s of %s %r is left out: %s",
                self.database.location.text,
                number,
                self._noun,
                record_id,
                error,
            )
            return None

    def get(self, record_id: str) -> R:
        """The record with this very id. RecordNotFoundError; CorruptStoreError if quarantined."""
        body = self.database.get(self._table, (check_id(record_id),))
        if body is None:
            raise RecordNotFoundError(f"no {self._noun} {record_id!r}")
        try:
            return self.codec.decode_current(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._decode_other(record_id, body)

    def _decode_other(self, record_id: str, body: bytes) -> R:
        try:
            return self.codec.decode(body)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{self._noun} {record_id!r} is quarantined: {error}") from None

    def get_unique(self, **fields: Any) -> R:
        """The record with these unique fields, such as `namespace` and `name` of a job."""
        if not fields or set(fields) != set(self.spec.unique):
            raise InvalidQueryError(f"unique fields are {', '.join(self.spec.unique) or 'none'}")
        columns = {column.name: column for column in self.layout.record.columns}
        prefix = tuple(
            _as_query(index_value, columns[name], fields[name]) for name in self.spec.unique
        )
        rows = self.database.read_range(self._table, prefix, by="unique")
        if not rows:
            raise RecordNotFoundError(f"no {self._noun} with {fields}")
        return self._decode_other(str(rows[0][0][0]), rows[0][1])

    def resolve(self, prefix: str) -> str:
        """The one id that is this text or starts with it. AmbiguousIdError, RecordNotFoundError."""
        if self.database.get(self._table, (check_id(prefix),)) is not None:
            return prefix
        plan = self._plan({}, None, prefix, None, None, "id", False)
        page = self.database.read(plan.page, 3, None)
        ids = sorted([record.id for record in page] + page.quarantined)
        if len(ids) > 1:
            raise AmbiguousIdError(f"{self._noun} {prefix!r} may be {', '.join(ids[:2])} …")
        if not ids:
            raise RecordNotFoundError(f"no {self._noun} {prefix!r}")
        return ids[0]

    def find(
        self,
        *,
        labels: str | None = None,
        prefix: str | None = None,
        created_from: datetime | None = None,
        created_until: datetime | None = None,
        sort: Sort | None = None,
        descending: bool = False,
        limit: int = 100,
        cursor: str | None = None,
        **filters: Any,
    ) -> Page[R]:
        """A page of the records that meet every condition.

        `filters`: fields of the store's filters, each with a value or a collection of values.
        `labels`: a selector in Kubernetes syntax. `prefix`: of ids; the order is then by id.
        `created_from` is inclusive, `created_until` exclusive. `cursor`: from the page before.
        Pages sorted by creation time are stable; sorted by time of modification, a record changed
        meanwhile may come twice or not at all. InvalidQueryError for what cannot be asked.
        """
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise InvalidQueryError(f"limit {limit!r}: accepted are 1 to {MAX_LIMIT}")
        plan = self._plan(filters, labels, prefix, created_from, created_until, sort, descending)
        if plan.is_one_look:
            page = self.database.look(plan.readable_page, limit, cursor)
            if page is not None:
                return page
        return self.database.read(plan.page, limit, cursor)

    def each(self, **query: Any) -> Iterator[R]:
        """All records of a query, read page by page. Takes what `find` takes, but for `cursor`;
        `limit` is the size of a page.

        Sorted by time of modification, it ends where it meets what was changed after it began: a
        caller who changes what it yields would else never come to an end.
        """
        query.setdefault("limit", 500)
        moving = query.get("sort") == "modified_at" and not query.get("descending")
        newest = self.find(**(query | {"descending": True, "limit": 1})) if moving else None
        cursor: str | None = None
        while True:
            page = self.find(cursor=cursor, **query)
            for record in page:
                if newest is not None and not _is_as_old(record, newest):
                    return
                yield record
            cursor = page.cursor
            if cursor is None:
                return

    def live(self) -> Iterator[R]:
        """The records whose state is not terminal."""
        if self.spec.machine is None:
            return self.each()
        return self.each(state=self.spec.machine.live)

    def count(self, **query: Any) -> int:
        """How many records a query matches: from counters or the index alone if they can tell."""
        if set(query) == {"state"}:
            by_state = self.counts()
            return sum(by_state[str(state)] for state in self._filter("state", query["state"]))
        if not query:
            return sum(self.counts().values())
        names = ("labels", "prefix", "created_from", "created_until", "sort")
        known = {name: query.get(name) for name in names}
        filters = {name: value for name, value in query.items() if name not in names}
        plan = self._plan(filters, **known, descending=False)
        counted = self.database.read(plan.count)
        return sum(1 for _ in self.each(**query)) if counted is None else counted

    def counts(self) -> dict[str, int]:
        """Records by state, from the counters: costs one look per state, however many there are."""
        return self.database.counts(self.layout)

    def recount(
        self, *, deep: bool = False, repair: bool = False, watch: Watch | None = None
    ) -> RecountReport:
        """As `Database.recount`, of this store."""
        (report,) = checking.recount(
            self.database, stores=[self.layout.name], deep=deep, repair=repair, watch=watch
        )
        return report

    def history(self, record_id: str, *, after: int = 0) -> list[Event]:
        """What happened to a record, oldest first, also when it was deleted since. `after`: only
        events with greater sequence numbers."""
        check_integer("after", after)
        behind = (record_id, after) if after else None
        rows = self.database.read_range(self._history, (check_id(record_id),), after=behind)
        return [decode_event(self._noun, record_id, int(key[1]), body) for key, body in rows]

    def events(self, after: int | None = None) -> Iterator[Event]:
        """The committed events of this store, as `Database.events`."""
        return self.database.events(after, stores=[self.layout.name])

    def watch(
        self,
        after: int | None = None,
        *,
        states: Iterable[str] | None = None,
        checkpoint: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[Event]:
        """The events of this store as they come, as `Database.watch`."""
        return self.database.watch(
            after,
            stores=[self.layout.name],
            states=states,
            checkpoint=checkpoint,
            timeout=timeout,
        )

    def quarantined(self) -> Iterator[tuple[str, str]]:
        """Records that cannot be read: id and reason. Reads every record."""
        position: Position | None = None
        while True:
            part = Range(after=position, limit=500)
            rows, position = self.database.read_scan(self._table, part)
            for key, body in rows:
                try:
                    self.codec.decode(body)
                except CorruptStoreError as error:
                    yield str(key[0]), str(error)
            if position is None:
                return

    # --- queries ---

    def _plan(
        self,
        filters: Mapping[str, Any],
        labels: str | None,
        prefix: str | None,
        created_from: datetime | None,
        created_until: datetime | None,
        sort: Sort | None,
        descending: bool,
    ) -> Plan[R]:
        if labels and self._label is None:
            raise InvalidQueryError(f"store {self._noun!r} has no labels")
        if sort not in (None, "created_at", "modified_at", "id"):
            raise InvalidQueryError(f"sort {sort!r}: accepted are created_at, modified_at, id")
        if prefix and sort not in (None, "id"):
            raise InvalidQueryError("records found by prefix come sorted by id")
        if prefix:
            _as_query(check_text, "prefix", prefix, MAX_ID)
        query = Query(
            filters={name: self._filter(name, value) for name, value in filters.items()},
            labels=parse_selector(labels or ""),
            prefix=prefix,
            created_from=_query_time("created_from", created_from),
            created_until=_query_time("created_until", created_until),
            sort=sort or ("id" if prefix else "created_at"),
            descending=descending,
        )
        return Plan(query, self.layout, self.codec)

    def _filter(self, name: str, value: Any) -> tuple[str | int, ...]:
        if name not in self.spec.filters:
            raise InvalidQueryError(
                f"cannot find by {name!r}; filters are {', '.join(self.spec.filters)}"
            )
        column = next(c for c in self.layout.record.columns if c.name == name)
        several = isinstance(value, Collection) and not isinstance(value, str)
        given = value if several else (value,)
        wanted = tuple(dict.fromkeys(_as_query(index_value, column, one) for one in given))
        if name == "state":
            for state in wanted:
                self._check_query_state(state)
        if not wanted:
            raise InvalidQueryError(f"{name}: no value given")
        return wanted

    def _check_query_state(self, state: Any) -> None:
        if state not in self.layout.states:
            raise InvalidQueryError(f"state {state!r} is none of {', '.join(self.layout.states)}")


def _result(call: Callable[..., T], *args: Any, **kwargs: Any) -> T | StorebridgeError:
    try:
        return call(*args, **kwargs)
    except StorebridgeError as error:
        return error


def _query_time(name: str, time: Any) -> datetime | None:
    if time is None or (isinstance(time, datetime) and time.tzinfo is not None):
        return time
    raise InvalidQueryError(f"{name}: expected a time with a zone, got {time!r}")


def _is_as_old(record: Record, newest: Page[Any]) -> bool:
    return any(record.modified_at <= other.modified_at for other in newest)


def _as_query(check: Callable[..., T], *args: Any) -> T:
    try:
        return check(*args)
    except InvalidRecordError as error:
        raise InvalidQueryError(str(error)) from None
