from pathlib import Path

import pytest

from storebridge.testing.driver_suite import BackendHarness, DriverConformance
from storebridge.testing.store_suite import StoreConformance


class TestSqlalchemySqlite(DriverConformance, StoreConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        # What it does is what TestSqlite does.
        return BackendHarness("storebridge_sqlalchemy:pysqlite", tmp_path, effort=0.1)
