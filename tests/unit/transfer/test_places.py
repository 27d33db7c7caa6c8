"""What is at a target before, and who has it open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storebridge import (
    ConfigurationError,
    Database,
    ForeignFileError,
    IncompleteStoreError,
    Job,
    JobStore,
    StoreLockedError,
    open_database,
)
from storebridge.location import parse_location
from storebridge.testing.stores.base import contents
from storebridge.transfer import filling
from storebridge.transfer.filling import Filling

_OPEN = """
import sys
from storebridge import JobStore, open_database
with open_database(sys.argv[1]) as database:
    print(JobStore(database).count(), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path / "source.db") as database:
        JobStore(database).create(Job(id="new"))
        yield database


@contextmanager
def open_elsewhere(location: str) -> Iterator[int]:
    """A process that has it open, has read it, and writes nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", _OPEN, location],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        try:
            yield process.pid
        finally:
            process.communicate("\n")
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell who has files open")
@pytest.mark.parametrize("backend", ["sqlite", "lmdb"])
def test_open_in_another_process(backend: str, source: Database, tmp_path: Path) -> None:
    """What another process has open is not replaced, though it may never have written: what it
    wrote later would be lost. The process is named, and nothing has to be copied again.
    """
    target = f"{backend}://{tmp_path}/target"
    with open_database(target) as database:
        JobStore(database).create(Job(id="old"))
    with open_elsewhere(target) as pid:
        with pytest.raises(StoreLockedError, match=f"process {pid} has it open") as caught:
            source.migrate_to(target, overwrite=True)
        assert caught.value.holder == pid
    with open_database(target) as database:
        assert [job.id for job in JobStore(database).find()] == ["old"]
    report = source.migrate_to(target, overwrite=True)
    assert (report.resumed, report.added) == (True, 0)
    with open_database(target) as database:
        assert contents(database) == contents(source)


def test_two_at_once(source: Database, tmp_path: Path) -> None:
    """A target that another process is filling is left to it; one that took over in between is
    noticed before the next batch.
    """
    target = tmp_path / "target.db"
    code = (
        "import sys; from storebridge.location import parse_location;"
        "from storebridge.transfer.filling import Filling;"
        f"filling = Filling(parse_location({str(target)!r}), 'migrate', 'here');"
        "print('begun', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(StoreLockedError, match=f"process {process.pid} is filling it"):
            source.migrate_to(target, overwrite=True)
        process.kill()
    location = parse_location(str(target))
    taken = pytest.raises(StoreLockedError, match="somebody else")
    with Filling(location, "migrate", "here") as first, Filling(location, "migrate", "here"), taken:
        first.clear()


def test_begun_from_elsewhere(
    source: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun from one source is not gone on with from another unasked; asked, it becomes
    what the other holds, whatever was there of the first.
    """
    target = tmp_path / "target.bolt"
    monkeypatch.setattr(filling, "_FEWEST", 1)
    monkeypatch.setattr(filling, "_MOST", 1)
    with open_database(tmp_path / "other.db") as other:
        for number in range(5):
            JobStore(other).create(Job(id=f"other-{number}"))

        def stop(progress: object) -> None:
            if progress[0] == "verify":  # type: ignore[index]
                raise RuntimeError

        with pytest.raises(RuntimeError):
            other.migrate_to(target, watch=stop)
    with pytest.raises(IncompleteStoreError, match=r"other\.db"):
        open_database(target)
    with pytest.raises(ConfigurationError, match="give that command again, or overwrite"):
        source.migrate_to(target)
    source.migrate_to(target, overwrite=True)
    with open_database(target) as database:
        assert contents(database) == contents(source)


def test_what_is_not_ours(source: Database, tmp_path: Path) -> None:
    """A file of somebody else's is never a target, overwritten or not."""
    target = tmp_path / "notes.db"
    target.write_text("dear diary")
    for overwrite in (False, True):
        with pytest.raises(ForeignFileError):
            source.migrate_to(f"sqlite://{target}", overwrite=overwrite)
    assert target.read_text() == "dear diary"


def test_nothing_would_remain(source: Database) -> None:
    """A target that is gone as soon as it is closed is refused, unless somebody has it open."""
    with pytest.raises(ConfigurationError, match="gone when it is closed"):
        source.migrate_to("memory:gone")
    with open_database("memory:kept") as database:
        source.migrate_to("memory:kept")
        assert contents(database) == contents(source)


def test_a_store_opened_before(source: Database, tmp_path: Path) -> None:
    """Who opened an empty database before it became a target cannot make a store in it while it is
    being filled.
    """
    target = tmp_path / "target.db"
    with open_database(target) as database:

        def open_store(progress: object) -> None:
            if progress[0] == "copy":  # type: ignore[index]
                JobStore(database)

        with pytest.raises(IncompleteStoreError):
            source.migrate_to(target, watch=open_store)
        source.migrate_to(target)
        assert JobStore(database).get("new").id == "new"
