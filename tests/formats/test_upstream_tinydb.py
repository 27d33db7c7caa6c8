"""TinyDB's and aiotinydb's own tests, unmodified, on our storages.

Their source distributions, of the versions that are installed, have them; pip fetches these.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent / "upstream_tinydb"
AT_LEAST = {"tinydb": 200, "aiotinydb": 14}
"""How many tests there are. With fewer, something was not found."""

pytestmark = [pytest.mark.attack, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of tests for each package."""
    folder = tmp_path_factory.mktemp("upstream")
    for package in AT_LEAST:
        requirement = f"{package}=={version(package)}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        options = ["--no-binary", package, "--dest", str(folder)]
        subprocess.run([*pip, *options, requirement], check=True)
        (archive,) = folder.glob(f"{package}-*.tar.gz")
        with tarfile.open(archive) as source:
            for member in source.getmembers():
                rest = member.name.partition("/")[2]
                if rest.startswith("tests/") and member.isfile():
                    member.name = f"{package}/{rest}"
                    source.extract(member, folder, filter="data")
    return folder


def run(folder: Path, *, sabotage: bool = False) -> tuple[dict[str, str], tuple[int, int]]:
    """Run the tests in a folder: how each ended, and how often our storages were made."""
    report = folder / "report.xml"
    environment = {**os.environ, "PYTHONPATH": str(HERE), "STOREBRIDGE_SABOTAGE": "1" * sabotage}
    pytest_here = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder)]
    output = subprocess.run(
        [
            *pytest_here,
            "-p",
            "substitute",
            "-p",
            "no:cacheprovider",
            f"--junit-xml={report}",
            "tests",
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    ).stdout
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        (outcome,) = [child.tag for child in case if child.tag != "system-out"] or ["passed"]
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = outcome
    made = re.search(r"made: (\d+) (\d+)", output)
    assert made, output
    print(output)
    return outcomes, (int(made[1]), int(made[2]))


@pytest.mark.parametrize(("package", "ours"), [("tinydb", 0), ("aiotinydb", 1)])
def test_their_tests_pass(sources: Path, package: str, ours: int) -> None:
    """All of them, with our storage wherever they use theirs."""
    outcomes, made = run(sources / package)
    for name, outcome in sorted(outcomes.items()):
        print(outcome, name)
    # Skipped: one of a storage for YAML that the test brings along, where PyYAML is not installed.
    assert set(outcomes.values()) <= {"passed", "skipped"}
    assert list(outcomes.values()).count("passed") >= AT_LEAST[package]
    assert made[ours] > 10


@pytest.mark.parametrize("package", AT_LEAST)
def test_their_tests_notice_a_storage_that_loses_changes(sources: Path, package: str) -> None:
    """So it is our storage that they test."""
    outcomes, _ = run(sources / package, sabotage=True)
    assert "failure" in outcomes.values()
