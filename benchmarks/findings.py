"""What a record says: who is compared with whom, and who is ahead of us."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from benchmarks.reasons import REASONS
from benchmarks.record import Cost, Figure, Record

ENGINES = {
    "sqlite": "SQLite",
    "lmdb": "LMDB",
    "bolt": "bolt",
    "tinydb": "TinyDB file",
    "sqlalchemy": "PostgreSQL",
    "memory": "memory",
}
"""Backends in the order to show them, and what their engine is called."""
_BY_HAND = ("sqlite3 by hand", "py-lmdb by hand", "psycopg by hand", "bbolt by hand (Go)")
"""The measure of each engine, where there are several who wrote by hand."""
NO_REASON = "no reason known"

Row = TypeVar("Row", Figure, Cost)


class Race(NamedTuple):
    """Everyone who did one workload in one mode."""

    workload: str
    mode: str
    figures: list[Figure]
    """By engine, ours first, then the fastest."""

    @property
    def title(self) -> str:
        return deed(self.workload, self.mode)


class Ahead(NamedTuple):
    """A peer whose median is below ours on the matching engine."""

    peer: Figure
    ours: Figure

    @property
    def by(self) -> float:
        """How many times as long ours takes."""
        return self.ours.median / self.peer.median

    @property
    def certain(self) -> bool:
        """Whether the middle halves of the rounds lie apart."""
        return self.peer.high < self.ours.low

    @property
    def reason(self) -> str:
        """Why, or that nobody has looked."""
        peer = self.peer
        return REASONS.get((peer.workload, peer.mode, peer.contender), NO_REASON)

    def __str__(self) -> str:
        peer = self.peer
        return (
            f"{peer.contender} is {self.by:.2f} times as fast as {self.ours.contender}:"
            f" {deed(peer.workload, peer.mode)}: {self.reason}"
        )


def deed(workload: str, mode: str) -> str:
    """What was done, for people: reading goes without saying."""
    return workload if mode == "reading" else f"{workload}, {mode}"


def races(record: Record) -> list[Race]:
    """All that was done, in the order in which it was."""
    found: dict[tuple[str, str], list[Figure]] = {}
    for figure in record.figures:
        found.setdefault((figure.workload, figure.mode), []).append(figure)
    return [Race(*key, sorted(figures, key=_standing)) for key, figures in found.items()]


def by_engine(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of each engine, in the order to show them."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _place(tuple(ENGINES), row.engine)):
        found.setdefault(row.engine, []).append(row)
    return found


def by_hand(figures: Iterable[Figure], engine: str) -> Figure | None:
    """The hand-written code that others on an engine are measured by."""
    hands = (f for f in figures if f.engine == engine and f.contender in _BY_HAND and f.median > 0)
    return min(hands, key=lambda figure: _BY_HAND.index(figure.contender), default=None)


def written(cost: Cost) -> float | None:
    """What a disk takes for one durable change: whole blocks, where they were counted."""
    return cost.change_block_bytes or cost.change_bytes


def ours(record: Record, workload: str, mode: str, engine: str) -> Figure | None:
    """Our figure of an engine, if there is one."""
    matching = (
        figure
        for figure in record.figures
        if (figure.workload, figure.mode, figure.engine) == (workload, mode, engine)
    )
    return next((figure for figure in matching if figure.ours and figure.median > 0), None)


def ahead(record: Record, *, same: bool = True) -> list[Ahead]:
    """Peers that are faster, the farthest first: who keep the same promise, or the others."""
    found = []
    for peer in record.figures:
        if peer.ours or (peer.promise == "same") is not same or peer.median <= 0:
            continue
        mine = ours(record, peer.workload, peer.mode, peer.engine)
        if mine is not None and peer.median < mine.median:
            found.append(Ahead(peer, mine))
    return sorted(found, key=lambda each: -each.by)


def _standing(figure: Figure) -> tuple[int, bool, float]:
    return _place(tuple(ENGINES), figure.engine), not figure.ours, figure.median


def _place(order: tuple[str, ...], name: str) -> int:
    return order.index(name) if name in order else len(order)
