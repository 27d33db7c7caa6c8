"""The command `storebridge`. It alone needs the extra `storebridge[cli]`."""

from __future__ import annotations

import importlib.util
import sys


def main() -> int:
    """Run the command line of this process; its exit code."""
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"storebridge: the command line needs {' and '.join(missing)}:"
            " pip install 'storebridge[cli]'\n"
        )
        return 2
    from storebridge.cli.app import run

    return run()
