"""Replace what a file holds: all of it, or nothing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def replace(
    path: str | os.PathLike[str], content: bytes, *, mode: int = 0o600, durable: bool = True
) -> None:
    """Let the file hold `content`; on failure, or killed at any moment, it holds what it did.

    Who reads it meanwhile sees all of the old or all of the new. With `durable`, the new content
    has reached the disk on return. A symbolic link is followed. Permissions and owner are kept; a
    new file has the permissions `mode`, whatever the umask.

    The name then belongs to another inode: handles that are open, and other hard links, keep the
    old content; ACLs and extended attributes are not taken over. One writer at a time: the content
    is first written to a file beside it, whose name ends in `-new`. Left behind by a process that
    was killed, it is overwritten by the next.

    OSError if the system refuses, and where the path is something else than a regular file.
    """
    target = Path(os.path.realpath(path))
    new = write_beside(target, content, mode=mode, durable=durable)
    try:
        os.replace(new, target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(target.parent)


def write_beside(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> Path:
    """Make the file that can take the place of `path`. Nothing is left of it on failure."""
    old = _examine(path)
    new = path.with_name(path.name + "-new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            if old is not None:
                give_like(fd, old)
            os.fchmod(fd, mode if old is None else stat.S_IMODE(old.st_mode))
            if durable:
                os.fsync(fd)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return new


def sync_folder(folder: Path) -> None:
    """Let names that were made, changed or removed in a folder reach the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _examine(path: Path) -> os.stat_result | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found


def give_like(fd: int, old: os.stat_result) -> None:
    """Give a new file to another's owner; where only root may, to its group."""
    made = os.fstat(fd)
    if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(fd, old.st_uid, old.st_gid)
        except PermissionError:
            os.fchown(fd, -1, old.st_gid)
