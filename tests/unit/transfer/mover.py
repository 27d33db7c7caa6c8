"""Migrates as its stdin says, a line of JSON each: `python -m tests.unit.transfer.mover`. Damaged
files may end it: then there is no answer."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from storebridge import StorebridgeError, open_database
from storebridge.transfer import filling
from storebridge.transfer.exports import export_database, import_database
from storebridge.transfer.progress import Progress

_rename = Path.rename


class Stopped(Exception):
    """As far as was asked."""


def watching(steps: int | None) -> Any:
    left = steps

    def watch(progress: Progress) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                raise Stopped

    return watch


def die_at_rename(number: int | None) -> None:
    """Be killed before the rename of this number, from 0."""
    left = number

    def counted(path: Path, target: Any) -> Path:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if left is not None:
            left -= 1
        return _rename(path, target)

    Path.rename = counted  # type: ignore[assignment,method-assign]


def move(asked: dict[str, Any]) -> None:
    source, target, watch = asked["source"], asked["target"], watching(asked.get("steps"))
    if asked.get("how") == "export":
        with open_database(source, read_only=True) as database:
            export_database(database, target, watch=watch)
    elif asked.get("how") == "import":
        import_database(source, target, watch=watch)
    else:
        with open_database(source, read_only=True) as database:
            database.migrate_to(target, overwrite=asked.get("overwrite", False), watch=watch)


def limit(size: int | None) -> None:
    """How large a file may become: what a full disk is to who writes."""
    most = resource.RLIM_INFINITY if size is None else size
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def main() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    filling._FEWEST = filling._MOST = 50
    for line in sys.stdin:
        asked = json.loads(line)
        limit(asked.get("limit"))
        die_at_rename(asked.get("rename"))
        try:
            move(asked)
            outcome = "complete"
        except Stopped:
            outcome = "stopped"
        except StorebridgeError as error:
            outcome = type(error).__name__
        limit(None)
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
