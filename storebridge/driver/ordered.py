"""The contract implemented over ordered bytes, for engines that know nothing else.

Such an engine offers *spaces* of bytes in order of their keys (LMDB's named databases, bolt's
buckets). A table is a space of its bodies by key, and one space per index: encoded index fields to
encoded key. One more space, `storebridge`, holds the layout mark and the tallies as decimal text.

A backend supplies an `Engine` (one native transaction) and an `OrderedDriver` that begins it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from storebridge.driver import keys, orderedcheck
from storebridge.driver.contract import (
    DriverError,
    ErrorKind,
    Fault,
    Key,
    Position,
    Range,
    Rows,
    Table,
    UniqueClash,
    Values,
    ValuesOf,
)
from storebridge.driver.orderedtable import OrderedPath, OrderedTable, compile_table

LAYOUT = b"layout"
"""The key of the layout mark in the space `storebridge`."""
_TALLY = "tally "

S = TypeVar("S")


class SpaceName(NamedTuple):
    """Which space: that of a table's bodies (`by` None), or of its index of this name. How it is
    called in the file is the engine's business.
    """

    table: str
    by: str | None = None


OWN = SpaceName("storebridge")
"""The space of what belongs to no table."""


class Engine(Protocol[S]):
    """A native transaction over spaces. `S` is the engine's handle of a space; one that
    `open_space` returned in a write transaction stays valid beyond it, if it commits.

    Errors are the engine's own; after one the transaction is only rolled back.
    """

    def open_space(self, name: SpaceName, create: bool) -> S | None:
        """The handle of a space, made if asked for; None where there is none."""

    def get(self, space: S, key: bytes) -> bytes | None:
        """The value of a key, or None."""

    def put(self, space: S, key: bytes, value: bytes) -> None:
        """Set the value of a key."""

    def put_new(self, space: S, key: bytes, value: bytes) -> bool:
        """Set the value of a key that is not there. False, and no change, if it is."""

    def delete(self, space: S, key: bytes) -> None:
        """Take a key out, if it is there."""

    def items(
        self, space: S, start: bytes, stop: bytes | None, reverse: bool, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """At most `limit` pairs from `start` on, up to and without `stop` (None: to the end);
        `reverse`: the last ones, from the end.
        """

    def count(self, space: S, start: bytes, stop: bytes | None) -> int:
        """The pairs from `start` on, up to and without `stop`."""

    def commit(self) -> None:
        """Make the changes permanent and end the transaction."""

    def rollback(self) -> None:
        """Undo everything and end the transaction. Never raises where it has already ended."""


class OrderedTransaction(Generic[S]):
    """`Transaction` of the contract over an engine's transaction."""

    __slots__ = ("_engine", "_own", "_tables")

    def __init__(
        self, engine: Engine[S], tables: Mapping[str, OrderedTable[S]], own: S | None
    ) -> None:
        self._engine = engine
        self._tables = tables
        self._own = own

    def get(self, table: str, key: Key) -> bytes | None:
        record = self._tables.get(table)
        return None if record is None else self._engine.get(record.space, record.encode(key))

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        record = self._tables[table]
        engine = self._engine
        encoded = record.encode(key)
        # What an index forbids must be known before the body is there.
        clashing = None if record.clash is None else record.clash(engine.get, encoded, key, values)
        if clashing is not None:
            if engine.get(record.space, encoded) is not None:
                return False
            raise UniqueClash(clashing)
        if not engine.put_new(record.space, encoded, body):
            return False
        record.add(engine.put, encoded, key, values)
        return True

    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        record = self._tables[table]
        engine = self._engine
        encoded = record.encode(key)
        if old_values != values:
            if record.clash is not None:
                _refuse(record.clash(engine.get, encoded, key, values))
            record.move(engine.put, engine.delete, encoded, key, old_values, values)
        engine.put(record.space, encoded, body)

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        record = self._tables[table]
        encoded = record.encode(key)
        if values is None:
            orderedcheck.forget(self._engine, record, encoded)
        else:
            record.drop(self._engine.delete, key, values)
        self._engine.delete(record.space, encoded)

    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        record = self._tables.get(table)
        if record is None:
            return [], None
        path = record.path(range.by)
        start, stop = _stretch(path, range)
        found = self._engine.items(path.space, start, stop, range.reverse, range.limit + 1)
        try:
            return self._rows(record, range, found)
        except ValueError as error:
            raise DriverError(
                ErrorKind.CORRUPT, f"table {table}: a key that cannot be read ({error}): check it"
            ) from error

    def _rows(
        self, record: OrderedTable[S], range: Range, found: list[tuple[bytes, bytes]]
    ) -> tuple[Rows, Position | None]:
        more = len(found) > range.limit
        if more:
            del found[-1]
        position = record.path(range.by).decode(found[-1][0]) if more else None
        decode = record.decode
        if range.by is None:
            return [(decode(raw), body) for raw, body in found], position
        # An entry whose body is missing is for `check` to report, not for readers to stumble over.
        get, space = self._engine.get, record.space
        bodies = [(raw, get(space, raw)) for _, raw in found]
        return [(decode(raw), body) for raw, body in bodies if body is not None], position

    def count(self, table: str, range: Range) -> int:
        record = self._tables.get(table)
        if record is None:
            return 0
        path = record.path(range.by)
        start, stop = _stretch(path, range._replace(after=None))
        return self._engine.count(path.space, start, stop)

    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        own, engine = self._own, self._engine
        assert own is not None, "create_tables comes first"
        get, put = engine.get, engine.put
        totals = {}
        for name, delta in deltas.items():
            key = f"{_TALLY}{name}".encode()
            held = get(own, key)
            total = totals[name] = delta if held is None else _number(name, held) + delta
            put(own, key, str(total).encode())
        return totals

    def totals(self, prefix: str) -> dict[str, int]:
        if self._own is None:
            return {}
        found: dict[str, int] = {}
        start = head = (_TALLY + prefix).encode()
        while True:
            page = self._engine.items(self._own, start, None, False, 500)
            for key, value in page:
                if not key.startswith(head):
                    return found
                name = key.decode()[len(_TALLY) :]
                found[name] = _number(name, value)
            if len(page) < 500:
                return found
            start = keys.after(page[-1][0])

    def faults(self, table: str, values_of: ValuesOf) -> Iterator[Fault]:
        record = self._tables.get(table)
        return iter(()) if record is None else orderedcheck.faults(self._engine, record, values_of)

    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        orderedcheck.rebuild(self._engine, self._tables[table], values_of)

    def commit(self) -> None:
        self._engine.commit()

    def rollback(self) -> None:
        self._engine.rollback()


