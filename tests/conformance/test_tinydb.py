from pathlib import Path

import pytest

from storebridge.testing.driver_suite import BackendHarness, DriverConformance
from storebridge.testing.store_suite import StoreConformance


class TestTinyDB(DriverConformance, StoreConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        return BackendHarness("tinydb", tmp_path)
