"""The contract between storebridge and a storage engine.

A *driver* stores bodies (bytes) under keys in declared tables and keeps the indexes that the
tables declare. It knows nothing of jobs, states, events or JSON: all semantics are above it,
written once.

Order is the same in every driver: integers by value, text by code point. Keys and values are
plain tuples in declared order. The layer above has checked names, types and lengths
(`storebridge.limits`), so a driver need not.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Value = str | int | None
Key = tuple[str | int, ...]
Values = tuple[Value, ...]
Position = tuple[str | int, ...]
"""Where an entry stands in an order: its key, or its fields in an index."""
Rows = list[tuple[Key, bytes]]
ValuesOf = Callable[[Key, bytes], Values | None]
"""The values that belong to a body; None where the body cannot be read."""
Durability = Literal["full", "relaxed", "off"]


class Field(NamedTuple):
    """A field of a key or a column. `time`: the integer is microseconds since 1970 in UTC."""

    name: str
    type: Literal["text", "integer"] = "text"
    optional: bool = False
    time: bool = False


class Index(NamedTuple):
    """An order over a table's entries by key fields and columns.

    An index that is not unique holds all the key fields, so that every entry has a position of
    its own. An entry with None in any field is absent from the index.
    """

    name: str
    fields: tuple[str, ...]
    unique: bool = False


class View(NamedTuple):
    """What an engine with a query language of its own shows people: `fields` are the members of
    the JSON body.
    """

    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """A declared table. Names are lower-case words joined by `-`. Entries are unique by key."""

    name: str
    key: tuple[Field, ...]
    columns: tuple[Field, ...] = ()
    indexes: tuple[Index, ...] = ()
    view: View | None = None

    def __post_init__(self) -> None:
        names = [field.name for field in self.key + self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"table {self.name}: two fields of one name")
        key = tuple(field.name for field in self.key)
        for index in self.indexes:
            if not set(index.fields) <= set(names):
                raise ValueError(f"index {self.name}.{index.name}: unknown field")
            if not index.unique and not set(key) <= set(index.fields):
                raise ValueError(f"index {self.name}.{index.name}: must hold the key fields")


class Range(NamedTuple):
    """Which entries of a table, and in which order.

    By key (`by` None) or by the index of this name. `prefix`: leading fields equal to these;
    `lower` (inclusive) and `upper` (exclusive): bounds of the field behind the prefix; `after`:
    only entries behind this position in the direction of the scan; `reverse`: from the end.
    """

    by: str | None = None
    prefix: tuple[str | int, ...] = ()
    lower: str | int | None = None
    upper: str | int | None = None
    after: Position | None = None
    limit: int = 100
    reverse: bool = False


class ErrorKind(enum.Enum):
    """What an engine's own error means to its user."""

    LOCKED = "locked"
    FULL = "full"
    CORRUPT = "corrupt"
    READ_ONLY = "read-only"
    FOREIGN = "foreign"
    CLOSED = "closed"
    CONFLICT = "conflict"
    """Lost against a concurrent transaction; the same work may succeed if tried again."""
    CONFIGURATION = "configuration"
    """The location cannot be opened as asked: a directory, a missing folder, no permission, a bad
    option.
    """
    OTHER = "other"


