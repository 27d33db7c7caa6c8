from pathlib import Path

import pytest

from storebridge.testing.driver_suite import BackendHarness, DriverConformance


class TestLmdb(DriverConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        return BackendHarness("lmdb", tmp_path)
