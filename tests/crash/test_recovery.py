"""kill -9 at random moments of recoveries: each execution is recovered whole, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.holders import kill_recoveries

ROUNDS = 30


@pytest.mark.attack
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_thirty_killed_recoveries(backend: str, tmp_path: Path) -> None:
    """After each of thirty kills an execution is recovered whole, with its job and successor, or
    not touched; the next recovery finishes. Most of the kills come in the middle.
    """
    assert kill_recoveries(BackendHarness(backend, tmp_path), ROUNDS) >= ROUNDS // 2
