"""The suite's own model as a backend: what saboteurs are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from storebridge.driver import (
    DriverError,
    ErrorKind,
    Fault,
    Key,
    Options,
    Position,
    Range,
    Rows,
    Table,
    Traits,
    UniqueClash,
    Values,
    ValuesOf,
)
from storebridge.testing.model import Model
from storebridge.testing.samples import BY_NAME


class PlainTransaction:
    """A copy of the model, put in its place by commit."""

    def __init__(self, driver: PlainDriver, write: bool) -> None:
        self.driver = driver
        self.write = write
        self.model = driver.committed.copy() if write else driver.committed

    def get(self, table: str, key: Key) -> bytes | None:
        return self.model.get(table, key)

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        if not self.write:
            raise DriverError(ErrorKind.READ_ONLY, "a read transaction")
        if self.model.get(table, key) is not None:
            return False
        self.refuse(table, key, values)
        self.model.put(table, key, values, body)
        return True

    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        self.refuse(table, key, values)
        self.model.put(table, key, values, body)

    def refuse(self, table: str, key: Key, values: Values) -> None:
        for index in self.model.clashes(table, key, values):
            raise UniqueClash(index)

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        self.model.remove(table, key)

    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        return self.model.scan(table, range)

    def count(self, table: str, range: Range) -> int:
        return self.model.count(table, range)

    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        return self.model.tally(deltas)

    def totals(self, prefix: str) -> dict[str, int]:
        return self.model.totals(prefix)

    def faults(self, table: str, values_of: ValuesOf) -> Iterator[Fault]:
        for key, (values, body) in self.model.entries[table].items():
            wanted = values_of(key, body)
            if wanted is not None and wanted != values:
                yield Fault(table, key, "wrong")

    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        for key, (_, body) in list(self.model.entries[table].items()):
            wanted = values_of(key, body)
            if wanted is not None:
                self.model.put(table, key, wanted, body)

    def commit(self) -> None:
        if self.write:
            self.driver.committed = self.model

    def rollback(self) -> None:
        """The copy is forgotten."""


class PlainDriver:
    """Keeps nothing."""

    traits = Traits(processes="one", persistent=False)
    transaction: type[PlainTransaction] = PlainTransaction

    def __init__(self) -> None:
        self.committed = Model()
        self.written: int | None = None
        self.closed = False

    def layout(self) -> int | None:
        return self.written

    def create_tables(self, tables: Sequence[Table], layout: int) -> None:
        self.written = layout
        for table in tables:
            # The model looks declarations up there; the suite declares a few tables on the way.
            BY_NAME[table.name] = table
            self.committed.entries.setdefault(table.name, {})

    def begin(self, write: bool, single: bool = False) -> PlainTransaction:
        if self.closed:
            raise DriverError(ErrorKind.CLOSED, "closed")
        return self.transaction(self, write)

    def kind(self, error: BaseException) -> ErrorKind | None:
        return error.kind if isinstance(error, DriverError) else None

    def holder(self) -> int | None:
        return None

    def check(self) -> Iterator[str]:
        return iter(())

    def describe(self) -> dict[str, str | int]:
        return {"entries": sum(map(len, self.committed.entries.values()))}

    def close(self) -> None:
        self.closed = True


class PlainBackend:
    """Opens a driver of the class given."""

    name = "plain"
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    extra_options: tuple[str, ...] = ()

    def __init__(self, driver: type[PlainDriver]) -> None:
        self.driver = driver

    def recognises(self, path: Path, head: bytes) -> bool:
        return False

    def open(self, target: str, options: Options) -> PlainDriver:
        return self.driver()

    def shell(self, target: str) -> list[str] | None:
        return None
