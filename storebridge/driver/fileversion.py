"""Versions of engines that number their transactions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class NumberedVersion:
    """`HeldVersion` of a file by the number of its last transaction. Its inode, size and time count
    as well: whoever put another file in its place, or wrote into it otherwise, changed it, too.
    """

    def __init__(self, path: Path, number: Callable[[], int]) -> None:
        self._path = path
        self._number = number
        self._then = self._now()

    def _now(self) -> tuple[int, ...]:
        file = self._path.stat()
        return file.st_ino, file.st_size, file.st_mtime_ns, self._number()

    def stands(self) -> bool:
        """See `HeldVersion.stands`."""
        return self._now() == self._then

    def close(self) -> None:
        """See `HeldVersion.close`."""
