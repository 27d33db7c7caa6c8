"""Where the data is that others recorded. It is not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "STOREBRIDGE_REAL_DATA"
_TOP = Path(__file__).resolve().parents[2]


def real_data(*parts: str) -> Path:
    """A file or folder of the data. Skips the test, or the module, where there is no data at all;
    what is missing in data that is there is a failure.
    """
    folder = Path(os.environ.get(VARIABLE) or _TOP.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(
            f"no data at {folder}: set {VARIABLE} to the folder that holds it",
            allow_module_level=True,
        )
    return folder.joinpath(*parts)
