"""No slow drift: what each operation costs stays within its budget, on every embedded engine.

Counted are calls, statements, bytes and syncs, never seconds: the same on a busy machine.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest

from tests.budgets import comparison
from tests.budgets.measure import Costs, costs_of, count
from tests.budgets.operations import BACKENDS, OPERATIONS, Operation, Stores, name_of
from tests.disk_traffic import INSTALLED

BUDGETS = comparison.read()


@pytest.mark.parametrize("backend", BACKENDS)
def test_operations_keep_to_their_budgets(backend: str) -> None:
    """No operation costs more than was agreed on."""
    lines = comparison.complaints(BUDGETS, backend, costs_of(backend))
    assert not lines, "\n".join(["over budget", *lines, comparison.ACCEPT])
    if not INSTALLED:
        pytest.skip("strace is not installed: bytes and syncs were not counted")


def budgeted(backend: str) -> Costs:
    """Costs that are just what the budgets say."""
    return deepcopy(BUDGETS.budgets[backend])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_budgeted_is_no_excess(backend: str) -> None:
    """The check is silent about costs that are the budgets."""
    assert set(budgeted(backend)) == {operation.name for operation in OPERATIONS}
    assert comparison.complaints(BUDGETS, backend, budgeted(backend)) == []


def test_one_statement_more_is_told() -> None:
    """The smallest excess is found, and the line says of which operation, and how much."""
    costs = budgeted("sqlite")
    before = costs["set_state"]["engine"]
    costs["set_state"]["engine"] += 1
    assert comparison.complaints(BUDGETS, "sqlite", costs) == [
        f"sqlite: set_state: {before + 1:g} SQL statements, +1 to its budget of {before:g}"
        f" ({1 / before:+.0%})"
    ]
    assert comparison.savings(BUDGETS, "sqlite", costs) == []


def test_one_sync_more_is_told() -> None:
    """So is a sync where there was none."""
    costs = budgeted("lmdb")
    costs["get"]["syncs"] += 1
    assert comparison.complaints(BUDGETS, "lmdb", costs) == [
        "lmdb: get: 1 syncs, +1 to its budget of 0"
    ]


def test_chance_is_left_room() -> None:
    """A process number of another length is no excess; a tenth more bytes is."""
    costs = budgeted("tinydb")
    costs["create"]["bytes"] *= 1.01
    assert comparison.complaints(BUDGETS, "tinydb", costs) == []
    costs["create"]["bytes"] *= 1.1
    (line,) = comparison.complaints(BUDGETS, "tinydb", costs)
    assert line.startswith("tinydb: create: ")
    assert "bytes handed to the disk" in line


def test_nothing_goes_unbudgeted() -> None:
    """An operation that is new, or gone, is told, too."""
    costs = budgeted("memory")
    costs["created anew"] = costs.pop("create")
    assert comparison.complaints(BUDGETS, "memory", costs) == [
        "memory: created anew: has no budget",
        "memory: create: is not measured",
    ]


def get_and_look(stores: Stores, number: int) -> None:
    stores.jobs.get(name_of(number))
    stores.database.sequence()


@pytest.mark.parametrize("backend", BACKENDS)
def test_doing_more_is_counted(backend: str, tmp_path: Path) -> None:
    """A `get` that also looks for the last event is over the budget of `get`, on every engine, by
    every kind of count that it has a part in."""
    costs = budgeted(backend) | count([Operation("get", get_and_look)], backend, tmp_path)
    lines = comparison.complaints(BUDGETS, backend, costs)
    kinds = {"contract", "engine", "calls"} | ({"steps"} if backend == "sqlite" else set())
    assert len(lines) == len(kinds), lines
    assert all(line.startswith(f"{backend}: get: ") for line in lines)


def test_savings_are_told() -> None:
    """What costs less is no complaint, and is found, so that the budget can follow."""
    costs = budgeted("bolt")
    costs["get"]["contract"] -= 1
    assert comparison.complaints(BUDGETS, "bolt", costs) == []
    assert len(comparison.savings(BUDGETS, "bolt", costs)) == 1


def test_renewing_changes_what_changed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New budgets keep the numbers that still hold; what is written is read back."""
    found = {backend: budgeted(backend) for backend in BACKENDS}
    found["sqlite"]["create"]["engine"] += 2
    found["sqlite"]["create"]["calls"] *= 1.01
    expected = deepcopy(BUDGETS.budgets)
    expected["sqlite"]["create"]["engine"] += 2
    renewed = comparison.renewed(comparison.read(), found)
    monkeypatch.setattr(comparison, "PATH", tmp_path / "budgets.json")
    comparison.write(renewed)
    written = comparison.read()
    assert written == renewed
    assert {name: dict(written.budgets[name]) for name in BACKENDS} == {
        name: {
            operation: {kind: pytest.approx(value, rel=0.01) for kind, value in cost.items()}
            for operation, cost in costs.items()
        }
        for name, costs in expected.items()
    }
    assert written.budgets["sqlite"]["create"]["calls"] == expected["sqlite"]["create"]["calls"]
