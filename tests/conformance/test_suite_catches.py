"""A test of the suite that cannot fail would be a defect: each broken promise must be caught."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conformance.sabotaged import CAUGHT_BY

FILE = Path(__file__).with_name("sabotaged.py")
CASES = [(each.__name__, test) for each, tests in CAUGHT_BY.items() for test in tests]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All of these tests, run once, on the saboteurs and on the driver that they are made of.

    In a process of its own: Hypothesis takes some of what it draws from the modules that happen to
    be loaded, and from the hashes of the process, so elsewhere the same seed finds other things.
    """
    names = {f"Test{name}::{test}" for name, test in CASES}
    names |= {f"TestPlain::{test}" for _, test in CASES}
    nodes = sorted(f"{FILE}::{name}" for name in names)
    report = tmp_path_factory.mktemp("outcomes") / "report.xml"
    options = ["-q", "--no-header", "--no-summary", "--tb=no", "-o", "timeout=0"]
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "STOREBRIDGE"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *nodes],
        env={**ours, "PYTHONHASHSEED": "0"},
        cwd=FILE.parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return {_name(case): _outcome(case) for case in ElementTree.parse(report).iter("testcase")}


def _name(case: ElementTree.Element) -> str:
    return f"{case.attrib['classname'].rpartition('.')[2]}::{case.attrib['name']}"


def _outcome(case: ElementTree.Element) -> str:
    ends = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
    return ends[0] if ends else "passed"


@pytest.mark.parametrize(("saboteur", "test"), CASES)
def test_saboteur_is_caught(outcomes: dict[str, str], saboteur: str, test: str) -> None:
    """The test passes on the sound driver and fails on the sabotaged one."""
    assert outcomes[f"TestPlain::{test}"] == "passed"
    assert outcomes[f"Test{saboteur}::{test}"] == "failure"
