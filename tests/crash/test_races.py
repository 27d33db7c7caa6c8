"""Eight processes race for keys and locks, 10,000 rounds; and the holders of a lock are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.keyvalues_locks import kill_holders, race

BACKENDS = ("sqlite", "lmdb")


@pytest.mark.attack
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ten_thousand_races(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight processes that want the same 10,000 keys with `set_if_absent`, and the same 10,000
    locks, exactly one has each; what is stored says the same as they do.
    """
    monkeypatch.setattr("storebridge.testing.workers.PATIENCE", 800.0)
    race(BackendHarness(backend, tmp_path), 10_000)


@pytest.mark.attack
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", BACKENDS)
def test_fifty_killed_holders(backend: str, tmp_path: Path) -> None:
    """Fifty processes killed in the middle of taking, holding and giving back a lock: it is
    never left held, two never hold it, and what they counted under it is exact.
    """
    kill_holders(BackendHarness(backend, tmp_path), tmp_path / "inside", 50)
