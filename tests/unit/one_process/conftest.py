"""Files that one process at a time has open for writing."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["bolt", "tinydb"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(shared: Path, engine: str) -> Path:
    return shared / f"node.{engine}"
