from pathlib import Path

import pytest

from storebridge.testing.driver_suite import BackendHarness, DriverConformance


class TestToy(DriverConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        return BackendHarness("storebridge_toy:backend", tmp_path)
