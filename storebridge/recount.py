"""Counting again: counters come from the state index, and drift is what they differed by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter

from storebridge.driver import Fault, Range, Transaction
from storebridge.spec import StoreLayout
from storebridge.transaction import SEQUENCE


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
    """Whether what was found has been set right, but for the `faults` that remain."""
    deep: bool = False
    """Whether every body, index entry, column, label and history was looked at."""
    faults: tuple[Fault, ...] = ()
    """What a deep recount found, in the store and in the file that holds it; after a repair, what
    it could not mend."""
    mended: int = 0
    """Faults that a repair mended."""

    @property
    def ok(self) -> bool:
        """Whether all agrees, now if it did not before."""
        return not self.faults and (self.repaired or not self.drift)


def recount_all(
    transaction: Transaction, layouts: Iterable[StoreLayout], *, repair: bool
) -> list[RecountReport]:
    """Count the records of stores by their state index; with `repair`, in a write transaction that
    has changed no record, set the counters right, and the number that the next event is given."""
    reports = []
    deltas: dict[str, int] = {}
    for layout in layouts:
        if repair and (lag := sequence_lag(transaction, layout)):
            deltas[SEQUENCE] = max(lag, deltas.get(SEQUENCE, 0))
        report = _recount(transaction, layout, repair=repair)
        deltas.update({layout.counter(state): -by for state, by in report.drift.items()})
        reports.append(report)
    if repair and deltas:
        transaction.tally(deltas)
    return reports


def _recount(transaction: Transaction, layout: StoreLayout, *, repair: bool) -> RecountReport:
    started = perf_counter()
    table = layout.record.name
    counts = {
        state: transaction.count(table, Range(by="state", prefix=(state,)))
        for state in layout.states
    } or {"": transaction.count(table, Range())}
    said = transaction.totals(layout.counter(""))
    drift = {state: said.get(layout.counter(state), 0) - n for state, n in counts.items()}
    # A counter of a state that is no state of the store any more.
    for name, value in said.items():
        drift.setdefault(name.removeprefix(layout.counter("")), value)
    return RecountReport(
        store=layout.name,
        counts=counts,
        drift={state: by for state, by in drift.items() if by},
        unknown=_in_no_state(transaction, layout),
        seconds=perf_counter() - started,
        repaired=repair,
    )


def _in_no_state(transaction: Transaction, layout: StoreLayout) -> int:
    """Records between the states, in the order of the index: to count them all, too, would take as
    long again."""
    if not layout.states:
        return 0
    states = sorted(layout.states)
    # No text comes between a state and itself with the smallest character behind it.
    bounds = zip([None, *(f"{state}\x01" for state in states)], [*states, None], strict=True)
    return sum(
        transaction.count(layout.record.name, Range(by="state", lower=lower, upper=upper))
        for lower, upper in bounds
    )


def sequence_lag(transaction: Transaction, layout: StoreLayout) -> int:
    """By how much a store's newest event is numbered beyond what has been counted: the next ones
    would take the place of others."""
    newest = Range(by="sequence", reverse=True, limit=1)
    rows, _ = transaction.scan(layout.history.name, newest)
    stands = transaction.totals(SEQUENCE).get(SEQUENCE, 0)
    return max(0, int(rows[0][0][1]) - stands) if rows else 0


def counts(transaction: Transaction, layout: StoreLayout) -> dict[str, int]:
    """Records by state, from the counters: costs one look per state."""
    said = transaction.totals(layout.counter(""))
    return {state: said.get(layout.counter(state), 0) for state in layout.states or ("",)}
