"""The driver over `storebridge.driver.sortedmap`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from storebridge.driver.backend import Options
from storebridge.driver.contract import DriverError, ErrorKind, Traits
from storebridge.driver.mapengine import MapEngine, Maps
from storebridge.driver.ordered import OrderedDriver


class MemoryDriver(OrderedDriver[str]):
    """A database in memory. Its content is gone when it is closed."""

    traits = Traits(processes="one", persistent=False)
    _writable = True

    def __init__(self) -> None:
        super().__init__()
        self._maps: Maps = {}
        self._closed = False

    def _engine(self, write: bool) -> MapEngine:
        if self._closed:
            raise DriverError(ErrorKind.CLOSED, "memory: the database is closed")
        return MapEngine(self._maps, write, self._publish)

    def _publish(self, changed: Maps) -> None:
        """Readers keep the maps that they began with."""
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
