"""Keys, values and items of a key-value store as views, as those of a dict, and of a part of it."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, Protocol

from storebridge.errors import KeyNotFoundError
from storebridge.keyspace import Key, begins, bounds_of


class Store(Protocol):
    """What is needed of a key-value store."""

    def __getitem__(self, key: Key) -> Any: ...
    def __len__(self) -> int: ...
    def live(self, prefix: Key | None) -> Iterator[tuple[Key, Any]]:
        """Keys and values."""


class Part(Mapping[Key, Any]):
    """What of a store has a prefix."""

    def __init__(self, store: Store, prefix: Key | None) -> None:
        self._store = store
        self._prefix = prefix
        bounds_of(prefix)  # what can be no prefix is refused at once

    def __getitem__(self, key: Key) -> Any:
        value = self._store[key]
        if not begins(key, self._prefix):
            raise KeyNotFoundError(f"{key!r} does not begin with {self._prefix!r}")
        return value

    def __iter__(self) -> Iterator[Key]:
        return (key for key, _ in self.live())

    def __len__(self) -> int:
        return len(self._store) if self._prefix is None else sum(1 for _ in self.live())

    def live(self) -> Iterator[tuple[Key, Any]]:
        """Keys and values."""
        return self._store.live(self._prefix)


class Items(ItemsView[Key, Any]):
    """Keys and values, a page at a time rather than one by one."""

    _mapping: Part

    def __iter__(self) -> Iterator[tuple[Key, Any]]:
        return self._mapping.live()


class Values(ValuesView[Any]):
    """Likewise."""

    _mapping: Part

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.live())

    def __contains__(self, value: object) -> bool:
        return any(value == each for each in self)
