"""Attacks on a migration, as short or as long as is asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from storebridge import JobStore, StorebridgeError, open_database
from storebridge.check import check
from storebridge.testing.stores.base import contents
from storebridge.transfer.progress import Progress
from storebridge.transfer.verification import verify
from tests.unit.transfer.support import (
    SUFFIXES,
    Mover,
    copied,
    data_files,
    data_in,
    flip,
    flips,
    make,
)

CHANGES = 60
_WRITE_AND_DIE = """
import os, signal, sys
from storebridge import Job, open_job_store
open_job_store(sys.argv[1]).create(Job(id="last"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def new_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def is_store(location: str) -> bool:
    """Whether a store can be opened there, and something is in it."""
    try:
        with open_database(location, read_only=True) as database:
            return bool(database.layouts)
    except StorebridgeError:
        return False


def turn_bits_of_source(backend: str, mover: Mover, tmp_path: Path, count: int) -> Counter[str]:
    """A bit that turned over in a source is found by its engine, or shows in the body or key of one
    entry: none is missing in a copy that is whole. The source is not touched.
    """
    location = make(backend, tmp_path / "source", CHANGES)
    outcomes: Counter[str] = Counter()
    for chance in flips(count, f"source {backend}"):
        damaged = copied(tmp_path / "source", tmp_path / "damaged")
        where = flip(damaged, chance)
        before = data_in(damaged)
        target = f"bolt://{new_folder(tmp_path / 'target')}/x"
        outcome = mover.move(location.replace(str(tmp_path / "source"), str(damaged)), target)
        assert data_in(damaged) == before, where
        outcomes[outcome] += 1
        if outcome != "complete":
            assert not is_store(target), where
            continue
        with open_database(location, read_only=True) as one, open_database(target) as other:
            found = verify(one, other)
            assert list(check(other)) == list(check(one)), where
        assert found.digest_a.entries == found.digest_b.entries, where
        assert found.count <= 2, where  # another key is missing, and is there besides
    return outcomes


def turn_bits_of_target(backend: str, mover: Mover, plain: str, tmp_path: Path, count: int) -> None:
    """A bit that turned over in a target between two attempts is mended or refused: it is no store
    before, and not one that lacks anything after, indexes included.
    """
    expected = None
    steps: list[Progress] = []
    with open_database(plain, read_only=True) as source:
        source.migrate_to(f"{backend}://{new_folder(tmp_path / 'whole')}/x", watch=steps.append)
    for chance in flips(count, f"target {backend}"):
        folder = new_folder(tmp_path / "target")
        target = f"{backend}://{folder}/x"
        assert mover.move(plain, target, steps=chance.randrange(3, len(steps))) == "stopped"
        if not data_files(folder):
            continue
        where = flip(folder, chance)
        assert not is_store(target), where
        outcome = mover.move(plain, target)
        if outcome != "complete":
            assert not is_store(target), where
            continue
        with open_database(plain, read_only=True) as one, open_database(target) as other:
            expected = expected or list(check(one))
            assert verify(one, other).equal, where
            assert list(check(other)) == expected, where


def kill_between_renames(backend: str, mover: Mover, plain: str, tmp_path: Path) -> None:
    """At whatever step it is killed that a database is put in the place of another, the next
    opening finds the old or the new one, whole, and what was replaced is kept: also what a killed
    service has left in files at its side.
    """
    folder = tmp_path / "target"
    target = make(backend, folder, 10)
    subprocess.run([sys.executable, "-c", _WRITE_AND_DIE, target], check=False)
    kept = copied(folder, tmp_path / "kept")
    with open_database(plain, read_only=True) as database:
        new = contents(database)
    with open_database(target, read_only=True) as database:
        old = contents(database)
        assert JobStore(database).get("last").state == "Pending"
    ends = []
    for number in range(10):
        copied(kept, folder)
        outcome = mover.move(plain, target, overwrite=True, rename=number)
        with open_database(target) as database:
            found = contents(database)
        assert found in (old, new)
        ends.append(found == new)
        assert mover.move(plain, target, overwrite=True) == "complete"
        (replaced, *_) = sorted(folder.glob(f"store{SUFFIXES[backend]}.replaced*"))
        with open_database(f"{backend}://{replaced}", read_only=True) as database:
            assert contents(database) == old
        with open_database(target) as database:
            assert contents(database) == new
        if outcome == "complete":
            break
    assert ends[-1]
    assert False in ends
    assert ends.count(True) > 1, "it was killed in its midst, and put right"
