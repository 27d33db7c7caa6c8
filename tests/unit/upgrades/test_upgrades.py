"""Databases of an older layout: brought to this one at their first opening, or left as they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import msgspec
import pytest

from storebridge import (
    Database,
    Job,
    JobStore,
    LayoutVersionError,
    StorageError,
    meta,
    open_database,
)
from storebridge.check import check
from storebridge.location import location_of
from storebridge.opening import INCOMING
from storebridge.transfer import filling, places, upgrading
from storebridge.transfer.content import content_of
from storebridge.transfer.digests import Digest, digest_of
from tests.unit.upgrades.engines import engine_content
from tests.unit.upgrades.layout2 import Layout2Content, install
from tests.unit.upgrades.sites import (
    BACKENDS,
    New,
    everything_at,
    kept,
    places_of,
    with_option,
)

ROOT = Path(__file__).parents[3]
FILES = BACKENDS[:-1]
RECORDS = 40


@pytest.fixture(params=BACKENDS)
def new(request: pytest.FixtureRequest, tmp_path: Path) -> New:
    return places_of(request.param, request, tmp_path)


@pytest.fixture
def old(new: New) -> str:
    """The location of a closed database of layout 1."""
    return make(new(), RECORDS)


def make(location: str, records: int) -> str:
    with open_database(location, clock=lambda: datetime(2026, 11, 1, tzinfo=UTC)) as database:
        jobs = JobStore(database)
        with database.transaction():
            for number in range(records):
                jobs.create(Job(id=f"j-{number}", labels={"n": str(number % 3)}))
        jobs.set_state("j-0", "Running")
        jobs.update("j-1", priority=3)
        jobs.delete("j-2")
        database.set_checkpoint("reader", 7)
    return location


@pytest.fixture
def expected(old: str) -> Digest:
    """What layout 2 makes of it."""
    return digest_at_layout_2(old)


def digest_at_layout_2(location: str) -> Digest:
    with open_database(location, read_only=True) as database, content_of(database) as content:
        return digest_of(Layout2Content(content))


@pytest.fixture
def newer(expected: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the process is one of layout 2."""
    install(monkeypatch.setattr)


def digest(database: Database) -> Digest:
    with content_of(database) as content:
        return digest_of(content)


@pytest.mark.usefixtures("newer")
def test_the_first_opening_upgrades(old: str, expected: Digest) -> None:
    """All that was there is there, in the new layout, and the store goes on from it."""
    with open_database(old) as database:
        assert database.driver.layout() == 2
        assert digest(database) == expected
        jobs = JobStore(database)
        assert jobs.get("j-1").priority == 3
        assert jobs.counts()["Running"] == 1
        assert database.checkpoint("reader") == 7
        jobs.create(Job(id="j-new"))
        assert [e.kind for e in jobs.history("j-0")] == ["created", "state"]
        assert database.sequence() == RECORDS + 4


