"""Eight processes race for keys and locks, 10,000 rounds; and the holders of a lock are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.keyvalues_locks import kill_holders, race
from tests.postgres_server import Database

pytestmark = [pytest.mark.attack, pytest.mark.timeout(900)]

OVER_A_NETWORK = 2_000
"""Rounds where each look is a message to a server and back; 10,000 take ten minutes."""


@pytest.fixture(params=["sqlite", "lmdb", "postgresql"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> BackendHarness:
    """Every backend that many processes may use."""
    if request.param == "postgresql":
        server: Database = request.getfixturevalue("postgresql")
        return BackendHarness("sqlalchemy", tmp_path, new_target=server.target)
    return BackendHarness(request.param, tmp_path)


def test_ten_thousand_races(harness: BackendHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight processes that want the same 10,000 keys with `set_if_absent`, and the same 10,000
    locks, exactly one has each; what is stored says the same as they do.
    """
    monkeypatch.setattr("storebridge.testing.workers.PATIENCE", 800.0)
    race(harness, 10_000 if harness.files else OVER_A_NETWORK)


def test_fifty_killed_holders(harness: BackendHarness, tmp_path: Path) -> None:
    """Fifty processes killed in the middle of taking, holding and giving back a lock: it is
    never left held, two never hold it, and what they counted under it is exact.
    """
    kill_holders(harness, tmp_path / "inside", 50)
