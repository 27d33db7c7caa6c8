"""The driver over `storebridge.driver.sortedmap`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from storebridge.driver.backend import Options
from storebridge.driver.contract import DriverError, ErrorKind, Traits
from storebridge.driver.ordered import OrderedDriver, SpaceName
from storebridge.driver.sortedmap import Draft, Items, SortedMap

_EMPTY = SortedMap()


class MemoryEngine:
    """A transaction over sorted maps by space name: those that were current when it began, and
    drafts of those that it changes.
    """

    __slots__ = ("_drafts", "_driver", "_maps", "_write")

    def __init__(self, driver: MemoryDriver, maps: Mapping[str, SortedMap], write: bool) -> None:
        self._driver = driver
        self._maps = dict(maps) if write else maps
        self._drafts: dict[str, Draft] = {}
        self._write = write

    def open_space(self, name: SpaceName, create: bool) -> str | None:
        space = name.table if name.by is None else f"{name.table}-index.{name.by}"
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
            self._driver.publish({space: draft.frozen() for space, draft in self._drafts.items()})
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


class MemoryDriver(OrderedDriver[str]):
    """A database in memory. Its content is gone when it is closed."""

    traits = Traits(processes="one", persistent=False)
    _writable = True

    def __init__(self) -> None:
        super().__init__()
        self._maps: dict[str, SortedMap] = {}
        self._closed = False

    def _engine(self, write: bool) -> MemoryEngine:
        if self._closed:
            raise DriverError(ErrorKind.CLOSED, "memory: the database is closed")
        return MemoryEngine(self, self._maps, write)

    def publish(self, changed: Mapping[str, SortedMap]) -> None:
        """Make these maps the current ones. Readers keep those that they began with."""
        self._maps = {**self._maps, **changed}

    def kind(self, error: BaseException) -> ErrorKind | None:
        return error.kind if isinstance(error, DriverError) else None

    def holder(self) -> int | None:
        return None

    def check(self) -> Iterator[str]:
        return iter(())

    def describe(self) -> dict[str, str | int]:
        maps = self._maps
        return {"spaces": len(maps), "entries": sum(len(each) for each in maps.values())}

    def close(self) -> None:
        self._maps = {}
        self._closed = True


class MemoryBackend:
    """Opens `memory:`. That opening one name twice gives one database is up to the layer above."""

    name = "memory"
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    extra_options: tuple[str, ...] = ()

    def recognises(self, path: Path, head: bytes) -> bool:
        return False

    def open(self, target: str, options: Options) -> MemoryDriver:
        if options.read_only or not options.create:
            raise DriverError(
                ErrorKind.CONFIGURATION, f"{target}: nothing is in memory yet: open it for writing"
            )
        return MemoryDriver()

    def shell(self, target: str) -> list[str] | None:
        return None
