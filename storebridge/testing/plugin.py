"""The pytest plugin of storebridge, loaded by every pytest where storebridge is installed: so it
imports nothing but pytest, and adds nothing to a run that does not ask for it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "storebridge.testing.contract", "storebridge.testing.harness", "storebridge.testing.model"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("storebridge")
    group.addoption(
        "--storebridge-backend",
        default="sqlite",
        metavar="NAME",
        help="backend of the locations that the fixture storebridge_location gives "
        "(default: sqlite)",
    )


@pytest.fixture
def storebridge_location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A location of the backend chosen by `--storebridge-backend`, fresh for each test."""
    backend: str = request.config.getoption("--storebridge-backend")
    return f"{backend}://{tmp_path / 'storebridge'}"
