from pathlib import Path

import pytest

from storebridge.testing.driver_suite import BackendHarness, DriverConformance
from storebridge.testing.store_suite import StoreConformance
from tests.postgres_server import Database


class TestPostgresql(DriverConformance, StoreConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path, postgresql: Database) -> BackendHarness:
        return BackendHarness("sqlalchemy", tmp_path, new_target=postgresql.target, effort=0.2)
