"""The pace of pruning: what others wait for is a step with its commit."""

from __future__ import annotations

from typing import Any

import pytest

from storebridge import open_database
from storebridge.compaction import pace
from storebridge.compaction.pace import STEP_SECONDS, Pace
from storebridge.driver.ordered import OrderedTransaction


@pytest.mark.parametrize(
    ("commit", "allowed"),
    [(0.0, STEP_SECONDS), (0.01, STEP_SECONDS / 2), (0.02, STEP_SECONDS / 3), (5.0, 0.015)],
)
def test_a_commit_counts_as_much_as_it_took(
    monkeypatch: pytest.MonkeyPatch, commit: float, allowed: float
) -> None:
    """Who worked for 10 ms, and then needed so long to commit, may work that much shorter; but not
    for next to no time on a slow disk."""
    now, pauses, end = [100.0], list[float](), OrderedTransaction.commit

    def work(*_: object) -> None:
        now[0] += 0.01

    def late(transaction: OrderedTransaction[Any]) -> None:
        now[0] += commit
        end(transaction)

    with open_database("memory:pace") as database:
        steps = Pace(database)
        assert steps.allowed < STEP_SECONDS
        with monkeypatch.context() as patches:
            patches.setattr(pace, "perf_counter", lambda: now[0])
            patches.setattr("time.sleep", pauses.append)
            patches.setattr(OrderedTransaction, "commit", late)
            steps.write(work)
    assert steps.allowed == pytest.approx(allowed)
    assert steps.longest == pytest.approx(0.01 + commit)
    assert pauses == [pytest.approx(min(0.01 + commit, 0.1))]
