"""Writing into a file that somebody else has open, where replacing it would cut them off.

Nobody who opens the file by its name can mistake it for whole meanwhile: its first byte is one with
which no JSON begins, until all the rest is on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from io import FileIO
from pathlib import Path

_MARK = b"\x18"
_SPOILED = _MARK + b"This file was replaced while its lock was waited for. Open it again.\n"


def is_marked(found: bytes | Path) -> bool:
    """Whether this content, or that of this file, is half written."""
    if isinstance(found, bytes):
        return found.startswith(_MARK)
    with open(found, "rb") as file:
        return file.read(1) == _MARK


def rewrite(path: Path, content: bytes) -> None:
    """Write `content` into a file, durably.

    OSError where there is no room; the file then holds what it held. Killed, it is left with the
    mark: do it again.
    """
    with FileIO(path, "r+") as file:
        fd = file.fileno()
        size, first = os.fstat(fd).st_size, os.pread(fd, 1, 0)
        _write(fd, _MARK, 0)
        os.fsync(fd)
        try:
            os.posix_fallocate(fd, 0, max(len(content), 1))
        except OSError:
            os.ftruncate(fd, size)
            _write(fd, first, 0)
            os.fsync(fd)
            raise
        _write(fd, content[1:], 1)
        os.ftruncate(fd, len(content))
        os.fsync(fd)
        _write(fd, content[:1], 0)
        os.fsync(fd)


def is_written_elsewhere(file: FileIO) -> bool:
    """Whether somebody has a file, which we have open to read only, open for writing.

    The system grants a read lease only where nobody has. False where it does not tell: it tells a
    file's owner and root, on Linux.
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # ignored, where SIGIO would kill
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def spoil(file: FileIO) -> None:
    """Let whoever waits for the lock of a file without a name fail, rather than change it."""
    with open(f"/proc/self/fd/{file.fileno()}", "r+b") as spoiled:
        spoiled.write(_SPOILED)
        spoiled.truncate()


def _write(fd: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(fd, content, offset)
        content, offset = content[written:], offset + written
