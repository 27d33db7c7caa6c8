"""The entries of a key-value store: what they are, their bodies, and their changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Raw

from storebridge.driver import Position, Range, Values
from storebridge.errors import (
    ConfigurationError,
    ConflictError,
    CorruptStoreError,
    InvalidRecordError,
    KeyNotFoundError,
    NewerRecordError,
    RecordExistsError,
)
from storebridge.events import DELETED, UPDATED, encode_event
from storebridge.keyspace import Key, key_of
from storebridge.record import Codec, Record
from storebridge.recordwriter import RecordWriter
from storebridge.spec import RecordSpec, StoreLayout
from storebridge.times import microseconds
from storebridge.transaction import Unit
from storebridge.typedvalues import dumps, from_plain, same

EXPIRED = "expired"
"""What the event of an entry's removal says if nobody removed it."""
ABSENT = object()
Lifetime = Literal["persistent", "boot"]
Found = tuple["Entry", bytes, Values]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_IN_PASSING = 2
"""How many entries that have expired a write takes along which adds one that will."""


class Entry(Record, kw_only=True, tag=1):
    """A key and its value. The value is a copy of what is stored."""

    key: Key
    value: Any
    expires_at: Instant | None = None
    """From when on it is as if it were not there."""


class BootEntry(Entry, kw_only=True, tag=1):
    """An entry that lasts as long as the machine is up."""

    boot: str
    """The boot in which it was written."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a key: `created`, `updated`, `deleted`, `expired`, or `unreadable` for an
    event that cannot be read. The value is not told: look what it is now."""

    sequence: int
    key: Key
    kind: str
    at: datetime
    revision: int
    """Of the entry, after the change."""


_TYPES: dict[Lifetime, tuple[type[Entry], tuple[str, ...]]] = {
    "persistent": (Entry, ("expires_at",)),
    "boot": (BootEntry, ("expires_at", "boot")),
}


def entry_spec(name: str, lifetime: Lifetime) -> RecordSpec[Entry]:
    """What a key-value store keeps. ConfigurationError for a name or lifetime that cannot be."""
    if lifetime not in _TYPES:
        raise ConfigurationError(f"lifetime {lifetime!r}: accepted are {', '.join(_TYPES)}")
    entry_type, filters = _TYPES[lifetime]
    return RecordSpec(name=name, type=entry_type, filters=filters, plural=f"{name}-entries")


def lifetime_of(layout: StoreLayout) -> Lifetime | None:
    """The lifetime of a key-value store, from its tables; None: it is a store of another kind."""
    view = layout.record.view
    columns = tuple(column.name for column in layout.record.columns[2:])
    for lifetime, (entry_type, filters) in _TYPES.items():
        if columns == filters and view and set(entry_type.__struct_fields__) <= set(view.fields):
            return lifetime
    return None


class EntryCodec(Codec[Entry]):
    """Bodies of entries, whose values are JSON with tags.

    For writing, the value of an entry is that JSON (`Raw`), or any value, in its place.
    """

    def __init__(self, entry_type: type[Entry]) -> None:
        super().__init__(entry_type, {})
        self._decode_plain = self.decode_current
        self.decode_current = self._decode_current

    def _decode_current(self, body: Any) -> Entry:
        entry = self._decode_plain(body)
        try:
            entry.value = from_plain(entry.value, body)
        except ValueError as error:
            raise msgspec.ValidationError(str(error)) from None
        return entry

    def encode(self, record: Entry) -> bytes:
        """The body."""
        if type(record.value) is not Raw:
            record = copy.copy(record)
            record.value = Raw(dumps(record.value))
        return super().encode(record)

    def validated(self, record: Entry) -> tuple[Entry, bytes]:
        """The entry, which its store has made, and its body."""
        return record, self.encode(record)

    def _decode_other(self, body: bytes, *, writing: bool) -> Entry:
        entry = super()._decode_other(body, writing=writing)
        try:
            entry.value = from_plain(entry.value, body)
        except (ValueError, RecursionError) as error:
            raise CorruptStoreError(f"the body cannot be read: {error}") from None
        return entry


class _Stored(msgspec.Struct, tag_field="v", tag=1):
    """What reading a value needs of a body."""

    value: Any
    expires_at: Instant | None = None
    boot: str | None = None


class EntryReader:
    """The values in bodies, in one pass."""

    def __init__(self, codec: EntryCodec, clock: Callable[[], datetime], boot: str | None) -> None:
        self._decode = msgspec.json.Decoder(_Stored).decode
        self._codec = codec
        self._clock = clock
        self._boot = boot

    def value(self, body: bytes) -> Any:
        """The value in a body; ABSENT if its time is over. CorruptStoreError."""
        try:
            stored: Any = self._decode(body)
            value = from_plain(stored.value, body)
        except (ValueError, RecursionError):
            stored = self._codec.decode(body)  # of another version, or it says what is wrong
            value = stored.value
        if stored.expires_at is not None or self._boot is not None:
            return ABSENT if self.is_over(stored) else value
        return value

    def is_over(self, entry: Any) -> bool:
        """Whether the time of an entry is over."""
        if entry.expires_at is not None and entry.expires_at <= self._clock():
            return True
        return self._boot is not None and entry.boot != self._boot


