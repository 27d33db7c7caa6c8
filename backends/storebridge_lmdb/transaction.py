"""The write transaction, which survives a full map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lmdb

from storebridge.driver.capabilities import IndexPart
from storebridge.driver.contract import Key, Rows, Values, ValuesOf
from storebridge.driver.ordered import OrderedTransaction
from storebridge.driver.orderedload import OrderedLoadingTransaction
from storebridge.driver.orderedtable import OrderedTable
from storebridge_lmdb.engine import Space, WriteEngine
from storebridge_lmdb.environment import Environment

# Not by `super()`, which takes longer than the rest of what is added to a call here.
_insert = OrderedTransaction.insert
_replace = OrderedTransaction.replace
_remove = OrderedTransaction.remove
_tally = OrderedTransaction.tally
_rebuild = OrderedTransaction.rebuild


class WriteTransaction(OrderedLoadingTransaction[Space]):
    """Keeps a log of the calls that changed something. When the map is full they are made once more
    in a larger one. In the log stand names, not methods: tuples of nothing but plain values soon
    are of no concern to the garbage collector, and there may be a hundred thousand.
    """

    __slots__ = ("_environment", "_log", "_removing")
    _engine: WriteEngine

    def __init__(
        self,
        environment: Environment,
        tables: Mapping[str, OrderedTable[Space]],
        own: Space | None,
    ) -> None:
        super().__init__(WriteEngine(environment), tables, own)
        self._environment = environment
        self._log: list[tuple[Any, ...]] = []
        self._removing = False

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        try:
            done = _insert(self, table, key, values, body)
        except lmdb.MapFullError:
            done = self._in_a_larger_map("insert", table, key, values, body)
        if done:
            self._log.append(("insert", table, key, values, body))
        return done

    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        try:
            _replace(self, table, key, old_values, values, body)
        except lmdb.MapFullError:
            self._in_a_larger_map("replace", table, key, old_values, values, body)
        self._log.append(("replace", table, key, old_values, values, body))

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        self._removing = True
        try:
            _remove(self, table, key, values)
        except lmdb.MapFullError:
            self._in_a_larger_map("remove", table, key, values)
        self._log.append(("remove", table, key, values))

    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        try:
            totals = _tally(self, deltas)
        except lmdb.MapFullError:
            totals = self._in_a_larger_map("tally", deltas)
        self._log.append(("tally", dict(deltas)))
        return totals

    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        try:
            _rebuild(self, table, values_of)
        except lmdb.MapFullError:
            self._in_a_larger_map("rebuild", table, values_of)
        self._log.append(("rebuild", table, values_of))

    def put_bodies(self, table: str, rows: Rows) -> None:
        self._load("put_bodies", table, rows)

    def remove_bodies(self, table: str, keys: Sequence[Key]) -> None:
        self._removing = True
        self._load("remove_bodies", table, keys)

    def clear_indexes(self, table: str) -> None:
        # Not for the sake of room: what is loaded next must not take what deletes may need.
        self._load("clear_indexes", table)

    def put_entries(self, part: IndexPart) -> None:
        self._load("put_entries", part)

    def _load(self, name: str, *arguments: Any) -> None:
        try:
            getattr(super(), name)(*arguments)
        except lmdb.MapFullError:
            self._in_a_larger_map(name, *arguments)
        self._log.append((name, *arguments))

    def commit(self) -> None:
        self._leave_the_reserve_alone()
        while True:
            try:
                return self._engine.commit()
            except lmdb.MapFullError:
                self._in_a_larger_map()
            except lmdb.Error as error:
                if self._environment.disk_is_full(self._size()):
                    raise self._environment.full("no space left on the disk") from error
                raise

    def _leave_the_reserve_alone(self) -> None:
        """Once deletes have reached into the reserve, what they freed is in the file beyond the
        limit, too. Inserts that took it would leave nothing for the next deletes.
        """
        environment = self._environment
        if self._removing or environment.size <= environment.sizes.limit:
            return
        if self._engine.bytes_in_use() > environment.sizes.limit:
            self._engine.rollback()
            raise environment.full_map()

    def _in_a_larger_map(self, *last: Any) -> Any:
        """Repeat what was done, and the call that failed, if it was one."""
        calls = [*self._log, last] if last else self._log
        while True:
            self._engine.begin_again(self._removing)
            try:
                result = None
                for name, *arguments in calls:
                    result = getattr(super(), name)(*arguments)
                return result
            except lmdb.MapFullError:
                continue

    def _size(self) -> int:
        """About how many bytes the changes may take in the file."""
        return 2**20 + 2 * _bytes_in(self._log) + 4096 * len(self._log)


def _bytes_in(value: Any) -> int:
    """How long the bodies and encoded keys are together that a call was given."""
    if isinstance(value, list | tuple):
        return sum(map(_bytes_in, value))
    return len(value) if isinstance(value, bytes) else 0
