"""The pytest plugin of storebridge, loaded by every pytest where storebridge is installed: so it
imports nothing but pytest, and adds nothing to a run that does not ask for it.

The fixtures give each test a database of its own, on the backend of `--storebridge-backend`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from storebridge import Database, ExecutionStore, JobStore

pytest.register_assert_rewrite(
    "storebridge.testing.contract",
    "storebridge.testing.harness",
    "storebridge.testing.model",
    "storebridge.testing.stores",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("storebridge")
    group.addoption(
        "--storebridge-backend",
        default="sqlite",
        metavar="NAME",
        help="backend of the databases that the storebridge fixtures give, such as memory or lmdb "
        "(default: sqlite)",
    )


@pytest.fixture
def storebridge_location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A location of the backend chosen by `--storebridge-backend`, fresh for each test."""
    backend: str = request.config.getoption("--storebridge-backend")
    return f"{backend}://{tmp_path / 'storebridge'}"


@pytest.fixture
def storebridge_database(storebridge_location: str) -> Iterator[Database]:
    """An open database, fresh for each test. It need not survive a power cut, so it is quick."""
    from storebridge import open_database

    with open_database(f"{storebridge_location}?durability=off") as database:
        yield database


@pytest.fixture
def job_store(storebridge_database: Database) -> JobStore:
    """A store of jobs, in the same database as `execution_store`."""
    from storebridge import JobStore

    return JobStore(storebridge_database)


@pytest.fixture
def execution_store(storebridge_database: Database) -> ExecutionStore:
    """A store of executions, in the same database as `job_store`."""
    from storebridge import ExecutionStore

    return ExecutionStore(storebridge_database)
