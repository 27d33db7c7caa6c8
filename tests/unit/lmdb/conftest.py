"""Fixtures of the LMDB backend's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest
from storebridge_lmdb import backend
from storebridge_lmdb.driver import LmdbDriver

from storebridge.driver import Options
from tests.unit.lmdb.support import EVENT, THING, Open


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.lmdb"


@pytest.fixture
def open_driver(path: Path) -> Iterator[Open]:
    """Opens the database at `path` with its tables, and closes it in the end."""
    opened: list[LmdbDriver] = []

    def make(**given: object) -> LmdbDriver:
        extra = {"map_size": str(given.pop("map_size"))} if "map_size" in given else {}
        options = Options(**{"durability": "off", "lock_timeout": 1.0, "extra": extra, **given})  # type: ignore[arg-type]
        driver = backend.open(str(path), options)
        driver.create_tables([THING, EVENT], 1)
        opened.append(driver)
        return driver

    yield make
    for driver in opened:
        with suppress(lmdb.Error):  # a test may have closed it
            driver.close()
