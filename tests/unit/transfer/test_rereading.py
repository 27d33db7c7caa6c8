"""What is read again is read from the disk: a copy that only the system's memory holds as it was
written proves nothing of the stick or card that it is on.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

import pytest

from storebridge import Job, JobStore, open_database
from storebridge.transfer import filling
from storebridge.transfer.exports import export_database
from storebridge.transfer.progress import Progress
from tests.unit.transfer.support import FILES, data_files

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the system does not tell what it keeps in memory"
)


def in_memory(path: Path) -> int:
    """How many pages of a file the system keeps in memory."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        assert libc.mincore(ctypes.byref(start), ctypes.c_size_t(size), pages) == 0
        del start
    return sum(page & 1 for page in pages)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """On a disk."""
    probe = tmp_path / "probe"
    probe.write_bytes(b"x" * mmap.PAGESIZE)
    with probe.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(probe):
        pytest.skip("the temporary folder is not on a disk")
    return tmp_path


def test_an_export(folder: Path) -> None:
    """When it is about to be read again, nothing of the file is in memory."""
    seen = []

    def look(progress: Progress) -> None:
        if progress.stage == "verify" and not progress.done:
            seen.append(in_memory(folder / "x.jsonl.partial"))

    with open_database(f"memory:{folder}") as database:
        jobs = JobStore(database)
        for _ in range(200):
            jobs.create(Job())
        export_database(database, folder / "x.jsonl", watch=look)
    assert seen == [0]


@pytest.mark.parametrize("backend", FILES)
def test_a_database(backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a target is about to be opened again, nothing of its files is in memory."""
    target, seen = folder / "target", []
    open_again = filling.Filling._open

    def look(self: filling.Filling, location: object) -> object:
        seen.append(sum(map(in_memory, filter(_holds_something, _files(target)))))
        return open_again(self, location)  # type: ignore[arg-type]

    with open_database(f"memory:{folder}") as database:
        jobs = JobStore(database)
        for _ in range(200):
            jobs.create(Job())
        monkeypatch.setattr(filling.Filling, "_open", look)
        database.migrate_to(f"{backend}://{target}")
    assert seen == [0, 0]


def _files(target: Path) -> list[Path]:
    return [path for path in data_files(target.parent) if str(path).startswith(str(target))]


def _holds_something(path: Path) -> bool:
    return path.stat().st_size > 0
