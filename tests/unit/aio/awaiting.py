"""A key-value store whose every call is awaited in a loop of another thread: so that what tests ask
of a store, they ask of the awaited one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from storebridge import Database, KeyValueStore, aio


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(60)

    def iterate(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                item = self.wait(anext(items))
            except StopAsyncIteration:
                return
            yield item

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Awaiting(MutableMapping[Any, Any]):
    """As the store that blocks; what is not here is that one's."""

    def __init__(self, loop: Loop, store: aio.KeyValueStore) -> None:
        self._loop = loop
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store.sync, name)

    def __getitem__(self, key: Any) -> Any:
        return self._loop.wait(self._store[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._loop.wait(self._store.set(key, value))

    def __delitem__(self, key: Any) -> None:
        self._loop.wait(self._store.pop(key))

    def __contains__(self, key: object) -> bool:
        return bool(self._loop.wait(self._store.contains(key)))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return int(self._loop.wait(self._store.count()))

    def __iter__(self) -> Iterator[Any]:
        return self._loop.iterate(aiter(self._store))

    def section(self, header: Any) -> Awaiting:
        return Awaiting(self._loop, self._store.section(header))

    def lock(self, *args: Any, **options: Any) -> AwaitingLock:
        return AwaitingLock(self._loop, self._store.lock(*args, **options))


def _called(name: str) -> Any:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        return self._loop.wait(getattr(self._store, name)(*args, **options))

    return call


def _iterated(name: str) -> Any:
    def iterate(self: Any, *args: Any, **options: Any) -> Any:
        # At once, so that what can be no argument is refused at the call.
        return list(self._loop.iterate(getattr(self._store, name)(*args, **options)))

    return iterate


CALLED = (
    *("get", "entry", "sections", "history", "set", "set_if_absent", "compare_and_set"),
    *("increment", "expire", "setdefault", "update", "pop", "popitem", "clear", "purge"),
    *("update_sections", "discard", "break_lock"),
)
ITERATED = ("keys", "values", "items", "entries", "changes", "quarantined", "locks")
for _name in CALLED:
    setattr(Awaiting, _name, _called(_name))
for _name in ITERATED:
    setattr(Awaiting, _name, _iterated(_name))


class AwaitingLock:
    """As the lock that blocks."""

    def __init__(self, loop: Loop, lock: aio.Lock) -> None:
        self._loop = loop
        self._store = lock

    @property
    def token(self) -> int | None:
        return self._store.token

    @property
    def held(self) -> bool:
        return bool(self._loop.wait(self._store.held()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop.wait(self._store._made()), name)

    def __enter__(self) -> AwaitingLock:
        self._loop.wait(self._store.__aenter__())
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._loop.wait(self._store.__aexit__(kind, error, trace))


for _name in ("acquire", "renew", "release"):
    setattr(AwaitingLock, _name, _called(_name))


@contextmanager
def awaiting(database: Database, name: str) -> Iterator[Awaiting]:
    """A store of a database that is open."""
    loop = Loop()

    async def opened() -> aio.KeyValueStore:
        return await aio.KeyValueStore.open(await aio.open_database(database.location), name)

    store = loop.wait(opened())
    assert isinstance(store.sync, KeyValueStore)
    assert store.database.sync is database
    try:
        yield Awaiting(loop, store)
    finally:
        loop.wait(store.close())
        loop.close()
