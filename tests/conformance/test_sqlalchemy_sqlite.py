from pathlib import Path

import pytest

from storebridge.testing.driver_suite import BackendHarness, DriverConformance
from storebridge.testing.store_suite import StoreConformance


# The driver is that of TestSqlite, so this is not for every day; that files go both ways is tested
# in tests/unit/sqlalchemy.
@pytest.mark.attack
class TestSqlalchemySqlite(DriverConformance, StoreConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        return BackendHarness("storebridge_sqlalchemy:pysqlite", tmp_path, effort=0.1)
