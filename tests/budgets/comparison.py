"""Costs beside the budgets that are committed in `budgets.json`, and writing those anew."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.budgets.measure import Cost, Costs

PATH = Path(__file__).with_name("budgets.json")
ACCEPT = "worth it? `make budgets UPDATE=1` writes the budgets anew; say in the commit what it buys"
_PAGED = ("lmdb", "bolt")
"""Their pages are of the system's size; the budgets are for those of 4 KiB."""
_PAGE = 4096


class Kind(NamedTuple):
    """A kind of count: what it counts, and how much of it is no excess."""

    words: str
    tolerance: float = 0.0
    """As a share."""
    slack: float = 0.0
    """Besides that."""


KINDS = {
    "contract": Kind("calls of the driver"),
    "engine": Kind("calls of its engine"),
    # Other versions of Python call a little more or less of what is built in, and the writers' lock
    # looks around now and then.
    "calls": Kind("function calls", 0.03),
    "libraries": Kind("calls within libraries", 0.06, 1),
    "steps": Kind("steps of SQLite's machine"),
    # Process numbers and times are in some bodies.
    "bytes": Kind("bytes handed to the disk", 0.03),
    "syncs": Kind("syncs"),
}
_OTHER_SQLITE = 0.25
"""Another version may compile a statement otherwise; to read a table for an index costs more."""


class Budgets(msgspec.Struct):
    """What the operations may cost, by backend."""

    sqlite: str
    """The version that the steps were counted with."""
    budgets: dict[str, Costs]


class Difference(NamedTuple):
    """A count that is not what the budget says."""

    backend: str
    operation: str
    kind: str
    budget: float
    found: float

    def __str__(self) -> str:
        words = "SQL statements" if self._is_sql else KINDS[self.kind].words
        share = f" ({self.found / self.budget - 1:+.0%})" if self.budget else ""
        return (
            f"{self.backend}: {self.operation}: {self.found:,g} {words},"
            f" {self.found - self.budget:+,g} to its budget of {self.budget:,g}{share}"
        )

    @property
    def _is_sql(self) -> bool:
        return self.kind == "engine" and self.backend == "sqlite"


def read() -> Budgets:
    """The committed budgets."""
    return msgspec.json.decode(PATH.read_bytes(), type=Budgets)


def complaints(budgets: Budgets, backend: str, costs: Costs) -> list[str]:
    """A line for whatever costs more than its budget, or has none."""
    own = budgets.budgets[backend]
    lines = [str(each) for each in differences(budgets, backend, costs) if each.found > each.budget]
    lines += [f"{backend}: {name}: has no budget" for name in costs if name not in own]
    return lines + [f"{backend}: {name}: is not measured" for name in own if name not in costs]


def savings(budgets: Budgets, backend: str, costs: Costs) -> list[str]:
    """A line for whatever costs less than its budget by more than is left to chance."""
    return [str(each) for each in differences(budgets, backend, costs) if each.found < each.budget]


def differences(budgets: Budgets, backend: str, costs: Costs) -> Iterator[Difference]:
    """The counts that differ by more than is left to chance. What could not be counted here, as
    without `strace`, does not.
    """
    for operation, budget in budgets.budgets[backend].items():
        found = costs.get(operation, {})
        for kind, value in budget.items():
            allowed = value * _scale(backend, kind)
            tolerance = allowed * _tolerance(kind, budgets.sqlite) + KINDS[kind].slack + 1e-6
            if kind in found and abs(found[kind] - allowed) > tolerance:
                yield Difference(backend, operation, kind, allowed, found[kind])


def _scale(backend: str, kind: str) -> float:
    page = os.sysconf("SC_PAGE_SIZE")
    return page / _PAGE if kind == "bytes" and backend in _PAGED else 1.0


def _tolerance(kind: str, sqlite_version: str) -> float:
    other = kind == "steps" and sqlite_version != sqlite3.sqlite_version
    return _OTHER_SQLITE if other else KINDS[kind].tolerance


def renewed(old: Budgets, found: Mapping[str, Costs]) -> Budgets:
    """Budgets that these costs keep to. A number that still holds is kept, so that what changes in
    the file is what changed in the code."""
    budgets: dict[str, Costs] = {}
    for backend, costs in found.items():
        kept = old.budgets.setdefault(backend, {})
        changed = {(each.operation, each.kind) for each in differences(old, backend, costs)}
        budgets[backend] = {
            operation: {
                kind: (
                    cost[kind] / _scale(backend, kind)
                    if (operation, kind) in changed
                    or kind not in kept.get(operation, {})
                    or (kind == "steps" and old.sqlite != sqlite3.sqlite_version)
                    else kept[operation][kind]
                )
                for kind in KINDS
                if kind in cost
            }
            for operation, cost in costs.items()
        }
    return Budgets(sqlite3.sqlite_version, budgets)


def write(budgets: Budgets) -> None:
    """An operation a line, for people and for `git diff`."""
    lines = [f'{{"sqlite": "{budgets.sqlite}", "budgets": {{']
    for backend, costs in budgets.budgets.items():
        lines.append(f'"{backend}": {{')
        lines += [f"  {_member(*each)}," for each in costs.items()]
        lines[-1] = lines[-1].removesuffix(",")
        lines.append("},")
    lines[-1] = "}"
    PATH.write_text("\n".join([*lines, "}}"]) + "\n")


def _member(operation: str, cost: Cost) -> str:
    numbers = {kind: int(value) if value == int(value) else value for kind, value in cost.items()}
    return f"{json.dumps(operation)}: {json.dumps(numbers)}"
