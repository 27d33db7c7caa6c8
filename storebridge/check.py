"""Checking a database against its bodies, which are the truth, counting again, and mending what
disagrees.

People may edit a file with other tools: a column, an index entry, a label or a counter can then say
something else than the body does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from storebridge import histories, meta
from storebridge.driver import Fault, Key, Table, Transaction, Value, Values, ValuesOf
from storebridge.driver.pages import Columns
from storebridge.errors import TransactionError
from storebridge.histories import Tick
from storebridge.recount import RecountReport, recount_all, sequence_lag
from storebridge.spec import StoreLayout, check_labels, label_entry
from storebridge.times import parse_rfc3339
from storebridge.transaction import Unit
from storebridge.values import values_from_body

if TYPE_CHECKING:
    from storebridge.database import Database

QUARANTINED = "the body cannot be read: the record is quarantined"
"""The problem of a record that no repair can mend."""
_PAGE = 500
Watch = Callable[[str, int], None]
"""Told now and then how many entries of which table have been looked at."""


class _Labelled(msgspec.Struct):
    labels: dict[str, str]


_decode_labels = msgspec.json.Decoder(_Labelled).decode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True)
class RepairReport:
    """What a repair did."""

    faults: int
    """Faults that were found, and are mended but for unreadable bodies."""
    tables: tuple[str, ...]
    """Tables whose columns and index entries were made anew."""
    labels: int
    """Label entries that were put in or taken out."""
    recounts: tuple[RecountReport, ...]
    histories: int = 0
    """Records whose history was given an event that says where they stand."""


def check(
    database: Database,
    *,
    stores: Iterable[str] | None = None,
    files: bool = True,
    history: bool = False,
    watch: Watch | None = None,
    counted: list[RecountReport] | None = None,
) -> Iterator[Fault]:
    """Every fault in the database: the engine's own check of its `files`, bodies that cannot be
    read, columns and index entries that disagree with the bodies, labels, and counters that have
    drifted; with `history` also histories that do not lead to their records.

    `stores`: only of the stores with these names, and of the files. Reads everything, in bounded
    memory and without keeping writers out; a change made meanwhile is not a fault. Whatever
    `watch` raises ends it. What was counted on the way is added to `counted`.
    """
    for line in database.engine_check() if files else ():
        yield Fault("", None, line)
    for name in database.read(meta.unreadable_layouts):
        problem = "cannot be read; opening the store again writes it anew"
        yield Fault(meta.META.name, (name,), problem)
    tick = _ticker(watch)
    names = set(database.refresh() if stores is None else stores)
    for layout in _named(database, names):
        # In one view, unless that kept writers out: then nothing is suspected in vain.
        one_view = not database.driver.traits.readers_block
        with database.snapshot() if one_view else nullcontext():
            yield from _check_store(database, layout, tick, history=history)
            (report,) = database.read(_recount, [layout])
        for state, by in report.drift.items():
            yield Fault(layout.name, None, f"counter {state or 'of all'!r} is off by {by:+d}")
        if counted is not None:
            counted.append(report)


def _ticker(watch: Watch | None) -> Tick:
    """Passes on how many entries of a table have been looked at, every `_PAGE` or so."""
    seen: Counter[str] = Counter()

    def tick(table: str, entries: int) -> None:
        before = seen[table]
        seen[table] += entries
        if watch is not None and seen[table] // _PAGE > before // _PAGE:
            watch(table, seen[table])

    return tick


def _check_store(
    database: Database, layout: StoreLayout, tick: Tick, *, history: bool
) -> Iterator[Fault]:
    unreadable: dict[Key, None] = {}
    ledger = histories.Ledger(database, layout) if history else None
    for table in layout.tables:
        looking = _Looking(layout, table, unreadable, ledger, tick)
        yield from database.iterate(_faults, table.name, looking)
        for key in unreadable if table is layout.record else ():
            yield Fault(table.name, key, QUARANTINED)
    if ledger is not None:
        yield from ledger.faults(tick)
    if layout.label is not None:
        suspects = chain(_missing_labels(database, layout), _stray_labels(database, layout))
        for key in suspects:
            problem = database.read(_label_problem, layout, key)
            if problem is not None:
                yield Fault(layout.label.name, key, problem)
    lag = database.read(sequence_lag, layout)
    if lag:
        yield Fault(layout.history.name, None, f"the next event's number lags behind by {lag}")


class _Looking:
    """The values of a table's bodies, for a driver that compares them with what it has. Notes which
    cannot be read, and tells the ledger of what it sees on the way."""

    def __init__(
        self,
        layout: StoreLayout,
        table: Table,
        unreadable: dict[Key, None],
        ledger: histories.Ledger | None,
        tick: Tick,
    ) -> None:
        self._values = values_from_body(table)
        self._unreadable = unreadable
        self._tick = partial(tick, table.name)
        self._records = ledger if table is layout.record else None
        self._events = ledger if table is layout.history else None
        names = [column.name for column in table.columns]
        self._state = names.index("state") if layout.states and table is layout.record else None

    def __call__(self, key: Key, body: bytes) -> Values | None:
        """See `ValuesOf`."""
        self._tick(1)
        if self._records is not None:
            self._records.record(str(key[0]), body)
        if self._events is not None:
            self._events.events(key[:1], (body,))
        values = self._values(key, body)
        if values is None:
            self._unreadable[key] = None
        return values

    def page(self, keys: Columns, bodies: Sequence[bytes]) -> Columns | None:
        """See `PagedValues`."""
        if self._records is None:
            found = self._values.page(keys, bodies)
        elif (found := self._known(keys[0], bodies)) is None:
            return None
        if self._events is not None:
            self._events.events(keys[0], bodies)
        if found is not None:
            self._tick(len(bodies))
        return found

    def _known(self, ids: Sequence[Value], bodies: Sequence[bytes]) -> Columns | None:
        """One look into the bodies of records serves their indexes and the ledger."""
        found = self._values.usual and self._values.usual(bodies)
        if not found or None in found.revisions:
            return None
        assert self._records is not None
        states = None if self._state is None else found.columns[self._state]
        self._records.known(ids, found.revisions, states)
        return found.columns


def _recount(transaction: Transaction, layouts: Iterable[StoreLayout]) -> list[RecountReport]:
    return recount_all(transaction, layouts, repair=False)


def _faults(transaction: Transaction, table: str, values_of: ValuesOf) -> Iterator[Fault]:
    return transaction.faults(table, values_of)


def _missing_labels(database: Database, layout: StoreLayout) -> Iterator[Key]:
    assert layout.label is not None
    for key, body in database.rows(layout.record.name):
        for label, value in (labels_in(body) or {}).items():
            entry = (label, value, *key)
            if database.get(layout.label.name, entry) is None:
                yield entry


def _stray_labels(database: Database, layout: StoreLayout) -> Iterator[Key]:
    assert layout.label is not None
    for key, _ in database.rows(layout.label.name):
        label, value, record_id = key
        body = database.get(layout.record.name, (record_id,))
        # What an unreadable body says is not known: its labels stay.
        labels = {} if body is None else labels_in(body)
        if labels is not None and labels.get(str(label)) != value:
            yield key


def _label_problem(transaction: Transaction, layout: StoreLayout, key: Key) -> str | None:
    """What is wrong with a label, in one view of its record and its entry."""
    assert layout.label is not None
    label, value, record_id = key
    body = transaction.get(layout.record.name, (record_id,))
    labels = {} if body is None else labels_in(body)
    entry = transaction.get(layout.label.name, key)
    if labels is None or (labels.get(str(label)) == value) == (entry is not None):
        return None
    return "the record has no such label" if entry else "the record's label is missing here"


def labels_in(body: bytes) -> Mapping[str, str] | None:
    """None where they cannot be read."""
    try:
        labels = _decode_labels(body).labels
        check_labels(labels)
    except (ValueError, RecursionError):
        return None
    return labels


def recount(
    database: Database,
    *,
    stores: Collection[str] | None = None,
    deep: bool = False,
    repair: bool = False,
    watch: Watch | None = None,
) -> tuple[RecountReport, ...]:
    """See `Database.recount`."""
    started = perf_counter()
    if repair and database.in_transaction:
        raise TransactionError("a repair cannot be undone, so it cannot be in a transaction")
    names = set(database.refresh() if stores is None else stores)
    reports: list[RecountReport] = []
    look = partial(check, database, stores=names, files=False, history=True, watch=watch)
    found = left = list(look(counted=reports)) if deep else []
    if repair and found:
        reports = list(mend(database, found).recounts)
        left = list(look())
    elif repair:
        reports = database.write_apart(_set_right, database, names)
    elif not deep:
        reports = database.read(_recount, _named(database, names))
    return tuple(
        replace(
            report,
            deep=deep,
            faults=_faults_of(database, report.store, left),
            mended=len(found) - len(left),
            seconds=perf_counter() - started,
        )
        for report in reports
        if report.store in names
    )


def _named(database: Database, names: Collection[str]) -> list[StoreLayout]:
    return [layout for layout in database.layouts.values() if layout.name in names]


def _faults_of(database: Database, store: str, faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Those of a store, and of the file that holds it."""
    own = {"", meta.META.name, *(table.name for table in database.layouts[store].tables)}
    return tuple(fault for fault in faults if fault.table in own)


