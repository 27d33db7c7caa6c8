"""Migrations that are killed, damaged and made of much, on every backend whose databases are files:
never a copy that passes for whole and is not.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from storebridge import ConfigurationError, IncompleteStoreError, Job, JobStore, open_database
from storebridge.check import check
from storebridge.location import parse_location
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.awkward import fill, seed
from storebridge.testing.stores.base import contents
from storebridge.testing.stores.transferring import kill_migrations
from storebridge.transfer.exports import export_database
from storebridge.transfer.verification import verify
from tests.unit.transfer.attacks import (
    CHANGES,
    kill_between_renames,
    turn_bits_of_source,
    turn_bits_of_target,
)
from tests.unit.transfer.support import FILES, SUFFIXES, Mover, data_in, make

pytestmark = [pytest.mark.attack, pytest.mark.timeout(900)]
KILLS = 12
FLIPS = 30


@pytest.fixture
def mover() -> Iterator[Mover]:
    mover = Mover()
    yield mover
    mover.close()


@pytest.mark.parametrize("backend", FILES)
def test_kills(backend: str, tmp_path: Path) -> None:
    """Killed again and again it is no store, and at last holds everything; the source's files are
    as they were, byte for byte.
    """
    source = make("sqlite", tmp_path / "source", 400)
    before = data_in(tmp_path / "source")
    harness = BackendHarness(backend, tmp_path)
    midway = kill_migrations(harness, parse_location(source), KILLS)
    assert midway > KILLS // 4
    assert data_in(tmp_path / "source") == before
    with open_database(source, read_only=True) as one, open_database(harness.location()) as other:
        assert contents(one) == contents(other)
        assert list(check(other)) == list(check(one))


@pytest.mark.parametrize("backend", FILES)
def test_imports_killed(backend: str, tmp_path: Path) -> None:
    """An import that is killed leaves no store, either, and then goes on."""
    source = make("sqlite", tmp_path / "source", 3000)
    export = tmp_path / "x.jsonl"
    with open_database(source, read_only=True) as database:
        export_database(database, export)
        expected = contents(database)
    chance, longest, turn, midway = random.Random(f"import {seed()}"), 0.2, 0, 0
    for _ in range(KILLS):
        target = f"{backend}://{tmp_path}/target-{turn}{SUFFIXES[backend]}"
        command = [sys.executable, "-m", "storebridge", "import", str(export), target]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            process.stderr.readline()
            time.sleep(chance.random() * longest)
            process.kill()
        try:
            open_database(target, create=False).close()
            if midway:
                break
            longest, turn = longest / 2, turn + 1  # it was quicker: once more, elsewhere
        except IncompleteStoreError:
            midway += 1
        except ConfigurationError:
            pass  # it was killed before anything was there
    else:
        subprocess.run(command, check=True, capture_output=True)
    assert midway
    with open_database(target) as database:
        assert contents(database) == expected


@pytest.mark.parametrize("backend", FILES)
def test_bits(backend: str, mover: Mover, tmp_path: Path) -> None:
    """Many bits of sources and targets, one at a time."""
    outcomes = turn_bits_of_source(backend, mover, tmp_path, FLIPS)
    assert outcomes["complete"] < FLIPS, "nothing was damaged"
    plain = make("sqlite", tmp_path / "plain", CHANGES)
    turn_bits_of_target(backend, mover, plain, tmp_path, FLIPS)


@pytest.mark.parametrize("backend", FILES)
def test_renames(backend: str, mover: Mover, tmp_path: Path) -> None:
    """Every step by which one database takes the place of another."""
    kill_between_renames(backend, mover, make("sqlite", tmp_path / "plain", CHANGES), tmp_path)


def test_a_hundred_thousand_events(tmp_path: Path) -> None:
    """A large database of random content comes back from a migration round all backends."""
    locations = [f"{name}://{tmp_path}/round{suffix}" for name, suffix in SUFFIXES.items()]
    first, last = f"sqlite://{tmp_path}/first.db", f"sqlite://{tmp_path}/last.db"
    chance = random.Random(f"many {seed()}")
    with open_database(f"{first}?durability=off") as database:
        fill(database, chance, 4000)
        jobs = JobStore(database)
        for start in range(0, 100_000, 4000):
            with database.transaction():
                for number in range(start, start + 4000, 4):
                    job = jobs.create(Job(id=f"many-{number}"))
                    for state in ("Queued", "Running", "Completed"):
                        jobs.set_state(job.id, state)
        assert database.sequence() > 100_000
    route = [first, *locations, last]
    digests = set()
    for source, target in pairwise(route):
        with open_database(source, read_only=True) as database:
            digests.add(database.migrate_to(f"{target}?durability=off").digest.sha256)
    assert len(digests) == 1
    with open_database(first, read_only=True) as one, open_database(last) as other:
        assert verify(one, other).equal
        assert list(check(other)) == list(check(one))
