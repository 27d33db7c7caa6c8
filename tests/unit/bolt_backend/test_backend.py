"""What the bolt backend makes of full disks, killed processes, and files of others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    CorruptStoreError,
    ForeignFileError,
    Job,
    JobStore,
    StoreLockedError,
    open_database,
)
from tests.real.data import real_data

ROOT = Path(__file__).parents[3]
SMALL_DISK = ["unshare", "--map-root-user", "--mount"]
MOUNTED = 'mount -t tmpfs -o size=2M none "$1" && shift && exec "$@"'
Start = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "alone"
    folder.mkdir()
    return folder / "node.bolt"


def fill(*arguments: object, within: tuple[str, ...] = ()) -> None:
    module = [sys.executable, "-m", "tests.unit.full_disk"]
    done = subprocess.run(
        [*within, *module, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "usable\n", done.stderr


@pytest.mark.parametrize("durability", ["full", "relaxed", "off"])
def test_files_that_may_not_grow(path: Path, durability: str) -> None:
    """Where no more can be written a change is refused as FULL and gone whole, everything
    acknowledged is there, and the store goes on as soon as there is room.
    """
    fill("file-size", "bolt", path, durability)


@pytest.mark.parametrize("durability", ["full", "off"])
def test_a_full_disk(path: Path, durability: str) -> None:
    """The same on a small disk that is really full, where a file may grow and its pages not."""
    within = (*SMALL_DISK, "sh", "-c", MOUNTED, "sh", str(path.parent))
    if subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("the system permits no mounts")
    fill("small-disk", "bolt", path, durability, within=within)


@pytest.mark.parametrize("word", ["hold", "count"])
def test_a_killed_process_frees_the_file(path: Path, start: Start, word: str) -> None:
    """At once, with what it had committed and nothing else, in a write transaction or out of it."""
    holder = start(path, durability="full")
    assert [holder.do(word) for word in ("open", "write")] == ["opened", 1]
    holder.do(word)
    holder.kill()
    heir = start(path, lock_timeout=0.0)
    assert [heir.do(word) for word in ("open", "count", "write")] == ["opened", 1, 2]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_second_process_is_told_who_has_it(path: Path, start: Start, read_only: bool) -> None:
    """By number, in one line; and opens it once that process has closed it."""
    holder = start(path)
    assert [holder.do(word) for word in ("open", "write")] == ["opened", 1]
    with pytest.raises(StoreLockedError) as caught:
        open_database(f"bolt://{path}?lock_timeout=0.1", read_only=read_only)
    assert caught.value.holder == holder.pid
    assert f"process {holder.pid}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [holder.do(word) for word in ("write", "close")] == [2, "closed"]
    other = start(path, read_only=read_only)
    assert [other.do(word) for word in ("open", "count")] == ["opened", 2]


def test_files_of_other_programs(path: Path) -> None:
    """Refused without a byte changed or a file made, however they are opened."""
    found = sorted(real_data("bolt").glob("*.db"))
    assert found
    for source in found:
        shutil.copyfile(source, path)
        path.chmod(0o640)
        before = path.stat()
        for read_only in (False, True):
            with pytest.raises(ForeignFileError, match="not one of storebridge's"):
                open_database(f"bolt://{path}", read_only=read_only)
        after = path.stat()
        assert path.read_bytes() == source.read_bytes()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
        assert os.listdir(path.parent) == [path.name]


def test_a_file_cut_short(path: Path) -> None:
    """At whatever page: corrupt, with what to do, and left as it is."""
    with open_database(f"bolt://{path}?durability=off") as database:
        for number in range(100):
            JobStore(database).create(Job(id=f"job-{number}"))
        pages = int(database.driver.describe()["pages"])
    whole = path.read_bytes()
    size = int.from_bytes(whole[24:28], "little")
    for length in (*range(2 * size, pages * size, size), pages * size - 1):
        path.write_bytes(whole[:length])
        for read_only in (False, True):
            with pytest.raises(CorruptStoreError, match=r"cut short: .*: restore a backup"):
                open_database(f"bolt://{path}", read_only=read_only)
        assert path.read_bytes() == whole[:length]
    path.write_bytes(whole[: pages * size])
    with open_database(f"bolt://{path}") as database:
        assert JobStore(database).count() == 100
