"""What holds for every test: how Hypothesis draws, and that CI skips nothing."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres_server import own_postgresql as own_postgresql
from tests.postgres_server import postgresql as postgresql

# The same draws on every machine, so that what fails can be repeated, and nothing that depends on
# how busy the machine is.
settings.register_profile(
    "storebridge",
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("storebridge")

EXCUSES = (
    "trait ",
    "memory keeps no files",
    "sqlalchemy keeps no files",
    "an empty folder is a new database of this backend",
    "the system permits no mounts",
)
"""How the reasons begin for which a test is skipped in CI, too: there is nothing to install."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _without_gaps((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _without_gaps((yield))


def _without_gaps(report: Report) -> Report:
    """Where CI is set, a test that is skipped for want of a tool or of data has failed."""
    if report.skipped and isinstance(report.longrepr, tuple) and os.environ.get("CI"):
        path, line, said = report.longrepr
        reason = said.removeprefix("Skipped: ")
        if not reason.startswith(EXCUSES):
            report.outcome = "failed"
            report.longrepr = f"{path}:{line}: CI skips nothing, but: {reason}"
    return report
