"""Counting again: counters come from the state index, and drift is what they differed by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter

from storebridge.driver import Range, Transaction
from storebridge.spec import StoreLayout


@dataclass(frozen=True)
class RecountReport:
    """What counting a store again found."""

    store: str
    counts: dict[str, int]
    """Records by state, as counted; by the empty text for a store without states."""
    drift: dict[str, int] = field(default_factory=dict)
    """By state: what the counter said, less what was counted. Empty if they agree."""
    unknown: int = 0
    """Records in no state of the store: hand-edited, or unreadable. `check` names them."""
    seconds: float = 0.0
    repaired: bool = False


def recount_all(
    transaction: Transaction, layouts: Iterable[StoreLayout], *, repair: bool
) -> list[RecountReport]:
    """Count the records of stores by their state index; with `repair`, in a write transaction that
    has changed no record, set the counters right."""
    reports = []
    deltas: dict[str, int] = {}
    for layout in layouts:
        report = _recount(transaction, layout, repair=repair)
        deltas.update({layout.counter(state): -by for state, by in report.drift.items()})
        reports.append(report)
    if repair and deltas:
        transaction.tally(deltas)
    return reports


def _recount(transaction: Transaction, layout: StoreLayout, *, repair: bool) -> RecountReport:
    started = perf_counter()
    table = layout.record.name
    total = transaction.count(table, Range())
    counts = {
        state: transaction.count(table, Range(by="state", prefix=(state,)))
        for state in layout.states
    } or {"": total}
    said = transaction.totals(layout.counter(""))
    drift = {state: said.get(layout.counter(state), 0) - n for state, n in counts.items()}
    # A counter of a state that is no state of the store any more.
    for name, value in said.items():
        drift.setdefault(name.removeprefix(layout.counter("")), value)
    return RecountReport(
        store=layout.name,
        counts=counts,
        drift={state: by for state, by in drift.items() if by},
        unknown=total - sum(counts.values()),
        seconds=perf_counter() - started,
        repaired=repair,
    )


def counts(transaction: Transaction, layout: StoreLayout) -> dict[str, int]:
    """Records by state, from the counters: costs one look per state."""
    said = transaction.totals(layout.counter(""))
    return {state: said.get(layout.counter(state), 0) for state in layout.states or ("",)}
