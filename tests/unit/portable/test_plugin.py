"""The pytest plugin, as a user's own tests have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

USERS_TESTS = """
import pytest
from storebridge import Execution, Job

@pytest.mark.parametrize("turn", [1, 2])
def test_fresh_for_each_test(job_store, execution_store, storebridge_database, turn):
    assert job_store.count() == execution_store.count() == 0
    assert storebridge_database.location.backend.name == "{backend}"
    with storebridge_database.transaction():
        job_store.create(Job(id="j"))
        execution_store.create(Execution(job_id="j"))
    assert job_store.count() == 1

def test_location(storebridge_location):
    from storebridge import open_job_store
    with open_job_store(storebridge_location) as jobs:
        assert jobs.count() == 0
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["sqlite", "memory", "lmdb"])
def test_fixtures(tmp_path: Path, backend: str) -> None:
    """A user's tests each get an empty database of their own, on the backend chosen."""
    (tmp_path / "test_users.py").write_text(USERS_TESTS.replace("{backend}", backend))
    chosen = [] if backend == "sqlite" else [f"--storebridge-backend={backend}"]
    result = run(tmp_path, *chosen)
    assert "3 passed" in result.stdout, result.stdout + result.stderr


def test_light(tmp_path: Path) -> None:
    """A run that asks for no fixture imports no storage engine and nothing of the suite."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    loaded = {'storebridge_sqlite', 'lmdb', 'storebridge.testing.harness'}\n"
        "    assert 'storebridge.testing.plugin' in sys.modules\n"
        "    assert not loaded & set(sys.modules)\n"
    )
    result = run(tmp_path)
    assert "1 passed" in result.stdout, result.stdout + result.stderr
