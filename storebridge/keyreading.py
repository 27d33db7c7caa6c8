"""Reading a key-value store: its keys and values, and what happened to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, TypeVar

from storebridge.database import Database
from storebridge.driver import Position, Range, Transaction
from storebridge.entries import (
    ABSENT,
    EXPIRED,
    Change,
    Entry,
    EntryCodec,
    EntryReader,
    Lifetime,
    entry_spec,
    expired_by,
    lifetime_of,
    of_other_boots,
)
from storebridge.errors import (
    ConfigurationError,
    CorruptStoreError,
    KeyNotFoundError,
    RecordNotFoundError,
)
from storebridge.events import Event
from storebridge.keyspace import Key, Keyspace, begins, below
from storebridge.keyviews import Items, Part, Values
from storebridge.owner import boot_id
from storebridge.store import RecordStore

logger = logging.getLogger("storebridge")
T = TypeVar("T")
_PAGE = 200


class KeyReading(Mapping[Key, Any]):
    """The reading half of a key-value store."""

    def __init__(
        self, database: Database, name: str, lifetime: Lifetime, header: Key | None
    ) -> None:
        self._spec = entry_spec(name, lifetime)
        _check_kind(database, name, lifetime)
        self.database = database
        self.name = name
        self.lifetime: Lifetime = lifetime
        self._boot = boot_id() if lifetime == "boot" else None
        self._codec = EntryCodec(self._spec.type)
        self._records = RecordStore(database, self._spec, self._codec)
        self._table = self._records.layout.record.name
        self._reader = EntryReader(self._codec, database.clock, self._boot)
        self._use(Keyspace(header))

    def _use(self, keys: Keyspace) -> None:
        self._keys = keys
        self._id = keys.id_of

    def __repr__(self) -> str:
        header = f", header={self._keys.header!r}" if self._keys.header else ""
        return f"<KeyValueStore {self.name!r} at {self.database.location.text}{header}>"

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

    def _count(self, parts: Iterable[Range]) -> int:
        return self.database.read(_count, self._table, parts)

    def sections(self) -> dict[str | int, dict[Key, Any]]:
        """All keys of two elements or more, as `{header: {key: value}}`."""
        found: dict[str | int, dict[Key, Any]] = {}
        for key, value in self.items(prefix=()):
            if isinstance(key, tuple) and len(key) > 1:
                found.setdefault(key[0], {})[below(key[:1], key)] = value
        return found

    # --- what happened, and what cannot be read ---

    def changes(self, after: int | None = None, *, prefix: Key | None = None) -> Iterator[Change]:
        """What was committed behind a sequence number, once each and in order, up to now; of keys
        with a prefix only. EventsExpiredError, as `Database.events`."""
        self._keys.bounds_of(prefix)  # what can be no prefix is refused
        return self._changes(self._records.events(after), prefix)

    def watch(
        self,
        after: int | None = None,
        *,
        prefix: Key | None = None,
        checkpoint: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[Change]:
        """The changes as they come, as `Database.watch`; of keys with a prefix only. `timeout`: end
        after so many seconds in which nothing happened to any key of the store."""
        self._keys.bounds_of(prefix)
        events = self._records.watch(after, checkpoint=checkpoint, timeout=timeout)
        return self._changes(events, prefix)

    def _changes(self, events: Iterable[Event], prefix: Key | None) -> Iterator[Change]:
        for event in events:
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
