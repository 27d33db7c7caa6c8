from pathlib import Path

import pytest

from storebridge.testing.driver_suite import BackendHarness, DriverConformance


class TestBolt(DriverConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        return BackendHarness("bolt", tmp_path)
