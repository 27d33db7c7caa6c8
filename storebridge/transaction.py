"""A write transaction of the portable layer: one engine transaction, the events that it will number
at its commit, and what is needed to undo a step of it."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from storebridge.driver import Key, PipelinedTransaction, Transaction, UniqueClash, Values
from storebridge.errors import StorebridgeError, TransactionError

SEQUENCE = "sequence"
Mark = tuple[int, int]


class Unit:
    """One write transaction. Stores change entries through it, and only through it.

    Engines have no savepoints in the contract: what a failed step did is undone here by applying
    the inverses of its changes.
    """

    __slots__ = (
        "_adjustments",
        "_engine",
        "_events",
        "_failed",
        "_undo",
        "busy",
        "get",
        "keep_undo",
        "scan",
        "started",
        "thread",
    )

    def __init__(self, engine: Transaction, started: float) -> None:
        self._engine = engine
        self.get = engine.get
        self.scan = engine.scan
        self.thread = get_ident()
        self.started = started
        self.busy = True
        """Whether its thread is in the midst of a write: one more, as out of a signal handler or a
        finaliser, would come between two statements of it, and share its fate."""
        self.keep_undo = 0
        """How many enclosing blocks may yet want to undo: nested transactions."""
        self._undo: list[tuple[str, Key, Values | None, Values | None, bytes | None]] = []
        self._events: list[tuple[str, str, bytes, str | None, str | None]] = []
        self._adjustments: dict[str, int] = {}
        self._failed: BaseException | None = None

    @property
    def engine(self) -> Transaction:
        """For what is not a change of an entry: counts, checks, tallies of a repair."""
        return self._engine

    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        """As the contract's."""
        if not self._engine.insert(table, key, values, body):
            return False
        self._undo.append((table, key, None, values, None))
        return True

    def add(self, table: str, key: Key, values: Values, body: bytes) -> None:
        """Insert an entry, unless a hand has done so before."""
        self.insert(table, key, values, body)

    def replace(
        self, table: str, key: Key, old_values: Values, old_body: bytes, values: Values, body: bytes
    ) -> None:
        """As the contract's; the old body is for undoing."""
        self._engine.replace(table, key, old_values, values, body)
        self._undo.append((table, key, old_values, values, old_body))

    def remove(self, table: str, key: Key, values: Values, body: bytes) -> None:
        """As the contract's; the body is for undoing."""
        self._engine.remove(table, key, values)
        self._undo.append((table, key, values, None, body))

    def take_out(self, table: str, key: Key, values: Values, body: bytes) -> None:
        """Remove an entry, unless a hand has done so before."""
        if self.get(table, key) is not None:
            self.remove(table, key, values, body)

    def adjust(self, counters: dict[str, int]) -> None:
        """Add to counters at the commit, besides what the events do."""
        self._adjustments = counters

    def event(
        self, history: str, record_id: str, body: bytes, leaves: str | None, enters: str | None
    ) -> None:
        """Note an event, and which counters its record leaves and enters."""
        self._events.append((history, record_id, body, leaves, enters))

    @property
    def has_events(self) -> bool:
        """Whether anything happened to a record."""
        return bool(self._events)

    def step(self, operation: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run `operation(unit, *args)`: it takes full effect or none, and the transaction goes on
        even if it raises one of our errors. Any other exception may have come out of the middle of
        a change, and fails the transaction."""
        if self._failed is not None:
            self.check()
        if not self.keep_undo:
            self._undo.clear()
        mark = self.mark()
        try:
            return operation(self, *args)
        except (StorebridgeError, UniqueClash):
            self.undo_to(mark)
            raise
        except BaseException as error:
            self._failed = error
            raise

    def mark(self) -> Mark:
        """Where `undo_to` can come back to."""
        return len(self._undo), len(self._events)

    def undo_to(self, mark: Mark) -> None:
        """Undo the changes since a mark, last first."""
        if self._failed is not None:
            return
        changes, events = mark
        del self._events[events:]
        try:
            while len(self._undo) > changes:
                self._undo_one(*self._undo.pop())
        except BaseException as error:
            self._failed = error
            raise

    def _undo_one(
        self, table: str, key: Key, old: Values | None, new: Values | None, old_body: bytes | None
    ) -> None:
        if old is None or old_body is None:
            self._engine.remove(table, key, new)
        elif new is None:
            self._engine.insert(table, key, old, old_body)
        else:
            self._engine.replace(table, key, new, old, old_body)

    def commit(self) -> None:
        """Number the events, add up the counters and make everything permanent."""
        if self._failed is not None:
            self.check()
        if self._events:
            self._number({SEQUENCE: len(self._events)} | self.pending_counts())
        self._engine.commit()

    def _number(self, deltas: dict[str, int]) -> None:
        sequence = self._engine.tally(deltas)[SEQUENCE] - len(self._events)
        insert = self._engine.insert
        for history, record_id, body, _, _ in self._events:
            sequence += 1
            insert(history, (record_id, sequence), (), body)

    def pending_counts(self) -> dict[str, int]:
        """What the commit will add to the counters."""
        deltas = dict(self._adjustments)
        for _, _, _, leaves, enters in self._events:
            if leaves is not None:
                deltas[leaves] = deltas.get(leaves, 0) - 1
            if enters is not None:
                deltas[enters] = deltas.get(enters, 0) + 1
        return deltas

    def rollback(self) -> None:
        """Undo everything."""
        self._engine.rollback()

    def check(self) -> None:
        """TransactionError if nothing of it can be kept any more."""
        if self._failed is not None:
            raise TransactionError(f"the transaction failed earlier and is undone: {self._failed}")


class PipelinedUnit(Unit):
    """On an engine that is far away: what needs no answer is not waited for."""

    __slots__ = ("_pipelined",)

    def __init__(self, engine: PipelinedTransaction, started: float) -> None:
        super().__init__(engine, started)
        self._pipelined = engine

    def add(self, table: str, key: Key, values: Values, body: bytes) -> None:
        """As the contract's."""
        self._pipelined.add(table, key, values, body)
        self._undo.append((table, key, None, values, None))

    def take_out(self, table: str, key: Key, values: Values, body: bytes) -> None:
        """As the contract's `remove`, which minds nothing here."""
        self.remove(table, key, values, body)

    def _number(self, deltas: dict[str, int]) -> None:
        entries = [(history, (record_id,), body) for history, record_id, body, _, _ in self._events]
        self._pipelined.number(deltas, SEQUENCE, entries)
