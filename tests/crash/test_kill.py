"""kill -9 at random moments, a hundred times a backend: nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.together import kill_rounds


@pytest.mark.attack
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_a_hundred_kills(backend: str, tmp_path: Path) -> None:
    """After each of a hundred kills every acknowledged change is there, nothing is half done, and
    counters, indexes, labels and events agree with the records.
    """
    kill_rounds(BackendHarness(backend, tmp_path), 100)
