"""Databases of the tinydb backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storebridge_tinydb import backend
from storebridge_tinydb.driver import TinyDriver

from storebridge.driver import Options
from storebridge.testing.samples import LAYOUT, TABLES


@pytest.fixture
def engine() -> str:
    return "tinydb"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "alone"
    folder.mkdir()
    return folder / "node.json"


def open_at(path: Path, **options: object) -> TinyDriver:
    """A database with the suite's tables."""
    driver = backend.open(str(path), Options(**options))  # type: ignore[arg-type]
    driver.create_tables(TABLES, LAYOUT)
    return driver


@pytest.fixture
def driver(path: Path) -> Iterator[TinyDriver]:
    driver = open_at(path)
    yield driver
    driver.close()