class OrderedDriver(ABC, Generic[S]):
    """What drivers over ordered bytes share: declared tables and the layout mark."""

    def __init__(self) -> None:
        self._tables: dict[str, OrderedTable[S]] = {}
        self._own: S | None = None

    @abstractmethod
    def _engine(self, write: bool) -> Engine[S]:
        """Begin a native transaction."""

    @property
    @abstractmethod
    def _writable(self) -> bool:
        """Whether the database was opened for writing."""

    def begin(self, write: bool, single: bool = False) -> OrderedTransaction[S]:
        """See `Driver.begin`. Snapshots cost these engines nothing, so `single` is no different."""
        return OrderedTransaction(self._engine(write), self._tables, self._own)

    def layout(self) -> int | None:
        """See `Driver.layout`."""
        engine = self._engine(False)
        try:
            own = engine.open_space(OWN, False) if self._own is None else self._own
            mark = None if own is None else engine.get(own, LAYOUT)
        finally:
            engine.rollback()
        return None if mark is None else _number("layout", mark)

    def create_tables(self, tables: Sequence[Table], layout: int) -> None:
        """See `Driver.create_tables`."""
        names = space_names(tables)
        spaces = self._open_spaces(names)
        complete = None not in spaces.values() and self.layout() == layout
        if not complete and self._writable:
            spaces = self._create_spaces(names, layout)
        self._bind(tables, spaces)

    def _bind(self, tables: Iterable[Table], spaces: Mapping[SpaceName, S | None]) -> None:
        """Use these handles for these tables, and no others for them."""
        self._own = spaces[OWN]
        compiled = {}
        for table in tables:
            space = spaces[SpaceName(table.name)]
            if space is not None:
                indexes = {i.name: spaces[SpaceName(table.name, i.name)] for i in table.indexes}
                compiled[table.name] = compile_table(table, space, indexes)
        # A new dictionary: open transactions keep the one that they began with.
        self._tables = self._tables | compiled

    def _open_spaces(self, names: Sequence[SpaceName]) -> dict[SpaceName, S | None]:
        """The handles of spaces, valid until the driver is closed; None for those not there."""
        engine = self._engine(False)
        try:
            return {name: engine.open_space(name, False) for name in names}
        finally:
            engine.rollback()

    def _create_spaces(self, names: Sequence[SpaceName], layout: int) -> dict[SpaceName, S | None]:
        engine = self._engine(True)
        try:
            spaces = {name: engine.open_space(name, True) for name in names}
            own = spaces[OWN]
            assert own is not None
            engine.put(own, LAYOUT, b"%d" % layout)
            engine.commit()
        except BaseException:
            engine.rollback()
            raise
        return spaces


def space_names(tables: Iterable[Table]) -> list[SpaceName]:
    """Every space that these tables need."""
    names = [OWN]
    for table in tables:
        names.append(SpaceName(table.name))
        names += [SpaceName(table.name, index.name) for index in table.indexes]
    return names


def _refuse(index: str | None) -> None:
    if index is not None:
        raise UniqueClash(index)


def _stretch(path: OrderedPath, range: Range) -> keys.Span:
    """Where a range's entries are, `after` included."""
    start, stop = keys.span(path.fields, range.prefix, range.lower, range.upper)
    if range.after is None:
        return keys.Span(start, stop)
    position = path.encode(range.after)
    if range.reverse:
        return keys.Span(start, position if stop is None else min(stop, position))
    return keys.Span(max(start, keys.after(position)), stop)


def _number(name: str, value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise DriverError(
            ErrorKind.CORRUPT, f"storebridge: {name} is {value!r} instead of a number"
        ) from None
