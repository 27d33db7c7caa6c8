"""The driver: tables and indexes over the log, by `storebridge.driver.ordered`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from storebridge.driver import DriverError, ErrorKind, Options, Traits
from storebridge.driver.lockfile import LockFile
from storebridge.driver.ordered import OrderedDriver, SpaceName
from storebridge.driver.sortedmap import Draft, SortedMap
from storebridge_toy import log


class ToyEngine:
    """A transaction: the map that was current when it began, or a draft of it."""

    def __init__(self, driver: ToyDriver, entries: SortedMap, write: bool) -> None:
        self._driver = driver
        self._entries = entries.draft() if write else entries
        self._changes: dict[bytes, bytes | None] = {}

    def open_space(self, name: SpaceName, create: bool) -> bytes:
        # A space is a prefix of the keys in the one map that there is; it needs no making.
        return f"{name.table}.{name.by}/".encode() if name.by else f"{name.table}/".encode()

    def get(self, space: bytes, key: bytes) -> bytes | None:
        return self._entries.get(space + key)

    def put(self, space: bytes, key: bytes, value: bytes) -> None:
        self._draft().put(space + key, value)
        self._changes[space + key] = value

    def put_new(self, space: bytes, key: bytes, value: bytes) -> bool:
        if self._draft().get(space + key) is not None:
            return False
        self.put(space, key, value)
        return True

    def delete(self, space: bytes, key: bytes) -> None:
        self._draft().delete(space + key)
        self._changes[space + key] = None

    def items(
        self, space: bytes, start: bytes, stop: bytes | None, reverse: bool, limit: int
    ) -> list[tuple[bytes, bytes]]:
        found = self._entries.items(space + start, _end(space, stop), reverse, limit)
        return [(key[len(space) :], value) for key, value in found]

    def count(self, space: bytes, start: bytes, stop: bytes | None) -> int:
        return self._entries.count(space + start, _end(space, stop))

    def commit(self) -> None:
        if self._changes:
            self._driver.publish(self._draft().frozen(), self._changes)
        self.rollback()

    def rollback(self) -> None:
        self._entries = SortedMap()

    def _draft(self) -> Draft:
        if not isinstance(self._entries, Draft):
            raise DriverError(ErrorKind.READ_ONLY, "a change in a transaction that only reads")
        return self._entries


class ToyDriver(OrderedDriver[bytes]):
    """An opened file. One process has it for writing; who only reads it sees what was there when
    it was opened.
    """

    traits = Traits(processes="one")

    def __init__(self, path: Path, options: Options) -> None:
        super().__init__()
        self._path = path
        self._sync = options.durability != "off"  # `relaxed` is given more than it asks for
        self._lock = LockFile(path.with_name(path.name + "-lock"), options.mode)
        self._fd: int | None = None
        if not options.read_only:
            self._lock.acquire(options.lock_timeout)
            self._fd = log.open_file(path, options.mode)
        self._entries, self._end = log.load(path)
        self._closed = False

    @property
    def _writable(self) -> bool:
        return self._fd is not None

    def _engine(self, write: bool) -> ToyEngine:
        if self._closed:
            raise DriverError(ErrorKind.CLOSED, f"{self._path}: closed")
        if write and not self._writable:
            raise DriverError(ErrorKind.READ_ONLY, f"{self._path}: opened read-only")
        return ToyEngine(self, self._entries, write)

    def publish(self, entries: SortedMap, changes: log.Changes) -> None:
        """Make a transaction permanent, then visible."""
        assert self._fd is not None
        self._end = log.append(self._fd, self._end, changes, self._sync)
        self._entries = entries

    def kind(self, error: BaseException) -> ErrorKind | None:
        return error.kind if isinstance(error, DriverError) else None

    def holder(self) -> int | None:
        return None  # while it is open here, nobody else has it

    def check(self) -> Iterator[str]:
        return iter(())  # each line was parsed when the file was opened

    def describe(self) -> dict[str, str | int]:
        return {"file": str(self._path), "bytes": self._end, "entries": len(self._entries)}

    def close(self) -> None:
        self._closed = True
        if self._fd is not None:
            os.close(self._fd)
        self._lock.close()


class ToyBackend:
    """What the entry point names."""

    name = "toy"
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".toy",)
    extra_options: tuple[str, ...] = ()

    def recognises(self, path: Path, head: bytes) -> bool:
        return head.startswith(log.HEADER)

    def open(self, target: str, options: Options) -> ToyDriver:
        path = Path(target)
        try:
            if path.exists():
                log.load(path)  # before anything is made beside a file that may not be ours
            elif options.read_only or not options.create:
                raise DriverError(ErrorKind.CONFIGURATION, f"{path}: there is nothing to open")
            return ToyDriver(path, options)
        except OSError as error:
            raise DriverError(ErrorKind.CONFIGURATION, f"{path}: {error.strerror}") from error

    def shell(self, target: str) -> list[str] | None:
        return None


def _end(space: bytes, stop: bytes | None) -> bytes:
    # The character behind `/` is `0`: the end of all keys with the prefix.
    return space[:-1] + b"0" if stop is None else space + stop
