"""What is missing is a reason to skip a test, but not in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.fixture
def tool():
    pytest.skip("the tool is not installed")

@pytest.mark.skipif(True, reason="only root can")
def test_marked(): pass

def test_of_a_fixture(tool): pass

def test_inside(): pytest.skip("no data at all")

def test_of_the_engine(): pytest.skip("trait processes: one")
"""
MODULE = 'import pytest; pytest.skip("no data for a module", allow_module_level=True)'


def outcome(folder: Path, ci: str | None) -> str:
    (folder / "test_these.py").write_text(TESTS)
    (folder / "test_module.py").write_text(MODULE)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    options = ["-q", "-rfEs", "-p", "tests.conftest", "--continue-on-collection-errors"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={folder}", str(folder)],
        env=environment | ({} if ci is None else {"CI": ci}),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return done.stdout


@pytest.mark.parametrize("ci", [None, ""])
def test_without_ci_tests_are_skipped(tmp_path: Path, ci: str | None) -> None:
    """And the reason is said."""
    said = outcome(tmp_path, ci)
    assert said.splitlines()[-1].startswith("5 skipped")
    assert "the tool is not installed" in said


def test_in_ci_what_is_missing_fails(tmp_path: Path) -> None:
    """Whatever way a test is skipped, it fails with its reason; what an engine cannot do stays."""
    said = outcome(tmp_path, "true")
    assert said.splitlines()[-1].startswith("1 failed, 1 skipped, 3 errors")
    for reason in ("the tool is not installed", "only root can", "no data at all"):
        assert f"CI skips nothing, but: {reason}" in said
    assert "CI skips nothing, but: no data for a module" in said
