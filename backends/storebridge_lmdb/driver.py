"""The driver: tables over an LMDB environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lmdb

from storebridge.driver.capabilities import Reader, Reclaimed, Usage
from storebridge.driver.contract import DriverError, ErrorKind, Table, Traits
from storebridge.driver.fileears import FileEars
from storebridge.driver.fileversion import NumberedVersion
from storebridge.driver.ordered import OrderedTransaction, SpaceName, space_names
from storebridge.driver.orderedload import OrderedLoader
from storebridge_lmdb import swap, verify
from storebridge_lmdb.engine import ReadEngine, Space, WriteEngine, database_name
from storebridge_lmdb.environment import Environment
from storebridge_lmdb.errors import kind_of
from storebridge_lmdb.header import DATA, LOCK
from storebridge_lmdb.transaction import WriteTransaction

_PAGES_FOR_TABLES = 64
_LEAST_GAIN = 2**16
"""Bytes that are not worth a copy."""


class LmdbDriver(OrderedLoader[Space]):
    """An open LMDB environment."""

    traits = Traits(processes="many")

    def __init__(self, environment: Environment, read_only: bool) -> None:
        super().__init__()
        self._environment = environment
        self._read_only = read_only
        self._declared: dict[str, Table] = {}
        # What a commit writes last, its meta page, makes it visible but for some instructions.
        self._ears = FileEars(environment.path / DATA, written=True)

    @property
    def _writable(self) -> bool:
        return not self._read_only

    @property
    def _folder(self) -> Path:
        return self._environment.path

    def _engine(self, write: bool) -> ReadEngine:
        if not write:
            return ReadEngine(self._environment)
        self._require_writable()
        return WriteEngine(self._environment)

    def begin(self, write: bool, single: bool = False) -> OrderedTransaction[Space]:
        if not write:
            return OrderedTransaction(ReadEngine(self._environment), self._tables, self._own)
        self._require_writable()
        return WriteTransaction(self._environment, self._tables, self._own)

    def _require_writable(self) -> None:
        if self._read_only:
            raise DriverError(
                ErrorKind.READ_ONLY, f"{self._environment.path}: opened read-only: cannot write"
            )

    def _open_spaces(self, names: Sequence[SpaceName]) -> dict[SpaceName, Space | None]:
        # py-lmdb keeps a handle beyond its transaction only if that was one for writing, or if it
        # began the transaction itself, which is for writing unless the environment is read-only.
        ReadEngine(self._environment).rollback()  # fits the map to what another process made of it
        if self._read_only:
            return {name: self._environment.open_database(database_name(name)) for name in names}
        engine = WriteEngine(self._environment)
        try:
            spaces = {name: engine.open_space(name, False) for name in names}
            engine.commit()
        finally:
            engine.rollback()
        return spaces

    def _create_spaces(
        self, names: Sequence[SpaceName], layout: int
    ) -> dict[SpaceName, Space | None]:
        # Handles of spaces would not outlive a larger map, so a small one grows before.
        environment = self._environment
        info = environment.native.info()
        wanted = (info["last_pgno"] + len(names) + _PAGES_FOR_TABLES) * environment.page_size()
        if environment.size < wanted and environment.size < environment.sizes.limit:
            environment.resize(min(wanted, environment.sizes.limit), environment.timeout)
        return super()._create_spaces(names, layout)

    def kind(self, error: BaseException) -> ErrorKind | None:
        # Once it is open, the system refuses what has nothing to do with how it was asked for.
        return kind_of(error) or (ErrorKind.OTHER if isinstance(error, OSError) else None)

    def holder(self) -> int | None:
        return self._environment.writers.holder()

    def check(self) -> Iterator[str]:
        return iter(verify.problems(self._environment))

    def describe(self) -> dict[str, str | int]:
        engine = ReadEngine(self._environment)  # else the environment could be closed for a swap
        try:
            return self._describe()
        finally:
            engine.rollback()

    def _describe(self) -> dict[str, str | int]:
        native = self._environment.native
        info, guard = native.info(), self._environment.guard
        return {
            "LMDB": ".".join(map(str, lmdb.version())),
            "py-lmdb": lmdb.__version__,
            "mapsize": info["map_size"],
            "limit": self._environment.sizes.limit,
            "psize": self._environment.page_size(),
            "pages": info["last_pgno"] + 1,
            "size": (self._environment.path / DATA).stat().st_size,
            "last_txnid": info["last_txnid"],
            "maxreaders": info["max_readers"],
            "readers": info["num_readers"],
            "databases": native.stat()["entries"],
            "locking": "lock.mdb" if guard is None else "none: writers are kept out of each read",
        }

    def readers(self) -> list[Reader]:
        """Those in the reader table. Of a process that has died there is none: opening the
        environment clears them away."""
        engine = ReadEngine(self._environment)  # else the environment could be closed for a swap
        try:
            native = self._environment.native
            table, last = native.readers(), native.info()["last_txnid"]
        finally:
            engine.rollback()
        # Behind a line of titles: pid, thread, and the number of the transaction that it sees, or
        # a dash where it sees none at this moment.
        lines = [line.split() for line in table.splitlines()[1:]]
        return [
            Reader(int(line[0]), max(0, last - int(line[-1])))
            for line in lines
            if len(line) > 2 and line[-1].isdecimal()
        ]

    def hold_version(self) -> NumberedVersion:
        return NumberedVersion(self._environment.path / DATA, self._last_transaction)

    def _last_transaction(self) -> int:
        engine = ReadEngine(self._environment)
        try:
            return engine.snapshot_id()
        finally:
            engine.rollback()

    def usage(self) -> Usage:
        environment = self._environment
        engine = ReadEngine(environment)
        try:
            used = engine.pages_in_use() * environment.page_size()
            data = (environment.path / DATA).stat().st_size
        finally:
            engine.rollback()
        lock = environment.path / LOCK
        return Usage(data + (lock.stat().st_size if lock.exists() else 0), max(0, data - used))

    def reclaim(self, breathe: Callable[[], None]) -> Reclaimed:
        """Put a compacted copy in the file's place; others write while it is made."""
        self._require_writable()
        before = self.usage()
        if before.free < _LEAST_GAIN:
            return Reclaimed(before.size, before.size)
        skipped = swap.reclaim(self._environment, self._bind_to, breathe)
        return Reclaimed(before.size, self.usage().size, skipped)

    def create_tables(self, tables: Sequence[Table], layout: int) -> None:
        super().create_tables(tables, layout)
        self._declared |= {table.name: table for table in tables}

    def _bind_to(self, native: lmdb.Environment) -> None:
        """Make the handles of all tables for this environment."""
        tables = self._declared.values()
        with native.begin(write=True) as transaction:
            spaces = {name: _opened(native, name, transaction) for name in space_names(tables)}
        self._bind(tables, spaces)

    def add_listener(self, heard: Callable[[], object]) -> None:
        self._ears.add(heard)

    def remove_listener(self, heard: Callable[[], object]) -> None:
        self._ears.remove(heard)

    def close(self) -> None:
        self._ears.close()
        if not self._read_only:
            self._environment.native.sync(True)  # what `relaxed` and `off` left to be written
        self._environment.close()


def _opened(
    native: lmdb.Environment, name: SpaceName, transaction: lmdb.Transaction[bytes]
) -> Space | None:
    try:
        return native.open_db(database_name(name), txn=transaction, create=False)
    except lmdb.NotFoundError:
        return None
