"""The driver: connections, and what the database knows of itself."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from storebridge.driver import DriverError, ErrorKind, Options, Reader, Table, Traits
from storebridge_sqlalchemy import errors, inspection
from storebridge_sqlalchemy.address import Address, application_name, owner_of
from storebridge_sqlalchemy.commits import Tokens
from storebridge_sqlalchemy.creation import Place
from storebridge_sqlalchemy.notices import NoticeEars
from storebridge_sqlalchemy.pool import Lease, Pool
from storebridge_sqlalchemy.statements import Statements
from storebridge_sqlalchemy.transaction import Reading, Writing

OLDEST_SERVER = 130000
_DISTURBING = frozenset('"%')
"""Not even between quotation marks do names with these mean the same everywhere."""
_HOLDERS = """
SELECT a.application_name, coalesce(extract(epoch FROM now() - a.xact_start), 0)::float8
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'relation' AND l.database = (
    SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.relation = to_regclass(%s) AND l.granted AND l.mode <> 'AccessShareLock'
GROUP BY a.pid, 1, 2 ORDER BY 2 DESC
"""


class PostgresDriver:
    """An opened database on a PostgreSQL server."""

    traits = Traits(processes="many", writers="many")

    def __init__(self, address: Address, options: Options) -> None:
        self._address = address
        self._options = options
        self._unusable: str | None = None
        self._pool = Pool(address, options.lock_timeout, _settings(options))
        self.given_schema = address.schema
        self.connect_arguments = address.connect
        """For `psycopg.connect`; with the password."""
        self.prefix = address.prefix
        try:
            self.place = self._find_place()
        except BaseException:
            self._pool.close()
            raise
        self.statements: dict[str, Statements] = {}
        self.tokens = Tokens(self.place.ours.tokens)
        self._ears = NoticeEars(
            self._pool.connect_apart, self.place.name("storebridge-" + self.place.schema)
        )
        self._wrote = False
        self._conflict = False
        _drivers.add(self)

    def _find_place(self) -> Place:
        (version, encoding, current), *_ = self._pool.ask(
            "SELECT current_setting('server_version_num')::int,"
            " current_setting('server_encoding'), current_schema()::text"
        )
        if version < OLDEST_SERVER:
            raise DriverError(
                ErrorKind.CONFIGURATION,
                f"the server is PostgreSQL {version // 10000}; it must be 13 or newer",
            )
        if encoding != "UTF8":
            raise DriverError(
                ErrorKind.CONFIGURATION,
                f"the database is encoded in {encoding}; make one with ENCODING 'UTF8'",
            )
        schema = self._address.schema or current
        if schema is None:
            raise DriverError(
                ErrorKind.CONFIGURATION,
                "no schema of the search path exists; name one with ?schema=",
            )
        if set(schema) & _DISTURBING:
            raise DriverError(
                ErrorKind.CONFIGURATION,
                f"the schema {schema!r} of the search path has a name that cannot be used;"
                " name another one with ?schema=",
            )
        place = Place(schema, self._address.prefix)
        may_make = self._options.create and not self._options.read_only
        if not may_make and self._read_layout(place) is None:
            raise DriverError(
                ErrorKind.CONFIGURATION, f"there is no database in the schema {schema}"
            )
        return place

    def layout(self) -> int | None:
        """The layout that the mark says; None: nothing of ours is there."""
        layout = self._read_layout(self.place)
        self._pool.layout = layout
        return layout

    def create_tables(self, tables: Sequence[Table], layout: int) -> None:
        """Declare tables; make what is missing of them in one transaction."""
        absent: set[str] = set()
        lease = self._take()
        try:
            if self._options.read_only:
                found = self.place.find(lease.link.single, tables)
                absent = {t.name for t in tables if self.place.name(t.name) not in found}
            elif not self.place.is_made(lease.link, tables, layout):
                self.place.make(lease.link, tables, layout, self._options.durability != "off")
        finally:
            if not lease.link.roll_back():
                lease.discard()
            lease.give_back()
        if not self._options.read_only:
            self._pool.layout = layout
        # Each in metadata of its own: a table can be declared again, with more columns.
        declared = {
            table.name: Statements(sa.MetaData(schema=self.place.schema), table, self.prefix)
            for table in tables
        }
        for name in absent:
            declared[name].absent = True
        self.statements |= declared

    def begin(self, write: bool, single: bool = False) -> Reading | Writing:
        """Start a transaction, of which the server learns with the first statement."""
        return self.begin_pipelined() if write else Reading(self, self._take(), single)

    def begin_pipelined(self) -> Writing:
        """Start a write transaction."""
        if self._options.read_only:
            raise DriverError(ErrorKind.READ_ONLY, "opened read-only")
        self._wrote = True
        return Writing(self, self._take())

    def kind(self, error: BaseException) -> ErrorKind | None:
        """What an error means."""
        return errors.kind(error)

    def holder(self) -> int | None:
        """The process on this machine that has been writing for longest, this one left out."""
        for pid, host, _ in self._writers():
            if host == _ourselves()[1]:
                return pid
        return None

    def check(self) -> Iterator[str]:
        """Indexes that PostgreSQL itself holds for invalid, pages whose checksum failed, and,
        where the extension `amcheck` is installed and may be used, what it finds.
        """
        return inspection.check(self._ask, self.place, self.statements.values())

    def describe(self) -> dict[str, str | int]:
        """Settings by their names, and sizes in bytes."""
        return inspection.describe(self._ask, self.place, self.statements.values())

    def size(self) -> int:
        """Bytes of our tables and their indexes."""
        return sum(inspection.sizes(self._ask, self.place, self.statements.values()))

    def tidy(self) -> str | None:
        """VACUUM and ANALYZE our tables. Returns why one of them was passed over."""
        names = inspection.names_of(self._ask, self.place, self.statements.values())
        with self._pool.connect_apart() as connection:
            return inspection.vacuum(connection, names)

    def readers(self) -> list[Reader]:
        """Processes of the server that are in the midst of reading."""
        return inspection.readers(self._ask)

    def close(self) -> None:
        """Close every connection."""
        if self._wrote:
            # What cannot be tidied up now is, by somebody else, in a month.
            with suppress(DriverError):
                self.tokens.forget(self._pool)
        self._unusable = "the database is closed"
        self._ears.close()
        self._pool.close()

    def add_listener(self, heard: Callable[[], object]) -> None:
        """Have this called when something was numbered and committed, by whomever."""
        self._ears.add(heard)

    def remove_listener(self, heard: Callable[[], object]) -> None:
        """Call it no more."""
        self._ears.remove(heard)

    # --- for transactions ---

    @property
    def notify(self) -> str:
        """The statement by which listeners hear of a commit."""
        return self._ears.notify

    def was_committed(self, token: int, lost: DriverError) -> bool:
        """Whether a transaction took effect whose commit was not answered."""
        return self.tokens.was_committed(self._pool, token, lost)

    def note_conflict(self) -> None:
        """The next write transaction is probably the same work again: let it be alone."""
        self._conflict = True

    def take_conflict(self) -> bool:
        """Whether the transaction that begins shall be the only one that writes: so that who lost
        against another one does not lose again and again.
        """
        conflict, self._conflict = self._conflict, False
        return conflict

    def locked(self) -> DriverError:
        """What to say when something could not be locked in time."""
        waited = f"waited {self._options.lock_timeout:g} s for what another"
        holders = []
        with suppress(DriverError):  # of asking who it is
            holders = self._writers()
        if not holders:
            return DriverError(ErrorKind.LOCKED, f"{waited} transaction has locked")
        pid, host, seconds = holders[0]
        here = host == _ourselves()[1]
        who = f"process {pid}" + ("" if here else f" on {host}")
        return DriverError(
            ErrorKind.LOCKED,
            f"{waited} transaction has locked; {who} has been writing for {seconds:.1f} s",
            holder=pid if here else None,
        )

    def _writers(self) -> list[tuple[int, str, float]]:
        """Other processes that are in a write transaction, since when; the oldest first."""
        found = []
        for application, seconds in self._ask(_HOLDERS, [self.place.ours.tokens]):
            owner = owner_of(application)
            if owner is not None and owner != _ourselves():
                found.append((*owner, seconds))
        return found

    # --- connections ---

    def _take(self) -> Lease:
        if self._unusable is not None:
            raise DriverError(ErrorKind.CLOSED, self._unusable)
        return self._pool.take()

    def _ask(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if self._unusable is not None:
            raise DriverError(ErrorKind.CLOSED, self._unusable)
        return self._pool.ask(sql, parameters)

    def _read_layout(self, place: Place) -> int | None:
        lease = self._take()
        try:
            return place.read_layout(lease.link.single)
        finally:
            lease.give_back()

    def _leave_to_parent(self) -> None:
        """In a forked child: what is said over the parent's connections here would be said in the
        midst of its own words.
        """
        self._unusable = "opened before a fork; open it again in the child"
        _parents.append(self._pool)


def _settings(options: Options) -> dict[str, str]:
    """What every connection is set to."""
    settings = {
        # 0 would mean without end.
        "lock_timeout": str(max(1, int(options.lock_timeout * 1000))),
        # A range is read through the index that has its order: see scans.py. That makes its plan
        # look dear, and compiling it would make it so.
        **dict.fromkeys(
            ("enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_incremental_sort"), "off"
        ),
        "jit": "off",
        # The server, too, notices within a minute that a machine is gone, and frees its locks.
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
    }
    if options.durability != "full":
        settings["synchronous_commit"] = "off"
    if options.read_only:
        settings["default_transaction_read_only"] = "on"
    return settings


def _ourselves() -> tuple[int, str]:
    ourselves = owner_of(application_name())
    assert ourselves is not None
    return ourselves


_drivers: weakref.WeakSet[PostgresDriver] = weakref.WeakSet()
_parents: list[Pool] = []


def _leave_all_to_parent() -> None:
    for driver in list(_drivers):
        driver._leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)
