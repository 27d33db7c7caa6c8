"""Where a run took place: without it, its figures say nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

_PACKAGES = (
    *("storebridge", "msgspec", "lmdb", "sqlalchemy", "psycopg", "tinydb", "aiotinydb"),
    *("apscheduler", "huey", "diskcache", "sqlitedict", "aiosqlite"),
)


def facts() -> dict[str, str]:
    """Date, machine and versions, for people."""
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{_processor()}, {os.cpu_count()} cores, {gibibytes:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "sync": f"{_sync_seconds() * 1e3:.2f} ms for a write of 4 KiB and its fdatasync",
        "load": f"{os.getloadavg()[1]:.1f} processes wanted to run, on average of five minutes",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **{name: found for name in _PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _sync_seconds() -> float:
    """On the disk that holds temporary files, as those of the benchmarks."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(31):
            started = perf_counter()
            os.pwrite(file.fileno(), bytes(4096), 0)
            os.fdatasync(file.fileno())
            times.append(perf_counter() - started)
    return statistics.median(times)
