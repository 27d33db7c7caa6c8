"""kill -9 at random moments of recounts that mend: no body changes, and the next one finishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.recounts import kill_recounts

ROUNDS = 30


@pytest.mark.attack
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_thirty_killed_recounts(backend: str, tmp_path: Path) -> None:
    """After each of thirty kills all bodies are as they were, the counters are right by the index,
    and a recount mends what is left. Some of the kills leave something.
    """
    assert kill_recounts(BackendHarness(backend, tmp_path), ROUNDS) >= ROUNDS // 5
