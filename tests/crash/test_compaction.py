"""kill -9 at random moments of writing, compacting and recounting: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.compacting import kill_compactions

ROUNDS = 25


@pytest.mark.attack
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_killed_compactions(backend: str, tmp_path: Path) -> None:
    """After each kill every record is in the database or in the archive, those whose time has not
    come are in the database, and bodies, indexes, counters and histories agree.
    """
    kill_compactions(BackendHarness(backend, tmp_path), tmp_path, ROUNDS)
