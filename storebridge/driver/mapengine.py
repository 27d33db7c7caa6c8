"""A transaction over sorted maps, for drivers that hold the database in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.ordered import SpaceName
from storebridge.driver.sortedmap import Draft, Items, SortedMap

Maps = Mapping[str, SortedMap]
_EMPTY = SortedMap()


class MapEngine:
    """An `Engine` over maps by space name: those that were current when it began, and drafts of
    those that it changes. `publish` makes the changed ones the current ones, at the commit.
    """

    __slots__ = ("_drafts", "_maps", "_publish", "_write")

    def __init__(self, maps: Maps, write: bool, publish: Callable[[Maps], None]) -> None:
        self._maps = dict(maps) if write else maps
        self._drafts: dict[str, Draft] = {}
        self._write = write
        self._publish = publish

    def open_space(self, name: SpaceName, create: bool) -> str | None:
        space = space_of(name)
        if space not in self._maps:
            if not create:
                return None
            self._draft(space)
        return space

    def get(self, space: str, key: bytes) -> bytes | None:
        return self._maps.get(space, _EMPTY).get(key)

    def put(self, space: str, key: bytes, value: bytes) -> None:
        self._draft(space).put(key, value)

    def put_new(self, space: str, key: bytes, value: bytes) -> bool:
        draft = self._draft(space)
        if draft.get(key) is not None:
            return False
        draft.put(key, value)
        return True

    def delete(self, space: str, key: bytes) -> None:
        self._draft(space).delete(key)

    def items(
        self, space: str, start: bytes, stop: bytes | None, reverse: bool, limit: int
    ) -> Items:
        return self._maps.get(space, _EMPTY).items(start, stop, reverse, limit)

    def count(self, space: str, start: bytes, stop: bytes | None) -> int:
        return self._maps.get(space, _EMPTY).count(start, stop)

    def commit(self) -> None:
        if self._drafts:
            self._publish({space: draft.frozen() for space, draft in self._drafts.items()})
        self.rollback()

    def rollback(self) -> None:
        self._drafts, self._maps, self._write = {}, {}, False

    def _draft(self, space: str) -> Draft:
        draft = self._drafts.get(space)
        if draft is None:
            draft = self._drafts[space] = self._begin_draft(space)
        return draft

    def _begin_draft(self, space: str) -> Draft:
        if not self._write:
            raise DriverError(ErrorKind.READ_ONLY, "a change in a transaction that only reads")
        draft = self._maps.get(space, _EMPTY).draft()
        # Reads of this transaction see its own changes.
        self._maps = {**self._maps, space: draft}
        return draft


def space_of(name: SpaceName) -> str:
    """What a space is called among the maps. No table's name has a dot."""
    return name.table if name.by is None else f"{name.table}-index.{name.by}"
