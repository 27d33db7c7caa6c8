from pathlib import Path

import pytest

from storebridge.testing.driver_suite import BackendHarness, DriverConformance
from storebridge.testing.store_suite import StoreConformance


class TestDriver(DriverConformance):
    """What every driver must do."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        return BackendHarness("storebridge_toy:backend", tmp_path)


class TestStores(StoreConformance):
    """What every store promises, on this driver."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        return BackendHarness("storebridge_toy:backend", tmp_path)