class DriverError(Exception):
    """Raised by a driver for what its engine has no error of its own for. One line that says what
    to do.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        holder: int | None = None,
        of_all: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.holder = holder
        """For LOCKED: the process id of the holder, where the system tells it."""
        self.of_all = of_all
        """Whether it concerns a transaction as a whole rather than something that was asked in it:
        the engine was lost, and perhaps it is not known whether the transaction was kept."""


class UniqueClash(Exception):
    """Another entry has these fields in a unique index. Nothing was changed."""

    def __init__(self, index: str, key: Key | None = None) -> None:
        super().__init__(index)
        self.index = index
        self.key = key
        """Whose fields these are, where it is not the entry of the call."""


class Fault(NamedTuple):
    """Where columns or index entries disagree with a body. `key` None: the table as a whole."""

    table: str
    key: Key | None
    problem: str


class Transaction(Protocol):
    """One consistent view of the database and, if it writes, changes that take effect together or
    not at all.

    Used by one thread at a time. What a call returned in a write transaction stays true until it
    ends, but for the transaction's own changes. A call takes full effect or none; after any
    exception but UniqueClash the caller rolls back. No cursor outlives a call, so a caller may
    write between two scans. A table that was never created reads as empty. Tables are named, not
    passed: statements and key builders are made once, in `create_tables`.
    """

    def get(self, table: str, key: Key) -> bytes | None:
        """The body, or None. On engines with concurrent writers a write transaction locks the
        entry.
        """

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        """Add an entry. False, and no change, if the key exists; UniqueClash if an index forbids
        it.
        """

    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        """Put values and body in the place of an entry that the caller has just read in this
        transaction.

        `old_values` are the values as the caller derived them from the old body; only index
        entries that differ need to be touched. UniqueClash, and no change, if an index forbids
        it.
        """

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        """Take an entry out, which the caller has just read. `values` None: the body is
        unreadable, so the driver finds the index entries by itself, slowly if need be.
        """

    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        """At most `limit` (key, body) pairs in order, and the position to go on `after`.

        The position is None where the end of the range was reached. Costs what it returns, not
        what the table holds.
        """

    def count(self, table: str, range: Range) -> int:
        """The entries in the range, from the index alone; `after` and `limit` do not count."""

    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        """Add to named integers (absent ones are 0) and return their new values.

        At most once in a transaction, its last call but for inserts of entries numbered by what
        it returned. From here to the end the names are locked: so numbers drawn from a tally
        increase in the order of commits.
        """

    def totals(self, prefix: str) -> dict[str, int]:
        """The named integers whose name starts with the prefix, as last committed or tallied
        here.
        """

    def faults(self, table: str, values_of: ValuesOf) -> Iterator[Fault]:
        """Columns and index entries that disagree with the bodies. Entries whose values are None
        are passed over.
        """

    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        """Make columns and index entries of a table anew from the bodies; keep those of
        unreadable bodies.
        """

    def commit(self) -> None:
        """Make the changes permanent, to the durability that the database was opened with, and
        end the transaction. If it raises, none of them took effect. In a read transaction: end
        it.
        """

    def rollback(self) -> None:
        """Undo everything and end the transaction. Never raises for an engine that has already
        given up.
        """


class Traits(NamedTuple):
    """What a driver's engine can do, where engines may differ. Everything else is the same on all
    of them.
    """

    processes: Literal["one", "many"]
    """How many processes may have the database open at once."""
    durability: tuple[Durability, ...] = ("full", "relaxed", "off")
    persistent: bool = True
    """False: the content is gone when the last opener closes."""
    readers_block: bool = False
    """True: a writer waits for open read transactions, or they for it."""
    writers: Literal["one", "many"] = "one"
    """many: `begin` does not wait for other processes' transactions; whoever needs what one of them
    has locked waits then, for `lock_timeout`.
    """


class Driver(Protocol):
    """An opened location. Thread-safe; at most one write transaction at a time is begun in a
    process (the layer above sees to it), any number of read transactions.
    """

    traits: Traits

    def layout(self) -> int | None:
        """The layout version that `create_tables` last wrote; None in a new, empty database."""

    def create_tables(self, tables: Sequence[Table], layout: int) -> None:
        """Declare tables, create what is missing and mark the database as ours, durably and all
        at once.

        Must be called before a table is used. Creates nothing where everything exists. Where the
        database was opened read-only, or cannot be written, it only declares.
        """

    def begin(self, write: bool, single: bool = False) -> Transaction:
        """Start a transaction. `single`: the caller will make one read, so that no snapshot need
        be held.

        A writer that cannot have the lock within `lock_timeout` raises an error of kind LOCKED.
        """

    def kind(self, error: BaseException) -> ErrorKind | None:
        """What an error out of this driver's calls means; None: not one of the engine's."""

    def holder(self) -> int | None:
        """The process id of another process that holds the writer's lock now, where the system
        tells it.
        """

    def check(self) -> Iterator[str]:
        """The engine's own check of its file: one line a problem."""

    def describe(self) -> dict[str, str | int]:
        """What the engine knows of itself: version, file sizes in bytes, pages, mode. For people;
        names as they are called in the engine's ecosystem.
        """

    def close(self) -> None:
        """Give everything back. Called once, when no transaction is open."""