class EntryWriter(RecordWriter[Entry]):
    """The changes of a key-value store. One whose time is over is removed before it is replaced, so
    that what follows is a new entry, with a history that says so."""

    def __init__(
        self,
        spec: RecordSpec[Entry],
        layout: StoreLayout,
        codec: EntryCodec,
        clock: Callable[[], datetime],
        boot: str | None,
    ) -> None:
        super().__init__(spec, layout, codec, clock)
        self._reader = EntryReader(codec, clock, boot)
        self._more: dict[str, Any] = {} if boot is None else {"boot": boot}

    def put(self, unit: Unit, record_id: str, value: Raw, expires_at: datetime | None) -> None:
        found = self._find(unit, record_id)
        if found is None:
            self._add(unit, record_id, value, expires_at)
        else:
            self._put(unit, found, value, expires_at)

    def put_if_absent(
        self, unit: Unit, record_id: str, value: Raw, expires_at: datetime | None
    ) -> bool:
        if self._find(unit, record_id) is not None:
            return False
        try:
            self._add(unit, record_id, value, expires_at)
        except ConflictError:
            return False
        return True

    def put_default(self, unit: Unit, record_id: str, value: Raw, default: Any) -> Any:
        found = self._find(unit, record_id)
        if found is not None:
            return found[0].value
        self._add(unit, record_id, value, None)
        return default

    def compare_and_put(
        self, unit: Unit, record_id: str, old: Any, value: Raw, expires_at: datetime | None
    ) -> bool:
        found = self._find(unit, record_id)
        if found is None or not same(found[0].value, old):
            return False
        self._put(unit, found, value, expires_at)
        return True

    def increment(self, unit: Unit, record_id: str, by: float) -> float:
        found = self._find(unit, record_id)
        total = _sum(0 if found is None else found[0].value, by, record_id)
        if found is None:
            self._add(unit, record_id, Raw(dumps(total)), None)
        else:
            self._put(unit, found, Raw(dumps(total)), found[0].expires_at)
        return total

    def expire(self, unit: Unit, record_id: str, expires_at: datetime | None) -> None:
        entry, body, values = self._get(unit, record_id)
        self._note_change(unit, self._change(unit, entry, body, values, {"expires_at": expires_at}))

    def take(self, unit: Unit, record_id: str) -> Any:
        entry, body, values = self._get(unit, record_id)
        self._remove(unit, entry, body, values)
        return entry.value

    def purge(self, unit: Unit, part: Range) -> tuple[int, Position | None]:
        """Remove the entries of a range whose time is over. Returns how many, and where to go on.
        What this process cannot read stays."""
        rows, position = unit.scan(self._table, part)
        removed = 0
        for (record_id,), body in rows:
            try:
                found = self._decoded(str(record_id), body)
            except (CorruptStoreError, NewerRecordError):
                continue
            if self._reader.is_over(found[0]):
                self._remove(unit, *found, EXPIRED)
                removed += 1
        return removed, position

    # --- one entry ---

    def _find(self, unit: Unit, record_id: str) -> Found | None:
        """The entry with an id, if its time is not over; else it is gone afterwards."""
        body = unit.get(self._table, (record_id,))
        if body is None:
            return None
        found = self._decoded(record_id, body)
        if self._reader.is_over(found[0]):
            self._remove(unit, *found, EXPIRED)
            return None
        return found

    def _get(self, unit: Unit, record_id: str) -> Found:
        found = self._find(unit, record_id)
        if found is None:
            raise KeyNotFoundError(f"{self._noun} has no key {key_of(record_id)!r}")
        return found

    def _add(self, unit: Unit, record_id: str, value: Raw, expires_at: datetime | None) -> None:
        entry = self._spec.type(
            id=record_id, key=key_of(record_id), value=value, expires_at=expires_at, **self._more
        )
        if expires_at is not None:
            self.purge(unit, expired_by(self._clock())._replace(limit=_IN_PASSING))
        try:
            self.create(unit, entry)
        except RecordExistsError:
            raise ConflictError(
                f"{self._noun}: key {entry.key!r} was set at the same time: try again"
            ) from None

    def _put(self, unit: Unit, found: Found, value: Raw, expires_at: datetime | None) -> None:
        changes = {"value": value, "expires_at": expires_at}
        self._note_change(unit, self._change(unit, *found, changes))

    def _note_change(self, unit: Unit, entry: Entry) -> None:
        event = encode_event(UPDATED, entry.modified_at, entry.revision, None, None)
        unit.event(self._history, entry.id, event, None, None)

    def _remove(
        self, unit: Unit, entry: Entry, body: bytes, values: Values, message: str = ""
    ) -> None:
        unit.remove(self._table, (entry.id,), values, body)
        event = encode_event(DELETED, self._clock(), entry.revision, None, None, message)
        unit.event(self._history, entry.id, event, self._counters[None], None)


def expired_by(now: datetime) -> Range:
    """Where the entries are that have expired."""
    return Range(by="expires_at", upper=microseconds(now) + 1)


def of_other_boots(boot: str) -> tuple[Range, Range]:
    """Where the entries of all boots but this one are."""
    return Range(by="boot", upper=boot), Range(by="boot", lower=f"{boot}\x01")


def _sum(value: Any, by: float, record_id: str) -> float:
    if type(value) not in (int, float):
        raise InvalidRecordError(
            f"key {key_of(record_id)!r} holds {type(value).__name__}, which cannot be counted up"
        )
    try:
        return value + by  # type: ignore[no-any-return]
    except OverflowError:
        raise InvalidRecordError(
            f"key {key_of(record_id)!r}: {by!r} cannot be added exactly"
        ) from None
