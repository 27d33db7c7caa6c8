"""Run a command beside a PostgreSQL server of this machine, which is not emulated:

    python -m benchmarks.armv7.postgresql COMMAND...

The server listens on loopback, is of the tests' own making and ends with the command, which finds
it by the variable that the tests look at.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.postgres_server import URL_VARIABLE, Server


def run(command: list[str]) -> int:
    """The command's exit code."""
    with tempfile.TemporaryDirectory(prefix="storebridge-postgresql-") as folder:
        server = Server(Path(folder))
        server.make()
        server.start()
        try:
            environment = {**os.environ, URL_VARIABLE: server.url}
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
