"""LMDB's transactions as engines for `storebridge.driver.ordered`."""

from __future__ import annotations

from typing import Any

import lmdb

from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.ordered import SpaceName
from storebridge_lmdb.environment import Environment

Space = Any
"""LMDB's handle of a named database; its class has no public name."""


def database_name(name: SpaceName) -> bytes:
    """What a space is called in the file: `execution`, `execution-index.state`."""
    return (name.table if name.by is None else f"{name.table}-index.{name.by}").encode()


class ReadEngine:
    """A read transaction: a snapshot."""

    __slots__ = ("_environment", "_get", "_guarded", "_native")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        guard = environment.guard
        self._guarded = None if guard is None else guard.acquire(environment.timeout)
        self._native = environment.begin(self, False)
        self._get = self._native.get

    def open_space(self, name: SpaceName, create: bool) -> Space | None:
        try:
            return self._environment.native.open_db(
                database_name(name), txn=self._native, create=create
            )
        except lmdb.NotFoundError:
            return None

    def get(self, space: Space, key: bytes) -> bytes | None:
        return self._get(key, None, space)

    def put(self, space: Space, key: bytes, value: bytes) -> None:
        raise DriverError(ErrorKind.READ_ONLY, "a change in a transaction that only reads")

    def put_new(self, space: Space, key: bytes, value: bytes) -> bool:
        raise DriverError(ErrorKind.READ_ONLY, "a change in a transaction that only reads")

    def delete(self, space: Space, key: bytes) -> None:
        raise DriverError(ErrorKind.READ_ONLY, "a change in a transaction that only reads")

    def items(
        self, space: Space, start: bytes, stop: bytes | None, reverse: bool, limit: int
    ) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        with self._native.cursor(space) as cursor:
            if not (_to_last(cursor, stop) if reverse else _to_first(cursor, start)):
                return found
            for pair in cursor.iterprev() if reverse else cursor.iternext():
                key = pair[0]
                if key < start if reverse else stop is not None and key >= stop:
                    break
                found.append(pair)
                if len(found) == limit:
                    break
        return found

    def count(self, space: Space, start: bytes, stop: bytes | None) -> int:
        if not start and stop is None:
            entries: int = self._native.stat(space)["entries"]
            return entries
        found = 0
        with self._native.cursor(space) as cursor:
            if _to_first(cursor, start):
                for key in cursor.iternext(values=False):
                    if stop is not None and key >= stop:
                        break
                    found += 1
        return found

    def snapshot_id(self) -> int:
        """The transaction whose outcome it reads."""
        return self._native.id()

    def database_names(self) -> list[bytes]:
        """The names in the main database."""
        with self._native.cursor() as cursor:
            return list(cursor.iternext(values=False))

    def read_through(self, name: bytes) -> None:
        """Read everything in a named database, for the errors that LMDB may have to tell."""
        space = self._environment.native.open_db(name, txn=self._native, create=False)
        with self._native.cursor(space) as cursor:
            for _ in cursor:
                pass

    def commit(self) -> None:
        self.rollback()

    def rollback(self) -> None:
        self._native.abort()
        self._end()

    def _end(self) -> None:
        environment = self._environment
        environment.leave(self)
        if environment.guard is not None:
            environment.guard.release(self._guarded)
            self._guarded = None


class WriteEngine(ReadEngine):
    """The write transaction. It keeps a log of its changes: when the map is full they are made once
    more in a larger one, because LMDB cannot go on with a transaction that hit the end.
    """

    __slots__ = ("_delete", "_ended", "_log", "_native_id", "_put", "_replayable", "removing")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._guarded = None
        self._log: list[tuple[Space, bytes, bytes | None]] = []
        self._replayable = True
        self._ended = False
        self.removing = False
        """Whether it removes entries, so that it may use the reserve."""
        environment.writers.acquire(environment.timeout)
        try:
            environment.give_back_reserve(environment.timeout)
            self._bind(environment.begin(self, True))
        except BaseException:
            self._ended = True
            environment.writers.release()
            raise

    def open_space(self, name: SpaceName, create: bool) -> Space | None:
        # Its handle would not outlive the native transaction, so nothing could be replayed on it.
        self._replayable = self._replayable and not create
        return super().open_space(name, create)

    def put(self, space: Space, key: bytes, value: bytes) -> None:
        try:
            self._put(key, value, True, True, False, space)
        except lmdb.MapFullError:
            self._make_room()
            self.put(space, key, value)
            return
        self._log.append((space, key, value))

    def put_new(self, space: Space, key: bytes, value: bytes) -> bool:
        try:
            if not self._put(key, value, True, False, False, space):
                return False
        except lmdb.MapFullError:
            self._make_room()
            return self.put_new(space, key, value)
        self._log.append((space, key, value))
        return True

    def delete(self, space: Space, key: bytes) -> None:
        try:
            self._delete(key, b"", space)
        except lmdb.MapFullError:
            self._make_room()
            self.delete(space, key)
            return
        self._log.append((space, key, None))

    def commit(self) -> None:
        try:
            self._commit()
        finally:
            self._end()

    def _commit(self) -> None:
        try:
            self._native.commit()
        except lmdb.MapFullError:
            self._make_room()
            self._commit()
        except lmdb.Error as error:
            size = sum(len(key) + len(value or b"") for _, key, value in self._log)
            if self._environment.disk_is_full(2 * size + 2**20):
                raise self._environment.full("no space left on the disk") from error
            raise

    def _make_room(self) -> None:
        """Begin again in a larger map and repeat what was done."""
        environment = self._environment
        begun = self._native_id
        self._native.abort()
        environment.leave(self)
        if not self._replayable:
            raise environment.full("no room for new tables")
        while True:
            environment.grow(self.removing)
            self._bind(environment.begin(self, True))
            if self._native_id != begun:
                # Only another program, without our lock, can have come between.
                raise DriverError(ErrorKind.CONFLICT, "lmdb: changed by another program: try again")
            try:
                self._replay()
                return
            except lmdb.MapFullError:
                self._native.abort()
                environment.leave(self)

    def _replay(self) -> None:
        for space, key, value in self._log:
            if value is None:
                self._delete(key, b"", space)
            else:
                self._put(key, value, True, True, False, space)

    def _bind(self, native: lmdb.Transaction[bytes]) -> None:
        self._native = native
        self._native_id: int = native.id()
        self._get, self._put, self._delete = native.get, native.put, native.delete

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._environment.leave(self)
            self._environment.give_back_reserve(0)
            self._environment.writers.release()


def _to_first(cursor: lmdb.Cursor[bytes], start: bytes) -> bool:
    """Stand on the first key from `start` on, if there is one."""
    return bool(cursor.set_range(start) if start else cursor.first())


def _to_last(cursor: lmdb.Cursor[bytes], stop: bytes | None) -> bool:
    """Stand on the last key before `stop`, if there is one."""
    if stop is not None and cursor.set_range(stop):
        return bool(cursor.prev())
    return bool(cursor.last())
