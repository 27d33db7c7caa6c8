"""Which dependencies come ready for ARMv7 from the package index that pip uses here.

    python -m benchmarks.armv7.wheels FILE

writes to FILE, as JSON, the name of the wheel of each, or null where pip would compile it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = (
    *("msgspec", "lmdb", "tinydb", "aiotinydb", "sqlalchemy", "psycopg", "psycopg-binary"),
    *("click", "rich", "zstandard"),
)
_PYTHON = "3.11"
_PLATFORMS = ("linux", "manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37)))


def wheel(package: str) -> str | None:
    """The wheel that pip would take on ARMv7 with Debian 12's Python; None if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}"]
        command += [f"--platform={each}_armv7l" for each in _PLATFORMS]
        done = subprocess.run(
            [*command, f"--dest={folder}", package], capture_output=True, text=True, check=False
        )
        if done.returncode and "No matching distribution" not in done.stderr:
            raise RuntimeError(f"{package}: {done.stderr}")
        return next((each.name for each in Path(folder).iterdir()), None)


if __name__ == "__main__":
    found = {package: wheel(package) for package in PACKAGES}
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")
