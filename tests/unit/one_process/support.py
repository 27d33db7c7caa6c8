"""What the tests of such files share."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.users import OWNER

Start = Callable[..., Any]
NO_PERMISSION = (
    "{}: no permission; open it read-only, as its owner, or change its mode or its folder's"
)


def owners(path: Path) -> dict[str, tuple[int, int]]:
    """Owner and mode of everything beside the database, and of itself."""
    found = {entry.name: entry.stat() for entry in os.scandir(path.parent)}
    return {name: (each.st_uid, stat.S_IMODE(each.st_mode)) for name, each in found.items()}


def made(path: Path, start: Start, **options: Any) -> Any:
    """The owner, who has made the database, written once and closed it."""
    owner = start(path, OWNER, **options)
    assert [owner.do(word) for word in ("open", "write", "close")] == ["opened", 1, "closed"]
    return owner
