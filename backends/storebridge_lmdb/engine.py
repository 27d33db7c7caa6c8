"""LMDB's transactions as engines for `storebridge.driver.ordered`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from typing import Any

import lmdb

from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.ordered import SpaceName
from storebridge_lmdb.environment import Environment
from storebridge_lmdb.header import pages_of

_META_PAGES = 2
_PAGE = 500
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
        try:
            self._native = native = environment.begin(self, False)
        except BaseException:
            environment.release(self._guarded)
            raise
        self._get = native.get

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
            if stop is None and not reverse:
                return list(
                    islice(cursor.iternext(), limit)
                )  # without a look at each: half as long
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
            following = cursor.iternext(values=False) if _to_first(cursor, start) else iter(())
            while page := list(islice(following, _PAGE)):
                if stop is not None and page[-1] >= stop:
                    return found + bisect_left(page, stop)
                found += len(page)
        return found

    def snapshot_id(self) -> int:
        """The transaction whose outcome it reads."""
        return self._native.id()

    def names(self) -> list[bytes]:
        """The names of all databases."""
        with self._native.cursor() as cursor:
            return list(cursor.iternext(values=False))

    def pages_in_use(self) -> int:
        """How many pages hold something. LMDB's list of free pages counts as nothing: what
        reclaiming leaves has none.
        """
        stat = self._native.stat()
        pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        with self._native.cursor() as cursor:
            return _META_PAGES + pages + sum(pages_of(record) for _, record in cursor)

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
        self._environment.leave(self)
        if self._guarded is not None:
            self._environment.release(self._guarded)
            self._guarded = None


class WriteEngine(ReadEngine):
    """The write transaction. LMDB cannot go on with one for which the map was too small, so
    MapFullError passes through here, and `begin_again` is for who knows what to repeat.
    """

    __slots__ = ("_begun", "_delete", "_ended", "_put")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._guarded = None
        self._ended = False
        environment.writers.acquire(environment.timeout)
        try:
            if environment.writing is not None:
                # An exception out of a signal handler kept its beginner from ending it.
                environment.writing._abandon()
            environment.writing = self
            environment.give_back_reserve(environment.timeout)
            self._bind(environment.begin(self, True))
            self._begun = self._native.id()
        except BaseException:
            self._abandon()
            environment.writers.release()
            raise

    def _abandon(self) -> None:
        native = getattr(self, "_native", None)
        if native is not None:
            native.abort()
        self._environment.leave(self)
        self._environment.writing = None

    def put(self, space: Space, key: bytes, value: bytes) -> None:
        self._put(key, value, True, True, False, space)

    def put_new(self, space: Space, key: bytes, value: bytes) -> bool:
        return self._put(key, value, True, False, False, space)

    def delete(self, space: Space, key: bytes) -> None:
        self._delete(key, b"", space)

    def put_sorted(self, space: Space, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        if not keys:
            return
        with self._native.cursor(space) as cursor:
            # Behind all that is there nothing is looked up, and pages become full.
            append = not cursor.last() or cursor.key() < keys[0]
            _, put = cursor.putmulti(zip(keys, values, strict=True), append=append)
        if put != len(keys):
            raise DriverError(ErrorKind.CORRUPT, "lmdb: keys that are not in order")

    def clear(self, space: Space) -> None:
        self._native.drop(space, delete=False)

    def bytes_in_use(self) -> int:
        """The size of all pages that hold something; the rest of the file is free pages."""
        native, environment = self._native, self._environment.native
        spaces = [environment.open_db(each, txn=native, create=False) for each in self.names()]
        stats = [native.stat(), *(native.stat(space) for space in spaces)]
        pages = sum(
            stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats
        )
        return pages * stats[0]["psize"]

    def begin_again(self, removing: bool) -> None:
        """Begin anew in a larger map. `removing`: the transaction may use the reserve. DriverError
        of kind FULL if the map may not grow.
        """
        environment = self._environment
        self._native.abort()
        environment.leave(self)
        environment.grow(removing)
        self._bind(environment.begin(self, True))
        if self._native.id() != self._begun:
            # Only another program, which does not know our lock, can have come between.
            raise DriverError(ErrorKind.CONFLICT, "lmdb: changed by another program: try again")

    def commit(self) -> None:
        """Ends the transaction, but for MapFullError: then it may be begun again."""
        try:
            self._native.commit()
        except lmdb.MapFullError:
            raise
        except BaseException:
            self._end()
            raise
        self._end()

    def rollback(self) -> None:
        self._native.abort()
        self._end()

    def _bind(self, native: lmdb.Transaction[bytes]) -> None:
        self._native = native
        self._get, self._put, self._delete = native.get, native.put, native.delete

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            environment = self._environment
            environment.leave(self)
            environment.writing = None
            environment.give_back_reserve(0)
            environment.writers.release()


def _to_first(cursor: lmdb.Cursor[bytes], start: bytes) -> bool:
    """Stand on the first key from `start` on, if there is one."""
    return bool(cursor.set_range(start) if start else cursor.first())


def _to_last(cursor: lmdb.Cursor[bytes], stop: bytes | None) -> bool:
    """Stand on the last key before `stop`, if there is one."""
    if stop is not None and cursor.set_range(stop):
        return bool(cursor.prev())
    return bool(cursor.last())
