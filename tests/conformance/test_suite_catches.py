"""A test of the suite that cannot fail would be a defect: each broken promise must be caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.sabotaged import CAUGHT_BY

FILE = Path(__file__).with_name("sabotaged.py")
CASES = [(each.__name__, test) for each, tests in CAUGHT_BY.items() for test in tests]


class Recorder:
    """A plugin that keeps what came of each test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome == "skipped":
            self.outcomes[report.nodeid.split("::", 1)[1]] = report.outcome


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """All of these tests, run once, on the saboteurs and on the driver that they are made of."""
    names = {f"Test{name}::{test}" for name, test in CASES}
    names |= {f"TestPlain::{test}" for _, test in CASES}
    recorder = Recorder()
    options = ["-q", "--no-header", "--no-summary", "--tb=no", "-o", "timeout=0"]
    nodes = sorted(f"{FILE}::{name}" for name in names)
    pytest.main([*options, "--import-mode=importlib", *nodes], plugins=[recorder])
    return recorder.outcomes


@pytest.mark.parametrize(("saboteur", "test"), CASES)
def test_saboteur_is_caught(outcomes: dict[str, str], saboteur: str, test: str) -> None:
    """The test passes on the sound driver and fails on the sabotaged one."""
    assert outcomes[f"TestPlain::{test}"] == "passed"
    assert outcomes[f"Test{saboteur}::{test}"] == "failed"
