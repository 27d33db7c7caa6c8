"""Bits that turn over, in what is copied and in the copy, and disks that are full: never a copy
that passes for whole and is not, and never a change of what is copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from storebridge import IncompleteStoreError, open_database
from storebridge.check import check
from storebridge.transfer.verification import verify
from tests.unit.transfer.attacks import (
    CHANGES,
    is_store,
    kill_between_renames,
    new_folder,
    turn_bits_of_source,
    turn_bits_of_target,
)
from tests.unit.transfer.support import FILES, SUFFIXES, Mover, data_in, make

FLIPS = 3


@pytest.fixture(scope="module")
def mover() -> Iterator[Mover]:
    mover = Mover()
    yield mover
    mover.close()


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """A source whose files are sound."""
    return make("sqlite", tmp_path / "plain", CHANGES)


@pytest.mark.parametrize("backend", FILES)
def test_bits_of_the_source(backend: str, mover: Mover, tmp_path: Path) -> None:
    """What a damaged source still has is copied whole, or nothing passes for a copy."""
    turn_bits_of_source(backend, mover, tmp_path, FLIPS)


@pytest.mark.parametrize("backend", FILES)
def test_bits_of_the_target(backend: str, mover: Mover, plain: str, tmp_path: Path) -> None:
    """What was damaged before the migration went on is mended or refused."""
    turn_bits_of_target(backend, mover, plain, tmp_path, FLIPS)


def test_killed_between_renames(mover: Mover, plain: str, tmp_path: Path) -> None:
    """Whatever step of it is killed, one database takes the place of another whole."""
    kill_between_renames("sqlite", mover, plain, tmp_path)


@pytest.mark.parametrize("backend", FILES)
def test_full_disks(backend: str, mover: Mover, plain: str, tmp_path: Path) -> None:
    """However often there is no room, what is there is no store, and when there is it goes on."""
    folder = new_folder(tmp_path / "target")
    target = f"{backend}://{folder}/x{SUFFIXES[backend]}"
    before = data_in(tmp_path / "plain")
    outcomes: Counter[str] = Counter()
    for limit in (0, 3_000, 20_000, 70_000, 150_000, 240_000, 300_000, 400_000):
        outcome = mover.move(plain, target, limit=limit)
        outcomes[outcome] += 1
        if outcome == "complete":
            break
        assert outcome in ("StoreFullError", "StorageError", "ConfigurationError")
        assert not is_store(target)
    assert outcomes["StoreFullError"] >= 3
    if not outcomes["complete"]:
        assert mover.move(plain, target) == "complete"
    with open_database(plain, read_only=True) as one, open_database(target) as other:
        assert verify(one, other).equal
        assert list(check(other)) == list(check(one))
    assert data_in(tmp_path / "plain") == before


def test_no_room_for_an_export(mover: Mover, plain: str, tmp_path: Path) -> None:
    """An export for which there is no room leaves nothing behind."""
    folder = new_folder(tmp_path / "target")
    for limit in (0, 10_000, 50_000):
        file = str(folder / "x.jsonl")
        assert mover.move(plain, file, how="export", limit=limit) == "StoreFullError"
        assert list(folder.iterdir()) == []
    assert mover.move(plain, str(folder / "x.jsonl"), how="export") == "complete"
    target = str(folder / "x.db")
    for limit in (40_000, 200_000):
        outcome = mover.move(str(folder / "x.jsonl"), target, how="import", limit=limit)
        assert outcome == "StoreFullError"
        with pytest.raises(IncompleteStoreError):
            open_database(target)
    assert mover.move(str(folder / "x.jsonl"), target, how="import") == "complete"
    with open_database(plain, read_only=True) as one, open_database(target) as other:
        assert verify(one, other).equal
