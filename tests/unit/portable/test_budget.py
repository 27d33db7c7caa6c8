"""What importing and opening cost, and what the database tells of slow transactions."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storebridge import Job, JobStore, open_database
from storebridge.testing.driver_suite import DriverConformance
from storebridge.testing.store_suite import StoreConformance

NOT_IMPORTED = (
    "asyncio",
    "sqlalchemy",
    "psycopg",
    "click",
    "rich",
    "sqlite3",
    "lmdb",
    "pytest",
    "hypothesis",
)


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_imports() -> None:
    """`import storebridge` imports no backend, no asyncio, no SQLAlchemy, nothing of the command
    line and nothing of the suite.
    """
    loaded = set(run("import storebridge, sys; print(*sys.modules)").split())
    assert loaded & set(NOT_IMPORTED) == set()
    assert [name for name in loaded if name.startswith(("storebridge_", "storebridge.cli"))] == []
    assert [name for name in loaded if name.startswith("storebridge.testing")] == []


RESIDENT = """
import os, sys
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
import storebridge
jobs = storebridge.open_job_store(sys.argv[1])
jobs.create(storebridge.Job(name="n"))
jobs.find()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory(tmp_path: Path) -> None:
    """Opening a SQLite store adds under 16 MB of resident memory to bare Python."""
    added = int(run(RESIDENT, str(tmp_path / "jobs.db")))
    assert added < 16 * 2**20, f"{added / 2**20:.1f} MB"


def test_slow_transactions_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Transactions that hold the lock for long are logged and counted, and so is the wait."""
    with open_database("memory:slow") as opened, caplog.at_level(logging.WARNING, "storebridge"):
        opened.statistics.slow_after = 0.01
        jobs = JobStore(opened)
        inside = threading.Event()
        waiter = threading.Thread(target=lambda: (inside.wait(), jobs.create(Job())))
        waiter.start()
        with opened.transaction():
            inside.set()
            jobs.create(Job())
            waiter.join(0.05)
        waiter.join()
        assert opened.statistics.slow_transactions >= 1
        assert opened.statistics.longest_transaction_seconds >= 0.05
        assert opened.statistics.lock_waits >= 1
        assert opened.statistics.lock_wait_seconds >= 0.03
    assert "memory:slow: a transaction took" in caplog.text
    assert "waited" in caplog.text


def test_no_test_of_the_suite_hides_another() -> None:
    """Each test and fixture of the suite is defined in one of its classes only."""
    seen: dict[str, type] = {}
    for suite in (DriverConformance, StoreConformance):
        for each in suite.__mro__:
            for name in vars(each):
                if name.startswith("test_"):
                    assert seen.setdefault(name, each) is each, name