@pytest.mark.usefixtures("newer")
def test_the_old_one_is_kept(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(old).close()
    (location,) = kept(old)
    monkeypatch.undo()
    with open_database(location) as database:
        assert database.driver.layout() == 1
        assert JobStore(database).count() == RECORDS - 1


@pytest.mark.usefixtures("newer")
def test_a_second_opening_does_nothing(old: str, expected: Digest) -> None:
    open_database(old).close()
    for _ in range(2):
        with open_database(old) as database:
            assert digest(database) == expected
    assert len(kept(old)) == 1
    assert upgrading.upgrade(location_of(old)) is None
    with open_database(old) as database:
        assert digest(database) == expected


@pytest.mark.usefixtures("newer")
def test_upgraded_is_as_fresh(old: str, new: New) -> None:
    """The same changes made in the new layout from the first give the same database: tables,
    columns, indexes, and every entry of them, in the engine's file as well.
    """
    fresh = make(new(), RECORDS)
    with open_database(old) as one, open_database(fresh) as other:
        assert one.driver.layout() == other.driver.layout() == 2
        assert msgspec.to_builtins(one.layouts) == msgspec.to_builtins(other.layouts)
        assert one.layouts["job"].record.indexes[-1].name == "version"
        assert digest(one) == digest(other)
        assert list(check(one)) == list(check(other)) == []
    assert engine_content(old) == engine_content(fresh)


@pytest.mark.usefixtures("newer")
def test_reading_changes_nothing(old: str) -> None:
    """Who opens it for reading is told what to do, and no file changes."""
    before = everything_at(old)
    with pytest.raises(LayoutVersionError, match="open it for writing once"):
        open_database(old, read_only=True)
    assert everything_at(old) == before


@pytest.mark.usefixtures("newer")
def test_without_a_way(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "UPGRADES", {})
    with pytest.raises(LayoutVersionError, match="no way"):
        open_database(old)
    monkeypatch.undo()
    with open_database(old) as database:
        assert JobStore(database).count() == RECORDS - 1


def test_an_older_storebridge_refuses_the_newer_one(
    old: str, expected: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        install(patched.setattr)
        open_database(old).close()
    with pytest.raises(LayoutVersionError, match="newer"):
        open_database(old)


@pytest.mark.usefixtures("newer")
def test_what_is_read_back_is_compared(
    old: str, expected: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that wrote something else than it read replaces nothing."""
    with monkeypatch.context() as patched:
        patched.setattr(filling.Filling, "read_again", lambda self: None)
        with pytest.raises(StorageError, match="not what was written"):
            open_database(old)
    assert not kept(old)
    with open_database(old) as database:
        assert digest(database) == expected


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("new", FILES, indirect=True)
def test_stopped_between_the_renames(
    old: str, expected: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old database has another name and the new one not yet its own: nothing may be made anew
    there, and the next opening goes on."""
    path = Path(location_of(old).target)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    real = Path.rename
    monkeypatch.setattr(
        Path, "rename", lambda self, to: stop() if INCOMING in self.name else real(self, to)
    )
    with pytest.raises(KeyboardInterrupt):
        open_database(old)
    monkeypatch.setattr(Path, "rename", real)
    assert not path.exists()
    with open_database(old) as database:
        assert digest(database) == expected
    assert len(kept(old)) == 1
    assert not path.with_name(path.name + INCOMING).exists()


@pytest.mark.usefixtures("newer")
def test_somebody_else_has_it_open(old: str, expected: Digest) -> None:
    """A service of the older storebridge that still runs is not cut off from its file."""
    code = (
        "import sys; from storebridge import *; jobs = open_job_store(sys.argv[1]);"
        "jobs.create(Job()); print(flush=True); sys.stdin.read(); jobs.create(Job(id='last'))"
    )
    command = [sys.executable, "-c", code, old]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as service:
        assert service.stdout is not None
        service.stdout.readline()
        with pytest.raises(StorageError, match=str(service.pid)):
            open_database(with_option(old, "lock_timeout=0.2"))
        service.communicate()
        assert service.returncode == 0
    with open_database(old) as database:
        assert JobStore(database).get("last").state == "Pending"
        assert JobStore(database).count() == RECORDS + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_any_moment(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The next opening finishes what a killed one began: nothing is lost, nothing there twice."""
    seed = int(os.environ.get("STOREBRIDGE_SEED", str(time.time_ns() % 2**32)))
    print(f"STOREBRIDGE_SEED={seed}")
    random = Random(seed)
    command = [sys.executable, "-m", "tests.unit.upgrades.layout2"]
    new = places_of(backend, request, tmp_path)
    # How long it takes, about.
    latest = 1.0 if backend == "postgresql" else 0.25
    for _ in range(2):
        location = make(new(), 600)
        wanted = digest_at_layout_2(location)
        for _ in range(3):
            with subprocess.Popen(
                [*command, location], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
            ) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(random.uniform(0, latest))
                process.kill()
        done = subprocess.run([*command, location], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        with pytest.MonkeyPatch.context() as patched:
            install(patched.setattr)
            with open_database(location) as database:
                assert digest(database) == wanted
        assert len(kept(location)) == 1


def test_memory_has_no_older_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made anew at each opening needs no upgrade, and what is open is not touched."""
    with open_database("memory:never-older") as database:
        install(monkeypatch.setattr)
        with open_database("memory:never-older") as again:
            assert again is database
    assert meta.LAYOUT == 2
    assert places.beside(location_of("memory:never-older")) is None
