"""The fixtures that the tests of a driver share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storebridge.driver import Driver
from storebridge.testing.harness import BackendHarness
from storebridge.testing.samples import LAYOUT, TABLES


class DriverTests:
    """Supply `harness`; the rest follows from it."""

    @pytest.fixture
    def harness(self) -> BackendHarness:
        raise NotImplementedError("supply the fixture harness: see storebridge.testing")

    @pytest.fixture
    def driver(self, harness: BackendHarness) -> Iterator[Driver]:
        """A new database with the suite's tables."""
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        yield driver
        driver.close()