def _set_right(unit: Unit, database: Database, names: Collection[str]) -> list[RecountReport]:
    return recount_all(unit.engine, _named(database, names), repair=True)


def repair(database: Database) -> RepairReport:
    """Mend what `check` finds, in one transaction; bodies that cannot be read stay as they are."""
    return mend(database, list(check(database)))


def mend(database: Database, faults: Collection[Fault]) -> RepairReport:
    """Mend faults that were found: all of them in one transaction, but for histories, of which each
    is given an event that says so."""
    if database.in_transaction:
        raise TransactionError("a repair cannot be undone, so it cannot be in a transaction")
    layouts = database.refresh().values()
    told = [(layout, fault) for fault in faults for layout in layouts if _is_told(layout, fault)]
    names = {fault.table for fault in faults} - {layout.history.name for layout, _ in told}
    report = database.write_apart(_repair, database, faults, names)
    for layout, fault in told:
        assert fault.key is not None
        database.write(histories.mend, layout, str(fault.key[0]), database.clock())
    return replace(report, histories=len(told))


def _is_told(layout: StoreLayout, fault: Fault) -> bool:
    """Whether a fault is about the history of a record, not about an entry or the table."""
    return fault.table == layout.history.name and fault.key is not None and len(fault.key) == 1


def _repair(
    unit: Unit, database: Database, faults: Collection[Fault], names: set[str]
) -> RepairReport:
    rebuilt, labels = [], 0
    # Another process may have added states, whose counters must not be taken for strays.
    layouts = list(database.refresh().values())
    for layout in layouts:
        if layout.label is not None and layout.label.name in names:
            labels += _mend_labels(unit, database, layout)
        for table in layout.tables:
            if table.name in names:
                unit.engine.rebuild(table.name, values_from_body(table))
                rebuilt.append(table.name)
    recounts = recount_all(unit.engine, layouts, repair=True)
    return RepairReport(len(faults), tuple(rebuilt), labels, tuple(recounts))


def _mend_labels(unit: Unit, database: Database, layout: StoreLayout) -> int:
    assert layout.label is not None
    table = layout.label.name
    stray, missing = list(_stray_labels(database, layout)), list(_missing_labels(database, layout))
    for key in stray:
        unit.engine.remove(table, key, None)
    for key in missing:
        body = unit.get(layout.record.name, (key[-1],))
        assert body is not None
        values, entry = label_entry(parse_rfc3339(_decode(body)["created_at"]))
        unit.insert(table, key, values, entry)
    return len(stray) + len(missing)
