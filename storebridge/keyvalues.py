"""Key-value stores: the small settings of a service, as a dict that is stored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Raw

from storebridge.database import Database
from storebridge.driver import Position, Range
from storebridge.entries import ABSENT, EntryWriter, Lifetime, expired_by, of_other_boots
from storebridge.errors import (
    ConflictError,
    InvalidRecordError,
    KeyNotFoundError,
    RecordNotFoundError,
)
from storebridge.keyreading import KeyReading
from storebridge.keyspace import Key, Keyspace
from storebridge.locks import Lock, LockRecord, LockStore
from storebridge.owner import Owner
from storebridge.times import Seconds, duration
from storebridge.transaction import Unit
from storebridge.typedvalues import dumps

T = TypeVar("T")
_Put = tuple[str, Raw, datetime | None]
"""An id, what is to be its value, and until when."""
_STEP = 500
_ATTEMPTS = 5


class KeyValueStore(KeyReading, MutableMapping[Key, Any]):
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
        super().__init__(database, name, lifetime, header)
        self._write = EntryWriter(
            self._spec, self._records.layout, self._codec, database.clock, self._boot
        )
        self._lock_store: LockStore | None = None
        if self._boot is not None and not database.read_only:
            self._purge(of_other_boots(self._boot), self._do)

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
        items = pairs(other, more)
        self._do(self._put_all, [self._put(key, value, expires_in) for key, value in items])

    def _put(self, key: Key, value: Any, expires_in: Seconds | None) -> _Put:
        return self._id(key), Raw(dumps(value)), self._until(expires_in)

    def _put_all(self, unit: Unit, changes: Iterable[_Put]) -> None:
        for change in changes:
            self._write.put(unit, *change)

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
        return self._do(self._take_first)

    def _take_first(self, unit: Unit) -> tuple[Key, Any]:
        for key in self:
            return key, self._write.take(unit, self._id(key))
        raise KeyNotFoundError(f"{self.name} is empty")

    def clear(self, *, prefix: Key | None = None) -> None:
        """Remove all keys, or those with a prefix, in a transaction; what cannot be read stays."""
        self._do(self._take_all, self.keys(prefix=prefix))

    def _take_all(self, unit: Unit, keys: Iterable[Key]) -> None:
        for key in keys:
            self._write.take(unit, self._id(key))

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
        record_id = self._id(key)
        found = self._locks.look(record_id)
        if found is None:
            raise RecordNotFoundError(f"{self.name}: the lock of {key!r} was never taken")
        if found.owner is None:
            raise ConflictError(f"{self.name}: the lock of {key!r} is free", found)
        self._locks.free(record_id)

    @property
    def _locks(self) -> LockStore:
        if self._lock_store is None:
            self._lock_store = LockStore(self.database, self.name)
        return self._lock_store

    # --- sections ---

    def section(self, header: Key) -> KeyValueStore:
        """The keys below a header, as a store: `section("led")["red"]` is `self["led", "red"]`."""
        header = header if isinstance(header, tuple) else (header,)
        found = copy.copy(self)
        found._use(Keyspace((*self._keys.header, *header)))
        return found

    def update_sections(self, sections: Mapping[Any, Mapping[Any, Any]]) -> None:
        """Set what `sections` gives, in one transaction."""
        self._do(
            self._put_all,
            [
                self.section(header)._put(key, value, None)
                for header, members in sections.items()
                for key, value in members.items()
            ],
        )

    def discard(self, key: Key) -> None:
        """Remove a key whose value cannot be read. ConflictError if it can."""
        self._records.discard(self._id(key))


def pairs(
    other: Mapping[Any, Any] | Iterable[tuple[Any, Any]], more: Mapping[str, Any]
) -> list[tuple[Any, Any]]:
    """What `update` is given, as `dict.update` is."""
    return [*(other.items() if isinstance(other, Mapping) else other), *more.items()]
