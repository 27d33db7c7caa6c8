"""Counting what a program hands to the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.disk_traffic import INSTALLED, Traffic, sections, traffic_of

ROOT = Path(__file__).parents[2]
PROGRAM = """
import mmap, os, sys, threading
from tests.disk_traffic import mark

def write(path):
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(5000))
        os.pwritev(file.fileno(), [bytes(10), bytes(20)], 0)
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())

folder, elsewhere = sys.argv[1:]
write(f"{folder}/uncounted")
mark("files")
write(f"{folder}/file")
mark("elsewhere")
write(f"{elsewhere}/file")
print("to nowhere", flush=True)
mark("waiting")
fd = os.open(f"{folder}/waiting", os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
os.write(fd, bytes(100))
os.pwrite(fd, bytes(200), 4000)
os.close(fd)
fd = os.open(f"{folder}/not waiting", os.O_WRONLY | os.O_CREAT)
os.write(fd, bytes(100))
os.close(fd)
mark("threads")
threads = [threading.Thread(target=write, args=(f"{folder}/{n}",)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
mark("copies")
with open(f"{folder}/file", "rb") as source, open(f"{folder}/copy", "wb", buffering=0) as to:
    os.sendfile(to.fileno(), source.fileno(), 0, 300)
    os.copy_file_range(source.fileno(), to.fileno(), 200, 0)
mark("mapped")
with open(f"{folder}/file", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
    view[0] = 1
    view.flush()
mark("folder")
fd = os.open(folder, os.O_RDONLY)
os.fsync(fd)
mark("again")
with open(f"{folder}/file", "r+b", buffering=0) as file:
    file.write(bytes(10))
    file.write(bytes(20))
    file.seek(5000)
    file.write(bytes(30))
    os.fsync(file.fileno())
mark("")
write(f"{folder}/uncounted")
"""


@pytest.mark.skipif(not INSTALLED, reason="strace is not installed")
def test_what_a_program_writes(tmp_path: Path) -> None:
    """Bytes, syncs and blocks of each marked section to the files of the folder, by whatever call,
    and nothing else."""
    (tmp_path / "db").mkdir()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "db"), str(tmp_path)]
    assert traffic_of(command, tmp_path / "db", cwd=ROOT) == {
        "files": Traffic(5030, 2, 2),
        "elsewhere": Traffic(0, 0, 0),
        "waiting": Traffic(400, 2, 4),
        "threads": Traffic(20120, 8, 8),
        "copies": Traffic(500, 0, 1),
        "mapped": Traffic(0, 1, 0),
        "folder": Traffic(0, 1, 0),
        "again": Traffic(60, 1, 2),
    }


@pytest.mark.skipif(not INSTALLED, reason="strace is not installed")
def test_a_program_that_fails(tmp_path: Path) -> None:
    """Its costs are not taken for those of one that did its work."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        traffic_of([sys.executable, "-c", "raise SystemExit('no such peer')"], tmp_path)
    assert b"no such peer" in caught.value.stderr


def test_calls_that_were_interrupted() -> None:
    """A call that another thread's came between is in two lines of the log; one that failed wrote
    nothing."""
    log = """
7 write(-1, "mark both", 9) = -1 EBADF (Bad file descriptor)
7 pwrite64(3</d/a>, "x = 3"..., 4096, 0 <unfinished ...>
8 fdatasync(4</d/b> <unfinished ...>
7 <... pwrite64 resumed>) = 4096
8 <... fdatasync resumed>) = 0
7 write(3</d/a>, "y"..., 4096) = -1 ENOSPC (No space left on device)
9 write(3</d/a>, "y"..., 4096 <unfinished ...>
9 +++ killed by SIGKILL +++
"""
    assert sections(log.splitlines(), Path("/d")) == {"both": Traffic(4096, 1, 1)}
