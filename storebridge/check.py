"""Checking a database against its bodies, which are the truth, and mending what disagrees.

People may edit a file with other tools: a column, an index entry, a label or a counter can then say
something else than the body does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from storebridge import meta
from storebridge.database import Database
from storebridge.driver import Fault, Key, Position, Range, Transaction
from storebridge.errors import TransactionError
from storebridge.recount import RecountReport, recount_all
from storebridge.spec import StoreLayout, check_labels, label_entry, values_from_body
from storebridge.times import parse_rfc3339
from storebridge.transaction import Unit

_PAGE = 500


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


def check(database: Database) -> Iterator[Fault]:
    """Every fault in the database: the engine's own check, bodies that cannot be read, columns and
    index entries that disagree with the bodies, labels, and counters that have drifted.

    Reads everything, in bounded memory and without keeping writers out; a change made meanwhile is
    not a fault.
    """
    for line in database.engine_check():
        yield Fault("", None, line)
    layouts = database.refresh()
    with database.snapshot():
        for name in database.read(meta.unreadable_layouts):
            problem = "cannot be read; opening the store again writes it anew"
            yield Fault(meta.META.name, (name,), problem)
        for layout in layouts.values():
            yield from _check_store(database, layout)


def _check_store(database: Database, layout: StoreLayout) -> Iterator[Fault]:
    for table in layout.tables:
        values_of = values_from_body(table)
        yield from database.iterate(_faults, table.name, values_of)
    yield from _unreadable(database, layout)
    if layout.label is not None:
        for key in _missing_labels(database, layout):
            yield Fault(layout.label.name, key, "the record's label is missing here")
        for key in _stray_labels(database, layout):
            yield Fault(layout.label.name, key, "the record has no such label")
    (report,) = database.read(_recount, [layout])
    for state, by in report.drift.items():
        yield Fault(layout.name, None, f"counter {state or 'of all'!r} is off by {by:+d}")


def _recount(transaction: Transaction, layouts: list[StoreLayout]) -> list[RecountReport]:
    return recount_all(transaction, layouts, repair=False)


def _faults(transaction: Transaction, table: str, values_of: Any) -> Iterator[Fault]:
    return transaction.faults(table, values_of)


def _unreadable(database: Database, layout: StoreLayout) -> Iterator[Fault]:
    table = layout.record
    values_of = values_from_body(table)
    for key, body in rows(database, table.name):
        if values_of(key, body) is None:
            yield Fault(table.name, key, "the body cannot be read: the record is quarantined")


def _missing_labels(database: Database, layout: StoreLayout) -> Iterator[Key]:
    assert layout.label is not None
    values_of = values_from_body(layout.record)
    for key, body in rows(database, layout.record.name):
        if values_of(key, body) is None:
            continue
        for label, value in (_labels_in(body) or {}).items():
            entry = (label, value, *key)
            if database.get(layout.label.name, entry) is None:
                yield entry


def _stray_labels(database: Database, layout: StoreLayout) -> Iterator[Key]:
    assert layout.label is not None
    for key, _ in rows(database, layout.label.name):
        label, value, record_id = key
        body = database.get(layout.record.name, (record_id,))
        # What an unreadable body says is not known: its labels stay.
        labels = {} if body is None else _labels_in(body)
        if labels is not None and labels.get(str(label)) != value:
            yield key


def _labels_in(body: bytes) -> Mapping[str, str] | None:
    """None where they cannot be read."""
    try:
        labels = _decode_labels(body).labels
        check_labels(labels)
    except (ValueError, RecursionError):
        return None
    return labels


def rows(database: Database, table: str) -> Iterator[tuple[Key, bytes]]:
    """Every entry of a table, read page by page."""
    position: Position | None = None
    while True:
        page, position = database.read_scan(table, Range(after=position, limit=_PAGE))
        yield from page
        if position is None:
            return


def repair(database: Database) -> RepairReport:
    """Mend what `check` finds, in one transaction; bodies that cannot be read stay as they are."""
    if database.in_transaction:
        raise TransactionError("repair() cannot be undone, so it cannot be in a transaction")
    faults = list(check(database))
    names = {fault.table for fault in faults}
    return database.write(_repair, database, faults, names)


def _repair(unit: Unit, database: Database, faults: list[Fault], names: set[str]) -> RepairReport:
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
