"""Databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storebridge_sqlite import backend

from storebridge.driver import Driver, Options
from storebridge.testing.samples import LAYOUT, TABLES


@pytest.fixture
def engine() -> str:
    return "sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture
def driver(path: Path) -> Iterator[Driver]:
    """A new database with the suite's tables."""
    driver = backend.open(str(path), Options(durability="off"))
    driver.create_tables(TABLES, LAYOUT)
    yield driver
    driver.close()
