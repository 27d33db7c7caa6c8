"""Many callers at once, for longer: storms of tasks and threads, and kills in the midst of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.callers import kill_callers, seed_of_run, storm

BACKENDS = ("memory", "sqlite", "lmdb", "bolt", "tinydb", "sqlalchemy")


@pytest.fixture(params=BACKENDS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> BackendHarness:
    if request.param != "sqlalchemy":
        return BackendHarness(request.param, tmp_path)
    target = request.getfixturevalue("postgresql").target
    return BackendHarness(request.param, tmp_path, new_target=target)


@pytest.mark.attack
@pytest.mark.timeout(900)
def test_storms(harness: BackendHarness) -> None:
    """64 tasks and 16 threads, some cancelled, some broken down, on the same few records, again and
    again: all that they were told is linearisable, and nothing is lost, done twice or half done."""
    for number in range(3):
        storm(harness, 30, f"{seed_of_run()} {number}", harness.fresh())


@pytest.mark.attack
@pytest.mark.timeout(900)
def test_twenty_kills(harness: BackendHarness) -> None:
    """Whatever any of 32 tasks and 8 threads was told of is there after SIGKILL, twenty times."""
    harness.require_persistent()
    kill_callers(harness, 20)
