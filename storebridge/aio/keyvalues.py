"""Key-value stores, awaited: each method is that of the store of the same name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any, Self

import storebridge
from storebridge.aio.database import Database, InDatabase, iterated
from storebridge.aio.locks import Lock
from storebridge.entries import ABSENT, Change, Entry, Lifetime
from storebridge.keyspace import Key
from storebridge.keyvalues import pairs
from storebridge.locks import LockRecord
from storebridge.owner import Owner
from storebridge.times import Seconds


class KeyValueStore(InDatabase):
    """A dict in a database, exact in types, for the tasks of one event loop. Made by `open`.

    What the store's own methods promise holds here; nothing blocks the loop. Python awaits neither
    `store[key] = value` nor `key in store` nor `len(store)`: those are `set`, `contains` and
    `count`, and `pop` is `del`. `await store[key]` is the value of a key.
    """

    def __init__(self, database: Database, store: storebridge.KeyValueStore) -> None:
        self.database = database
        self.sync = store
        """The store itself; its calls block."""

    @classmethod
    async def open(
        cls,
        database: Database,
        name: str,
        *,
        lifetime: Lifetime = "persistent",
        header: Key | None = None,
    ) -> Self:
        """The store of this name in a database, made if it is missing. See the store's own."""
        make = partial(storebridge.KeyValueStore, lifetime=lifetime, header=header)
        return cls(database, await database.alone(make, database.sync, name))

    # --- reading ---

    async def __getitem__(self, key: Key) -> Any:
        return await self.database.read(self.sync.__getitem__, key)

    async def get(self, key: Key, default: Any = None) -> Any:
        return await self.database.read(self.sync.get, key, default)

    async def contains(self, key: Key) -> bool:
        """Whether a key is there."""
        return await self.database.read(self.sync.__contains__, key)

    async def count(self) -> int:
        """How many keys there are."""
        return await self.database.read(self.sync.__len__)

    async def entry(self, key: Key) -> Entry:
        return await self.database.read(self.sync.entry, key)

    def __aiter__(self) -> AsyncIterator[Key]:
        return self.keys()

    async def keys(self, *, prefix: Key | None = None) -> AsyncIterator[Key]:
        async for key in iterated(self.database, iter(self.sync.keys(prefix=prefix))):
            yield key

    async def values(self, *, prefix: Key | None = None) -> AsyncIterator[Any]:
        async for value in iterated(self.database, iter(self.sync.values(prefix=prefix))):
            yield value

    async def items(self, *, prefix: Key | None = None) -> AsyncIterator[tuple[Key, Any]]:
        async for item in iterated(self.database, iter(self.sync.items(prefix=prefix))):
            yield item

    async def entries(self, *, prefix: Key | None = None) -> AsyncIterator[Entry]:
        async for entry in iterated(self.database, self.sync.entries(prefix=prefix)):
            yield entry

    async def sections(self) -> dict[str | int, dict[Key, Any]]:
        return await self.database.read(self.sync.sections)

    async def history(self, key: Key) -> list[Change]:
        return await self.database.read(self.sync.history, key)

    async def changes(
        self, after: int | None = None, *, prefix: Key | None = None
    ) -> AsyncIterator[Change]:
        found = await self.database.read(self.sync.changes, after, prefix=prefix)
        async for change in iterated(self.database, found):
            yield change

    async def watch(
        self,
        after: int | None = None,
        *,
        prefix: Key | None = None,
        checkpoint: str | None = None,
    ) -> AsyncIterator[Change]:
        self.sync._keys.bounds_of(prefix)  # what can be no prefix is refused
        async for event in self.database.watch(
            after, stores=[self.sync.name], checkpoint=checkpoint
        ):
            for change in self.sync._changes((event,), prefix):
                yield change

    async def quarantined(self) -> AsyncIterator[tuple[Key, str]]:
        async for each in iterated(self.database, self.sync.quarantined()):
            yield each

    # --- writing ---

    async def set(self, key: Key, value: Any, *, expires_in: Seconds | None = None) -> None:
        await self.database.write(self.sync.set, key, value, expires_in=expires_in)

    async def set_if_absent(
        self, key: Key, value: Any, *, expires_in: Seconds | None = None
    ) -> bool:
        return await self.database.write(self.sync.set_if_absent, key, value, expires_in=expires_in)

    async def compare_and_set(
        self, key: Key, old: Any, new: Any, *, expires_in: Seconds | None = None
    ) -> bool:
        return await self.database.write(
            self.sync.compare_and_set, key, old, new, expires_in=expires_in
        )

    async def increment(self, key: Key, by: float = 1) -> Any:
        return await self.database.write(self.sync.increment, key, by)

    async def expire(self, key: Key, expires_in: Seconds | None) -> None:
        await self.database.write(self.sync.expire, key, expires_in)

    async def setdefault(self, key: Key, default: Any = None) -> Any:
        return await self.database.write(self.sync.setdefault, key, default)

    async def update(
        self,
        other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (),
        /,
        *,
        expires_in: Seconds | None = None,
        **more: Any,
    ) -> None:
        items = pairs(other, more)  # here, as the caller's iterable is his thread's
        await self.database.write(self.sync.update, items, expires_in=expires_in)

    async def pop(self, key: Key, default: Any = ABSENT) -> Any:
        return await self.database.write(self.sync.pop, key, default)

    async def popitem(self) -> tuple[Key, Any]:
        return await self.database.write(self.sync.popitem)

    async def clear(self, *, prefix: Key | None = None) -> None:
        await self.database.write(self.sync.clear, prefix=prefix)

    async def purge(self) -> int:
        return await self.database.beside(self.sync.purge)

    async def update_sections(self, sections: Mapping[Any, Mapping[Any, Any]]) -> None:
        await self.database.write(self.sync.update_sections, sections)

    async def discard(self, key: Key) -> None:
        await self.database.alone(self.sync.discard, key)

    # --- locks and sections ---

    def lock(
        self,
        key: Key,
        owner: Owner | None = None,
        lease: Seconds | None = None,
        *,
        timeout: float | None = None,
    ) -> Lock:
        """The lock of a key: `async with store.lock("gpio-17"): …`. What the store's own refuses is
        refused when it is first used."""
        make = partial(self.sync.lock, key, owner, lease, timeout=timeout)
        return Lock(self.database, make)

    async def locks(self) -> AsyncIterator[LockRecord]:
        async for record in iterated(self.database, self.sync.locks()):
            yield record

    async def break_lock(self, key: Key) -> None:
        await self.database.alone(self.sync.break_lock, key)

    def section(self, header: Key) -> KeyValueStore:
        return KeyValueStore(self.database, self.sync.section(header))
