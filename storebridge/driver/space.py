"""Room on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from storebridge.driver.contract import DriverError, ErrorKind


def require_room(folder: Path, size: int) -> None:
    """DriverError of kind FULL unless the folder's disk has so many bytes free for this user."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < size:
        raise DriverError(
            ErrorKind.FULL,
            f"{folder}: {free} bytes are free on the disk, giving space back needs {size}: make"
            " room first",
        )
