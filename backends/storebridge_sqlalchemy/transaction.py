"""Transactions: the calls of the contract, each a statement or two.

A reader sees one snapshot. Writers run side by side, each statement on what is committed by then,
and what one was told stays true because it is locked: an entry by its row, an entry that is not
there by a placeholder under its key, and whatever no row stands for (a range, a count, the named
integers) by the turn to commit, which all writers take at their end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from operator import ne
from typing import TYPE_CHECKING, Any

from storebridge.driver import (
    DriverError,
    ErrorKind,
    Fault,
    Key,
    Position,
    Range,
    Rows,
    UniqueClash,
    Values,
    ValuesOf,
)
from storebridge_sqlalchemy import mending
from storebridge_sqlalchemy.bodies import decoded, encoded, has_nul
from storebridge_sqlalchemy.statements import Statements

if TYPE_CHECKING:
    from storebridge_sqlalchemy.driver import PostgresDriver
    from storebridge_sqlalchemy.pool import Lease

BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
BEGIN_WRITING = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"
_WAIT_ALONE = 50
"""Milliseconds that a writer waits for another one while none of them can commit."""
_INSERT_ATTEMPTS = 5


class Reading:
    """A read transaction. `single`: each statement is one of its own."""

    __slots__ = ("_begun", "_driver", "_lease", "_link", "_single", "_statements")

    def __init__(self, driver: PostgresDriver, lease: Lease, single: bool) -> None:
        self._driver = driver
        self._lease: Lease | None = lease
        self._link = lease.link
        self._statements: Mapping[str, Statements] = driver.statements
        self._single = single
        self._begun = False

    def get(self, table: str, key: Key) -> bytes | None:
        """The body, or None."""
        statements = self._statements[table]
        if has_nul(key) or (statements.absent and self._is_absent(statements)):
            return None
        rows = self._rows(statements.get, key)
        return decoded(rows[0][0]) if rows else None

    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        """The rows of a range in order, and where to go on."""
        statements = self._statements[table]
        if statements.absent and self._is_absent(statements):
            return [], None
        scans = statements.scans
        select = scans.select(range)
        if select is None:
            return [], None
        return scans.page(range, self._rows(select.sql, [*select.parameters, range.limit + 1]))

    def count(self, table: str, range: Range) -> int:
        """How many rows a range has, from its index alone."""
        statements = self._statements[table]
        if statements.absent and self._is_absent(statements):
            return 0
        select = statements.scans.count(range)
        counted: int = self._rows(select.sql, select.parameters)[0][0]
        return counted

    def totals(self, prefix: str) -> dict[str, int]:
        """The named integers of a prefix."""
        return dict(self._rows(self._driver.place.ours.totals, (prefix, prefix)))

    def faults(self, table: str, values_of: ValuesOf) -> Iterator[Fault]:
        """Columns that disagree with their bodies, and indexes that are gone."""
        statements = self._statements[table]
        if statements.absent and self._is_absent(statements):
            return iter(())
        return mending.faults(self._rows, self._driver.place, statements, values_of)

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        """Refused."""
        raise self._refusal()

    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        """Refused."""
        raise self._refusal()

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        """Refused."""
        raise self._refusal()

    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        """Refused."""
        raise self._refusal()

    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        """Refused."""
        raise self._refusal()

    def commit(self) -> None:
        """End the transaction."""
        self.rollback()

    def rollback(self) -> None:
        """End the transaction."""
        lease, self._lease = self._lease, None
        if lease is not None:
            if self._begun and not self._link.roll_back():
                lease.discard()
            lease.give_back()

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if self._lease is None:
            raise _ended()
        if self._single:
            return self._link.single(sql, parameters)
        if not self._begun:
            self._begun = True
            self._link.send(BEGIN_READING)
        return self._link.ask(sql, parameters)

    def _is_absent(self, statements: Statements) -> bool:
        """Whether still nobody has made the table. A statement on it would fail the transaction."""
        exists = self._rows("SELECT to_regclass(%s)", [statements.name])[0][0]
        statements.absent = exists is None
        return statements.absent

    def _refusal(self) -> DriverError:
        return DriverError(ErrorKind.READ_ONLY, "a read transaction")


class Writing:
    """A write transaction. Nothing is sent before its first question."""

    __slots__ = (
        "_alone",
        "_begun",
        "_changed",
        "_driver",
        "_impatient",
        "_lease",
        "_link",
        "_statements",
        "_tallied",
        "_token",
    )

    def __init__(self, driver: PostgresDriver, lease: Lease) -> None:
        self._driver = driver
        self._lease: Lease | None = lease
        self._link = lease.link
        self._statements: Mapping[str, Statements] = driver.statements
        self._begun = False
        self._alone = False
        """Whether nobody else can commit."""
        self._impatient = False
        self._changed = False
        self._tallied = False
        self._token: int | None = None

    def get(self, table: str, key: Key) -> bytes | None:
        """The body, or None; either stays so."""
        if has_nul(key):
            return None
        statements = self._statements[table]
        rows = self._ask(statements.get_locked, key)
        if not rows:
            rows = self._get_absent(statements, key)
        return decoded(rows[0][0]) if rows else None

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        """Add an entry; False if the key exists. Behind a tally the key is new, as its number is:
        that is found out at the commit.
        """
        statements = self._statements[table]
        row = (*key, *values, encoded(body))
        if self._tallied:
            self._do(statements.append, row)
            return True
        self._changed = True
        for _ in range(_INSERT_ATTEMPTS):
            if self._ask(statements.insert, row):
                return True
            if self._ask(statements.keep, key):
                return False
            self._look_for_clash(statements, key, values, None)
            # Whoever was in the way has been removed since.
        raise DriverError(ErrorKind.CONFLICT, f"{statements.name}: {key} comes and goes; try again")

    def add(self, table: str, key: Key, values: Values, body: bytes) -> None:
        """Add an entry, unless it is there."""
        self._changed = True
        self._do(self._statements[table].add, (*key, *values, encoded(body)))

    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        """Update the body and the columns that differ."""
        statements = self._statements[table]
        changed = tuple(map(ne, old_values, values))
        if statements.has_unique and any(changed):
            differ = frozenset(place for place, differs in enumerate(changed) if differs)
            self._look_for_clash(statements, key, values, differ)
        sql = statements.updates.get(changed) or statements.update_changed(changed)
        self._changed = True
        self._do(sql, (*compress(values, changed), encoded(body), *key))

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        """Delete the row. PostgreSQL knows its index entries."""
        self._changed = True
        self._do(self._statements[table].remove, key)

    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        """The rows of a range in order, and where to go on."""
        scans = self._statements[table].scans
        select = scans.select(range)
        if select is None:
            return [], None
        return scans.page(range, self._ask_alone(select.sql, [*select.parameters, range.limit + 1]))

    def count(self, table: str, range: Range) -> int:
        """How many rows a range has, from its index alone."""
        select = self._statements[table].scans.count(range)
        counted: int = self._ask_alone(select.sql, select.parameters)[0][0]
        return counted

    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        """Add to named integers, whose rows stay locked: who comes next commits next."""
        return dict(self._ask(*self._tally(deltas))) if deltas else {}

    def number(
        self, deltas: Mapping[str, int], name: str, entries: Sequence[tuple[str, Key, bytes]]
    ) -> None:
        """Add to named integers and insert entries that one of them numbers, in the words that end
        the transaction: so those who come next wait for the server's work, and for no network.
        """
        self._do(*self._tally(deltas))
        less = len(entries)
        for table, key, body in entries:
            less -= 1
            statements = self._statements[table]
            if not statements.numbered:
                statements.numbered = statements.add_numbered(self._driver.place.ours.numbers)
            self._do(statements.numbered, (*key, less, encoded(body), name))

    def totals(self, prefix: str) -> dict[str, int]:
        """The named integers of a prefix."""
        return dict(self._ask_alone(self._driver.place.ours.totals, (prefix, prefix)))

    def faults(self, table: str, values_of: ValuesOf) -> Iterator[Fault]:
        """Columns that disagree with their bodies, and indexes that are gone."""
        statements = self._statements[table]
        return mending.faults(self._ask_alone, self._driver.place, statements, values_of)

    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        """Set the columns by the bodies and make the indexes that are missing."""
        self._changed = True
        mending.rebuild(
            self._ask_alone, self._do, self._driver.place, self._statements[table], values_of
        )

    def commit(self) -> None:
        """End the transaction and keep what it did. A connection that is lost meanwhile leaves
        open whether it did: then the server is asked, over another one.
        """
        if not self._changed:
            self.rollback()
            return
        if not self._tallied:
            self._write_token()
        try:
            self._link.commit(self._driver.notify if self._tallied else None)
        except DriverError as error:
            lost, token = self._link.lost, self._token
            self.rollback()
            if not lost or token is None or not self._driver.was_committed(token, error):
                raise self._note(error) from error.__cause__
        except BaseException:
            self.rollback()
            raise
        else:
            self._end()

    def rollback(self) -> None:
        """End the transaction and undo what it did."""
        if self._lease is not None and self._begun and not self._link.roll_back():
            self._lease.discard()
        self._end()

    def _end(self) -> None:
        self._begun = False
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.give_back()

    # --- what is asked of the server ---

    def _ask(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if not self._begun:
            self._begin()
        try:
            return self._link.ask(sql, parameters)
        except DriverError as error:
            raise self._note(error) from error.__cause__

    def _do(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        if not self._begun:
            self._begin()
        try:
            self._link.send(sql, parameters)
        except DriverError as error:
            raise self._note(error) from error.__cause__

    def _begin(self) -> None:
        if self._lease is None:
            raise _ended()
        self._begun = True
        ours = self._driver.place.ours
        self._alone = self._driver.take_conflict()
        self._link.send_all((BEGIN_WRITING, ours.be_alone if self._alone else ours.take_part))

    def _ask_alone(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement, which stay so: from here on nobody else commits.

        Whoever this transaction has to wait for from now on waits for it, to commit; so it gives
        up soon, and comes back when it can have all that it needs. Behind a tally it is too late
        to take the turn: others may have it and wait for our numbers.
        """
        if not self._begun:
            self._begin()
        if not self._alone and not self._tallied:
            self._do(self._driver.place.ours.stop_commits)
            self._do(f"SET LOCAL lock_timeout = {_WAIT_ALONE}")
            rows = self._ask(sql, parameters)
            self._alone = self._impatient = True
            return rows
        return self._ask(sql, parameters)

    def _get_absent(self, statements: Statements, key: Key) -> list[tuple[Any, ...]]:
        """Look again, once nobody else can insert the key."""
        if not statements.can_hold:
            return self._ask_alone(statements.get_locked, key)
        self._do(statements.hold, key)
        self._do(statements.release, key)
        return self._ask(statements.get_locked, key)

    def _look_for_clash(
        self, statements: Statements, key: Key, values: Values, changed: frozenset[int] | None
    ) -> None:
        """UniqueClash if another entry has the same fields in a unique index; of which some have
        `changed`, if that is given.
        """
        for unique in statements.unique:
            if changed is None or unique.columns & changed:
                parameters = unique.parameters(key, values)
                if parameters is not None and self._ask(unique.others, parameters):
                    raise UniqueClash(unique.name)

    def _tally(self, deltas: Mapping[str, int]) -> tuple[str, list[str | int]]:
        """The statement that tallies, and its parameters."""
        self._write_token()
        self._changed = self._tallied = True
        # In the order in which everybody locks them.
        parameters = [part for pair in sorted(deltas.items()) for part in pair]
        return self._driver.place.ours.tally(len(deltas)), parameters

    def _write_token(self) -> None:
        self._token = self._driver.tokens.next()
        tokens = self._driver.tokens
        self._do(tokens.write, (tokens.opener, self._token))

    def _note(self, error: DriverError) -> DriverError:
        """What a failure means to this transaction."""
        if error.kind is ErrorKind.LOCKED:
            if self._impatient:
                error = DriverError(ErrorKind.CONFLICT, f"{error}, and waits for this transaction")
            else:
                error = self._driver.locked()
        if error.kind is ErrorKind.CONFLICT:
            self._driver.note_conflict()
        return error


def _ended() -> DriverError:
    return DriverError(ErrorKind.OTHER, "the transaction has ended")
