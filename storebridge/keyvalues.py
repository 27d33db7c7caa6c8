"""Key-value stores: the small settings of a service, as a dict that is stored."""

from __future__ import annotations

import logging
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Raw

from storebridge.database import Database
from storebridge.driver import Position, Range, Transaction
from storebridge.entries import (
    ABSENT,
    EXPIRED,
    Change,
    Entry,
    EntryCodec,
    EntryReader,
    EntryWriter,
    Lifetime,
    entry_spec,
    expired_by,
    lifetime_of,
    of_other_boots,
)
from storebridge.errors import (
    ConfigurationError,
    ConflictError,
    CorruptStoreError,
    InvalidRecordError,
    KeyNotFoundError,
    RecordNotFoundError,
)
from storebridge.events import Event
from storebridge.keyspace import Key, Keyspace, begins, below
from storebridge.keyviews import Items, Part, Values
from storebridge.locks import Lock, LockRecord, LockStore
from storebridge.owner import Owner, boot_id
from storebridge.store import RecordStore
from storebridge.times import Seconds, duration
from storebridge.typedvalues import dumps

logger = logging.getLogger("storebridge")
T = TypeVar("T")
_PAGE = 200
_STEP = 500
_ATTEMPTS = 5


class KeyValueStore(MutableMapping[Key, Any]):
    """A dict in a database, exact in types.

    Keys are text, whole numbers of 64 bits, and tuples of them: `1`, `"1"` and `(1,)` differ.
    Values are None, bool, int, float, str, bytes, datetime, date, time, timedelta, and lists,
    tuples and dicts of them; each comes back as what it was, as a copy of the caller's own.
    Anything else is an InvalidRecordError, which is a ValueError.

    Each call is one transaction, or part of the caller's. Iterating is in order (texts by code
    point, whole numbers by value, tuples element by element), reads page by page, and may go on
    while keys change: then each is given as it is when its page is read.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        lifetime: Lifetime = "persistent",
        header: Key | None = None,
    ) -> None:
        """Make the store in the database if it is missing.

        `lifetime`: `boot` for what is gone when the machine has been started anew, wherever the
        file is; such a store is for processes of one machine. `header`: only the keys below it, as
        `section` gives them. ConfigurationError if the name is that of a store of another kind.
        """
        spec = entry_spec(name, lifetime)
        _check_kind(database, name, lifetime)
        self.database = database
        self.name = name
        self.lifetime: Lifetime = lifetime
        self._boot = boot_id() if lifetime == "boot" else None
        codec = EntryCodec(spec.type)
        self._records = RecordStore(database, spec, codec)
        layout = self._records.layout
        self._table = layout.record.name
        self._write = EntryWriter(spec, layout, codec, database.clock, self._boot)
        self._reader = EntryReader(codec, database.clock, self._boot)
        self._keys = Keyspace(header)
        self._id = self._keys.id_of
        self._lock_store: LockStore | None = None
        if self._boot is not None and not database.read_only:
            self._purge(of_other_boots(self._boot), self._do)

    def __repr__(self) -> str:
        header = f", header={self._keys.header!r}" if self._keys.header else ""
        return f"<KeyValueStore {self.name!r} at {self.database.location.text}{header}>"

    # --- reading ---

    def __getitem__(self, key: Key) -> Any:
        """The value of a key. KeyNotFoundError, which is a KeyError; CorruptStoreError."""
        value = self._value(key)
        if value is ABSENT:
            raise KeyNotFoundError(f"{self.name} has no key {key!r}")
        return value

    def get(self, key: Key, default: Any = None) -> Any:
        """The value of a key, or the default."""
        value = self._value(key)
        return default if value is ABSENT else value

    def __contains__(self, key: object) -> bool:
        return self._value(key) is not ABSENT

    def _value(self, key: Any) -> Any:
        body = self.database.get(self._table, (self._id(key),))
        if body is None:
            return ABSENT
        try:
            return self._reader.value(body)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{self.name} {key!r} is quarantined: {error}") from None

    def entry(self, key: Key) -> Entry:
        """The value with its revision, its times and when it expires. KeyNotFoundError."""
        record_id = self._id(key)
        try:
            entry = self._records.get(record_id)
        except RecordNotFoundError:
            entry = None
        if entry is None or self._reader.is_over(entry):
            raise KeyNotFoundError(f"{self.name} has no key {key!r}")
        entry.key = self._keys.key_of(record_id)
        return entry

    def __len__(self) -> int:
        """How many there are, without those that have expired: from the counter and an index.
        Below a header it takes looking at each."""
        with self.database.snapshot():
            others = of_other_boots(self._boot) if self._boot else ()
            if self._keys.header or self._count(others):
                return sum(1 for _ in self.live(None))
            expired = self._count((expired_by(self.database.clock()),))
            return self._records.count() - expired

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys())

    def keys(self, *, prefix: Key | None = None) -> KeysView[Key]:
        """The keys in order. `prefix`: only texts that begin with a text, or tuples that begin with
        the elements of a tuple."""
        return KeysView(Part(self, prefix))

    def values(self, *, prefix: Key | None = None) -> ValuesView[Any]:
        """The values in the order of their keys."""
        return Values(Part(self, prefix))

    def items(self, *, prefix: Key | None = None) -> ItemsView[Key, Any]:
        """Keys and values in order. One that cannot be read is left out, and a warning in the log
        names it."""
        return Items(Part(self, prefix))

    def entries(self, *, prefix: Key | None = None) -> Iterator[Entry]:
        """As `items`, each with its revision and times."""
        for key, entry in self._each(prefix, self._records.codec.decode):
            if not self._reader.is_over(entry):
                entry.key = key
                yield entry

    def live(self, prefix: Key | None) -> Iterator[tuple[Key, Any]]:
        """What `items` iterates over."""
        found = self._each(prefix, self._reader.value)
        return ((key, value) for key, value in found if value is not ABSENT)

    def _each(self, prefix: Key | None, read: Callable[[bytes], T]) -> Iterator[tuple[Key, T]]:
        lower, upper = self._keys.bounds_of(prefix)
        position: Position | None = None
        while True:
            part = Range(lower=lower, upper=upper, after=position, limit=_PAGE)
            rows, position = self.database.read_scan(self._table, part)
            for (record_id,), body in rows:
                try:
                    key, found = self._keys.key_of(str(record_id)), read(body)
                except (CorruptStoreError, ValueError) as error:
                    logger.warning("%s %r is left out: %s", self.name, record_id, error)
                    continue
                # Beside those below a header are the header itself, and, where the prefix is a
                # text, tuples whose first element begins with it.
                if key != () and begins(key, prefix):
                    yield key, found
            if position is None:
                return

    # --- writing ---

    def __setitem__(self, key: Key, value: Any) -> None:
        self.set(key, value)

    def set(self, key: Key, value: Any, *, expires_in: Seconds | None = None) -> None:
        """Set a key. `expires_in` seconds from now, by the database's clock, it is as if it were
        not there; without, it stays, also if it was to expire before."""
        self._do(self._write.put, self._id(key), Raw(dumps(value)), self._until(expires_in))

    def set_if_absent(self, key: Key, value: Any, *, expires_in: Seconds | None = None) -> bool:
        """Set a key that is not there. Of any number of processes that try, one is told True."""
        raw = Raw(dumps(value))
        if key in self:
            return False  # and nobody else had to wait
        return self._do(self._write.put_if_absent, self._id(key), raw, self._until(expires_in))

    def compare_and_set(
        self, key: Key, old: Any, new: Any, *, expires_in: Seconds | None = None
    ) -> bool:
        """Set a key if its value is `old`, of the same types throughout; else False."""
        return self._do(
            self._write.compare_and_put,
            self._id(key),
            old,
            Raw(dumps(new)),
            self._until(expires_in),
        )

    def increment(self, key: Key, by: float = 1) -> Any:
        """Add to a number, 0 if it is not there, and return the sum. When it expires is unchanged.

        InvalidRecordError if the value is no int or float.
        """
        if type(by) not in (int, float):
            raise InvalidRecordError(f"by: expected a number, got {by!r:.60}")
        return self._do(self._write.increment, self._id(key), by)

    def expire(self, key: Key, expires_in: Seconds | None) -> None:
        """Let a key expire so many seconds from now; None: never. KeyNotFoundError."""
        self._do(self._write.expire, self._id(key), self._until(expires_in))

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """The value of a key, which is set to the default if it is not there."""
        raw = Raw(dumps(default))
        return self._do(self._write.put_default, self._id(key), raw, default)

    def update(  # type: ignore[override]
        self,
        other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (),
        /,
        *,
        expires_in: Seconds | None = None,
        **more: Any,
    ) -> None:
        """Set many keys in one transaction."""
        items = list(other.items() if isinstance(other, Mapping) else other)
        with self.database.transaction():
            for key, value in items + list(more.items()):
                self.set(key, value, expires_in=expires_in)

    def __delitem__(self, key: Key) -> None:
        self._do(self._write.take, self._id(key))

    def pop(self, key: Key, default: Any = ABSENT) -> Any:
        """Remove a key and return its value, or the default. KeyNotFoundError."""
        try:
            return self._do(self._write.take, self._id(key))
        except KeyNotFoundError:
            if default is ABSENT:
                raise
            return default

    def popitem(self) -> tuple[Key, Any]:
        """Remove the first key, and return it with its value. KeyNotFoundError if there is none."""
        with self.database.transaction():
            for key in self:
                return key, self.pop(key)
        raise KeyNotFoundError(f"{self.name} is empty")

    def clear(self, *, prefix: Key | None = None) -> None:
        """Remove all keys, or those with a prefix, in a transaction; what cannot be read stays."""
        with self.database.transaction():
            for key in self.keys(prefix=prefix):
                del self[key]

    def purge(self, write: Callable[..., Any] | None = None) -> int:
        """Remove what has expired, in steps that hold no lock for long. Returns how many.

        They are absent without it, and adding keys that expire removes some; this is for a time
        when there is nothing else to do. `write` runs a step, for who minds its pace; by default
        `Database.write`.
        """
        parts = [expired_by(self.database.clock())]
        parts += [] if self._boot is None else of_other_boots(self._boot)
        return self._purge(parts, write or self._do)

    def _purge(self, parts: Iterable[Range], write: Callable[..., Any]) -> int:
        removed = 0
        for part in parts:
            position: Position | None = None
            more = self._count((part,)) > 0
            while more:
                step = part._replace(after=position, limit=_STEP)
                count, position = write(self._write.purge, step)
                removed += count
                more = position is not None
        return removed

    def _count(self, parts: Iterable[Range]) -> int:
        return self.database.read(_count, self._table, parts)

    def _do(self, operation: Callable[..., T], *args: Any) -> T:
        """Make a change; again if others were quicker, where engines let them write at once."""
        for _ in range(_ATTEMPTS):
            try:
                return self.database.write(operation, *args)
            except ConflictError:
                if self.database.in_transaction:
                    raise
        return self.database.write(operation, *args)

    def _until(self, expires_in: Seconds | None) -> datetime | None:
        if expires_in is None:
            return None
        return self.database.clock() + duration("expires_in", expires_in)

    # --- locks ---

    def lock(
        self,
        key: Key,
        owner: Owner | None = None,
        lease: Seconds | None = None,
        *,
        timeout: float | None = None,
    ) -> Lock:
        """The lock of a key, which need not be set: `with store.lock("gpio-17"): …`.

        It is free again when its holder gives it back or its process ends, also if it is killed.
        Where others cannot see that, because they are on another machine, it is free when `lease`
        (seconds) has run out. `owner`: the process that is to hold it, if not said this one on this
        machine; containers that use the name of theirs are to say it (`this_process("web")`), as
        they cannot see each other's processes. `timeout`: seconds to wait for it, the database's
        `lock_timeout` if not said; then StoreLockedError.
        """
        return Lock(self._locks, key, self._id(key), owner, lease, timeout)

    def locks(self) -> Iterator[LockRecord]:
        """The locks that are held, or were by who is gone since."""
        for record in self._locks.held():
            if self._keys.holds(record.id):
                record.key = self._keys.key_of(record.id)
                yield record

    def break_lock(self, key: Key) -> None:
        """Free a lock whoever holds it, such as a machine that is gone for good and had no lease.
        RecordNotFoundError if it was never taken, ConflictError if it is free."""
        self._locks.free(self._id(key))

    @property
    def _locks(self) -> LockStore:
        if self._lock_store is None:
            self._lock_store = LockStore(self.database, self.name)
        return self._lock_store

    # --- sections ---

    def section(self, header: Key) -> KeyValueStore:
        """The keys below a header, as a store: `section("led")["red"]` is `self["led", "red"]`."""
        header = header if isinstance(header, tuple) else (header,)
        return KeyValueStore(
            self.database,
            self.name,
            lifetime=self.lifetime,
            header=(*self._keys.header, *header),
        )

    def sections(self) -> dict[str | int, dict[Key, Any]]:
        """All keys of two elements or more, as `{header: {key: value}}`."""
        found: dict[str | int, dict[Key, Any]] = {}
        for key, value in self.items(prefix=()):
            if isinstance(key, tuple) and len(key) > 1:
                found.setdefault(key[0], {})[below(key[:1], key)] = value
        return found

    def update_sections(self, sections: Mapping[Any, Mapping[Any, Any]]) -> None:
        """Set what `sections` gives, in one transaction."""
        with self.database.transaction():
            for header, members in sections.items():
                self.section(header).update(members)

    # --- what happened, and what cannot be read ---

    def changes(self, after: int | None = None, *, prefix: Key | None = None) -> Iterator[Change]:
        """What was committed behind a sequence number, once each and in order, up to now; of keys
        with a prefix only. EventsExpiredError, as `Database.events`."""
        self._keys.bounds_of(prefix)  # what can be no prefix is refused
        for event in self.database.events(after, stores=[self.name]):
            if self._keys.holds(event.record_id):
                change = self._change(event)
                if begins(change.key, prefix):
                    yield change

    def history(self, key: Key) -> list[Change]:
        """What happened to a key, oldest first, also when it is gone."""
        return [self._change(event) for event in self._records.history(self._id(key))]

    def _change(self, event: Event) -> Change:
        return Change(
            sequence=event.sequence,
            key=self._keys.key_of(event.record_id),
            kind=EXPIRED if event.message == EXPIRED else event.kind,
            at=event.at,
            revision=event.revision,
        )

    def quarantined(self) -> Iterator[tuple[Key, str]]:
        """Keys whose values cannot be read, and why. Reads all."""
        for record_id, reason in self._records.quarantined():
            if self._keys.holds(record_id):
                yield self._keys.key_of(record_id), reason

    def discard(self, key: Key) -> None:
        """Remove a key whose value cannot be read. ConflictError if it can."""
        self._records.discard(self._id(key))


def key_value_stores(database: Database) -> dict[str, Lifetime]:
    """The key-value stores of a database, with their lifetimes."""
    found = {name: lifetime_of(layout) for name, layout in database.refresh().items()}
    return {name: lifetime for name, lifetime in found.items() if lifetime is not None}


def _check_kind(database: Database, name: str, lifetime: Lifetime) -> None:
    layout = database.refresh().get(name)
    found = lifetime if layout is None else lifetime_of(layout)
    if found != lifetime:
        kind = "is no key-value store" if found is None else f"has the lifetime {found!r}"
        raise ConfigurationError(
            f"{database.location.text}: store {name!r} is there and {kind}: take another name"
        )


def _count(transaction: Transaction, table: str, parts: Iterable[Range]) -> int:
    return sum(transaction.count(table, part) for part in parts)
